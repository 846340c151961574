// Does in a process of its own what a scenario tells it: one JSON command a line, one JSON answer a line.

import { spawn } from "node:child_process";
import { subscribe } from "node:diagnostics_channel";
import { closeSync, openSync, unlinkSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { acquireGateway, lockFile, tryLockFile } from "gateway-lock";
import { WebSocketServer } from "ws";
import { RUNTIME } from "./runtime.mjs";

const locks = [];
let gateway = null;
let server = null;

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

subscribe("gateway-lock:wait", () => say({ event: "waiting" }));

/** JSON has no Infinity. */
function timeoutOf({ timeout }) {
  return timeout === "Infinity" ? { timeout: Infinity } : timeout === undefined ? {} : { timeout };
}

function describe({ host, port, url, lockPaths, owner, addresses }) {
  return { host, port, url, lockPaths, owner, addresses };
}

/** By a clock that all processes share: hrtime() of Deno and Bun begins with each of them. ms */
function now() {
  const { deno, bun } = process.versions;
  return deno === undefined && bun === undefined ? Number(process.hrtime.bigint()) / 1e6 : Date.now();
}

async function turn(path, marker) {
  const lock = await lockFile(path);
  const enter = now();
  closeSync(openSync(marker, "wx")); // EEXIST if anybody else is in here, whatever the clock says
  for (let round = 0; round < 3; round++) await new Promise(setImmediate);
  unlinkSync(marker);
  const leave = now();
  lock.release();
  return [enter, leave];
}

const COMMANDS = {
  tryLock({ path, remove = false }) {
    const lock = tryLockFile(path, { remove });
    if (lock !== null) locks.push(lock);
    return lock !== null;
  },
  async lock({ path, ...limits }) {
    const wait = lockFile(path, timeoutOf(limits));
    say({ event: "asked" });
    locks.push(await wait);
  },
  release() {
    for (const lock of locks.splice(0)) lock.release();
  },
  async takeTurns({ path, marker, turns }) {
    const intervals = [];
    while (intervals.length < turns) intervals.push(await turn(path, marker));
    return intervals;
  },
  async acquire({ options }) {
    gateway = await acquireGateway({ ...options, ...timeoutOf(options) });
    return describe(gateway);
  },
  /** As the README has it: a duplicate ends with the error's own exit code. */
  async acquireOrExit({ options }) {
    await acquireGateway(options).catch((error) => process.exit(error.exitCode));
  },
  async serve({ answer }) {
    server = createHttpServer((request, response) => {
      if (request.url === "/healthz") gateway.healthz(request, response);
      else response.end(answer);
    });
    new WebSocketServer({ server }).on("connection", (client) => {
      client.on("message", (data) => client.send(`${answer} ${data}`));
      client.on("error", () => {});
    });
    await gateway.listen(server);
    gateway.ready();
  },
  ready() {
    gateway.ready();
  },
  update({ metadata }) {
    gateway.update({ metadata });
  },
  async close(options) {
    await gateway.close(options);
  },
  async listen({ port, host }) {
    const plain = createServer();
    await new Promise((resolve, reject) => {
      plain.once("error", reject);
      plain.listen({ port, host, exclusive: true }, resolve);
    });
  },
  /** Starts a process that stays when this one is gone, until its connection to `port` ends. */
  async leaveChild({ port }) {
    const [command, ...args] = RUNTIME;
    const child = spawn(command, [...args, fileURLToPath(new URL("survivor.mjs", import.meta.url)), `${port}`], {
      stdio: "ignore",
      detached: true,
    });
    child.unref();
    return child.pid;
  },
  exit({ code }) {
    process.exit(code);
  },
};

async function obey({ id, command, ...fields }) {
  try {
    say({ id, value: await COMMANDS[command](fields) });
  } catch (error) {
    const { name, message, code, exitCode, retryable, owner, listener, port, url, lockPath } = error;
    say({ id, error: { name, message, code, exitCode, retryable, owner, listener, port, url, lockPath } });
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void obey(JSON.parse(line)));
// The scenario is gone, whatever has become of it.
lines.on("close", () => process.exit(0));
say({ event: "started" });
