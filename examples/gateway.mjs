// A small WebSocket gateway that is alone on its host. Copy it, and put your own work where the echo is.
//
//   node gateway.mjs [state directory] [port]

import { createServer } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { acquireGateway, GatewayLockError } from "gateway-lock";
import { WebSocketServer } from "ws";

const stateDir = process.argv[2] ?? join(homedir(), ".example-gateway");
const port = Number(process.argv[3] ?? 18789);

let gateway;
try {
  gateway = await acquireGateway({ stateDir, port });
} catch (error) {
  if (!(error instanceof GatewayLockError)) throw error;
  console.error(`gateway: ${error.message}`);
  const owner = error.listener?.pid ?? error.owner?.pid;
  if (error.retryable && owner)
    console.error(`gateway: pid ${owner} has it; stop that one first, or leave it in control`);
  process.exit(error.exitCode);
}

const server = createServer((request, response) => {
  if (request.url === "/healthz") return gateway.healthz(request, response);
  response.end(`gateway, pid ${process.pid}\n`);
});
new WebSocketServer({ server }).on("connection", (client) => {
  client.on("message", (message) => client.send(`echo: ${message}`));
});

await gateway.listen(server);
gateway.ready();
console.log(`gateway: pid ${process.pid} owns ${gateway.url} and ${stateDir}`);

// Never go on without the lock: two gateways on one state directory are worse than none.
gateway.lost.addEventListener("abort", () => {
  console.error(`gateway: ${gateway.lost.reason.message}`);
  process.exit(1);
});
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await gateway.close({ timeout: 5000 });
    process.exit(0);
  });
}
