// Shows the promise with real processes: a gateway, a refused duplicate, SIGKILL with a client connected, a restart, a standby.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";

const PORT = 18789;
const URL_HERE = `ws://127.0.0.1:${PORT}`;
const DEADLINE = 10_000; // ms for all of it: it ends by itself, whatever happens

const stateDir = mkdtempSync(join(tmpdir(), "gateway-lock-demo-"));
const children = [];

function start(...flags) {
  const path = fileURLToPath(new URL("gateway.mjs", import.meta.url));
  const child = spawn(process.execPath, [path, ...flags, stateDir, String(PORT)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => console.log(`    ${line}`));
  }
  return child;
}

/** Resolves when it has printed something: that it owns the port, or waits for it; rejects when it ends instead. */
async function speaking(child) {
  const ended = once(child, "exit").then(([code]) => {
    throw new Error(`the gateway ended with exit code ${code}; is something else on port ${PORT}?`);
  });
  await Promise.race([once(child.stdout, "data"), ended]);
  ended.catch(() => {});
}

async function ask(text) {
  const client = new WebSocket(URL_HERE);
  await once(client, "open");
  client.send(text);
  const [answer] = await once(client, "message");
  return { client, answer: String(answer) };
}

async function demo() {
  console.log(`1. A gateway starts on ${URL_HERE}, with a state directory of its own.`);
  const first = start();
  await speaking(first);
  const { client, answer } = await ask("hello");
  console.log(`    a client is connected and hears "${answer}"`);

  console.log("2. A duplicate starts.");
  const [code] = await once(start(), "close");
  console.log(`    it is refused, with exit code ${code}`);

  console.log("3. SIGKILL hits the first one, while its client is connected.");
  const gone = once(client, "close");
  client.on("error", () => {});
  first.kill("SIGKILL");
  await Promise.all([once(first, "exit"), gone]);
  console.log("    no lock file was removed, no port was closed in good order");

  console.log("4. It is started again at once.");
  const started = performance.now();
  const second = start();
  const answered = speaking(second).then(() => ask("are you back?"));
  const { client: next, answer: back } = await answered;
  const ms = Math.round(performance.now() - started);
  console.log(`    "${back}": takeover in ${ms} ms, from spawning the process to its first answer`);

  console.log("5. A standby starts. It waits in the kernel, until SIGKILL hits the owner.");
  const standby = start("--standby");
  await speaking(standby);
  next.on("error", () => {});
  const killed = performance.now();
  const takeover = once(standby.stdout, "data");
  second.kill("SIGKILL");
  await takeover;
  const { client: last, answer: again } = await ask("and you?");
  console.log(`    "${again}": it answered ${Math.round(performance.now() - killed)} ms after the kill`);
  last.terminate();

  const ended = once(standby, "close");
  standby.kill("SIGTERM");
  const [status] = await ended;
  console.log(`6. SIGTERM ends it in good order, with exit code ${status}.`);
}

function cleanUp() {
  for (const child of children) child.kill("SIGKILL");
  rmSync(stateDir, { recursive: true, force: true });
}

function giveUp(reason) {
  console.error(`demo: ${reason}`);
  cleanUp();
  process.exit(1);
}
const timer = setTimeout(() => giveUp(`it did not end within ${DEADLINE / 1000} s`), DEADLINE);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => giveUp(`told to end by ${signal}`));
try {
  await demo();
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
} finally {
  clearTimeout(timer);
  cleanUp();
}
