// A small WebSocket gateway that is alone on its host. Copy it, `npm install gateway-lock ws`, and put your own work where the echo is.
//
//   node gateway.mjs [--standby] [state directory] [port]
//
// With --standby it waits while another one owns the gateway, and takes over when that is gone.

import { subscribe } from "node:diagnostics_channel";
import { createServer } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { acquireGateway, GatewayLockError } from "gateway-lock";
import { WebSocketServer } from "ws";

const { values, positionals } = parseArgs({ options: { standby: { type: "boolean" } }, allowPositionals: true });
const stateDir = positionals[0] ?? join(homedir(), ".example-gateway");
const port = Number(positionals[1] ?? 18789);

subscribe("gateway-lock:wait", () => console.log(`gateway: pid ${process.pid} waits as a standby`));

let gateway;
try {
  gateway = await acquireGateway({ stateDir, port, timeout: values.standby ? Infinity : 0 });
} catch (error) {
  if (!(error instanceof GatewayLockError)) throw error;
  console.error(`gateway: ${error.message}`);
  const owner = error.listener?.pid; // by the kernel; the one in error.owner may be of another container
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
