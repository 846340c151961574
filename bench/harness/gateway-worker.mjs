// A process that opens and closes a gateway or a server, or is refused one, a batch at a time:
// gateway-worker.mjs <gateway | claim | server | refused | refused-server> <state directory> <port> [reserved ports]

import { once } from "node:events";
import { createServer } from "node:http";
import { acquireGateway } from "../../dist/index.js";
import { now, serve } from "./serve.mjs";

const [operation, stateDir, given, reserved = "0"] = process.argv.slice(2);
const port = Number(given);
const reserve = Array.from({ length: Number(reserved) }, (_, i) => port + 1 + i);
const options = { stateDir, port, reserve };

const operations = {
  async gateway() {
    const gateway = await acquireGateway(options);
    await gateway.listen(createServer());
    await gateway.close();
  },
  async claim() {
    const gateway = await acquireGateway(options);
    await gateway.close();
  },
  async server() {
    const server = createServer().listen(port, "127.0.0.1");
    await once(server, "listening");
    server.close();
    await once(server, "close");
  },
  async refused() {
    const refusal = await acquireGateway(options).catch((error) => error);
    if (refusal.code !== "ALREADY_LISTENING") throw new Error("a second gateway was not refused", { cause: refusal });
  },
  async "refused-server"() {
    const server = createServer().listen(port, "127.0.0.1");
    const [error] = await once(server, "error");
    if (error.code !== "EADDRINUSE") throw error;
  },
};
const perform = operations[operation];

serve({
  async batch(count) {
    const times = [];
    for (let i = 0; i < Number(count); i++) {
      const start = now();
      await perform();
      times.push(Number(now() - start));
    }
    return times;
  },
});
