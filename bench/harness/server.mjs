// A process that waits for a subject's lock, then serves its pid by HTTP: server.mjs <subject> <path> <port>

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { say, serve } from "./serve.mjs";

const RETRY = 1; // ms

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

/** The kernel may free a dead owner's lock before its port: a user of these has to try again. */
async function listen() {
  for (;;) {
    try {
      server.listen(port, "127.0.0.1");
      return await once(server, "listening");
    } catch (error) {
      if (error.code !== "EADDRINUSE") throw error;
    }
    await pause(RETRY);
  }
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
