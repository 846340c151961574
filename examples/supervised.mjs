// A gateway for a supervisor to start: it leaves a healthy one in control, and waits for one that is not well, for a while. The folders
// beside it have what systemd, launchd, Windows, pm2, Docker and Kubernetes need to run it.

import { createServer } from "node:http";
import { EXIT, GatewayLockError, superviseGateway } from "gateway-lock";

const { env } = process;
const stateDir = env.STATE_DIRECTORY ?? ".gateway"; // systemd sets it

const start = await superviseGateway({
  stateDir,
  host: env.GATEWAY_HOST ?? "127.0.0.1",
  port: Number(env.GATEWAY_PORT ?? 18789),
  scheme: "http",
  onDuplicate: env.GATEWAY_ON_DUPLICATE ?? "leave", // or "standby"
  retry: { limit: Number(env.GATEWAY_RETRY_LIMIT ?? 300_000) }, // ms
}).catch((error) => {
  if (!(error instanceof GatewayLockError)) throw error;
  const { message, owner, health } = error;
  console.error(`gateway: ${message}`);
  const reason = health?.error ? ` (${health.error})` : "";
  if (owner)
    console.error(`  pid ${owner.pid} owns ${owner.url}${reason}: gateway-lock status --state-dir ${stateDir}`);
  // Where another start would end the same, the code is one that the supervisor does not start again after.
  process.exit(error.retryable ? error.exitCode : EXIT.SUPERVISED_DUPLICATE);
});
if (start.outcome === "left-in-control") {
  console.log(`gateway: pid ${start.owner.pid} is healthy and stays in control`);
  process.exit(Number(env.GATEWAY_DUPLICATE_EXIT_CODE ?? start.exitCode));
}

const { gateway } = start;
await gateway.listen(
  createServer((request, response) => {
    if (request.url === "/healthz") return gateway.healthz(request, response);
    response.end(`gateway, pid ${process.pid}\n`);
  }),
);
gateway.ready();
console.log(`gateway: pid ${process.pid} owns ${gateway.url}`);

gateway.lost.addEventListener("abort", () => {
  console.error(`gateway: ${gateway.lost.reason.message}`);
  process.exit(EXIT.FAILURE);
});
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await gateway.close({ timeout: 5000 });
    process.exit(EXIT.OK);
  });
}
