// A server that starts to bind when it is told to, and says how long that took: restarted.mjs <subject> <state directory> <port>

import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { acquireGateway } from "../../dist/index.js";
import { now, say, serve } from "./serve.mjs";

const RETRY = 100; // ms

const [subject, stateDir, given] = process.argv.slice(2);
const port = Number(given);
const answer = (_request, response) => response.end(String(process.pid));

const attempts = {
  async "gateway-lock"() {
    const gateway = await acquireGateway({ stateDir, port });
    await gateway.listen(createServer(answer));
    gateway.ready();
  },
  async "net.Server.listen"() {
    const server = createServer(answer).listen(port, "127.0.0.1");
    await once(server, "listening");
  },
};

async function go() {
  const start = now();
  for (let refused = 0; ; refused++) {
    try {
      await attempts[subject]();
      return { event: "serving", pid: process.pid, blocked: Number(now() - start), refused };
    } catch (error) {
      if (!["EADDRINUSE", "ALREADY_LISTENING", "ALREADY_RUNNING", "BIND_FAILED"].includes(error.code)) throw error;
    }
    await pause(RETRY);
  }
}

serve({ go });
say({ event: "waiting" });
