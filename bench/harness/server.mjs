// A process that waits for a subject's lock, then serves its pid by HTTP: server.mjs <subject> <path> <port>

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { say, serve } from "./serve.mjs";

const [subject, path, given] = process.argv.slice(2);
const port = Number(given);
let gateway;
const server = createServer((request, response) => {
  if (request.url === "/healthz" && gateway !== undefined) gateway.healthz(request, response);
  else response.end(String(process.pid));
});

const ways = {
  async "gateway-lock"() {
    const { acquireGateway } = await import("../../dist/index.js");
    say({ event: "waiting" });
    gateway = await acquireGateway({ stateDir: path, port, timeout: Infinity });
    await gateway.listen(server);
    gateway.ready();
  },
  /** A child of ours has the lock, and ends with us, because its standard input does. */
  async "flock(1)"() {
    say({ event: "waiting" });
    const stdio = ["pipe", "pipe", "inherit"];
    const helper = spawn("flock", [path, "sh", "-c", "echo got; exec cat"], { stdio });
    await once(helper.stdout, "data");
    await listen();
  },
  /** flock(1) has started us: the lock is held. */
  async "flock(1), then node"() {
    await listen();
  },
};

async function listen() {
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
}

async function waitAsPeer() {
  const { load } = await import("../peers/index.mjs");
  const peer = await load(subject);
  say({ event: "waiting" });
  await (peer.wait ?? peer.acquire)(path);
  await listen();
}

serve({});
await (ways[subject] ?? waitAsPeer)();
say({ event: "serving", pid: process.pid });
