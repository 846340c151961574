// What the actors of one round fight for: two state directories, three configs, two ports, and a plain lock file.

import { appendFileSync, mkdirSync, mkdtempSync, realpathSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";

// Below the ephemeral range: no client has them as its own.
const FIRST_PORT = 12_000;
const LAST_PORT = 17_000;

export async function makeWorld(parent, random) {
  const root = realpathSync(mkdtempSync(join(parent, "gateway-lock-chaos-")));
  const [first, second, elsewhere] = ["first", "second", "elsewhere"].map((name) => join(root, name));
  for (const directory of [first, second, elsewhere]) mkdirSync(directory, { mode: 0o700 });
  const ports = [await freePort(random)];
  while (ports.length < 2) {
    const port = await freePort(random);
    if (!ports.includes(port)) ports.push(port);
  }
  return {
    root,
    journal: join(root, "journal"),
    errors: join(root, "errors"),
    plainLock: join(root, "plain.lock"),
    stateDirs: [first, second],
    // Two of them lie in a state directory: theirs is the lock that another state directory's gateway may meet there.
    configs: [join(first, "gateway.json"), join(second, "gateway.json"), join(elsewhere, "shared.json")],
    lockDirs: [first, second, elsewhere].map((directory) => join(directory, "locks")),
    ports,
  };
}

/** Everything that a gateway may be asked for here. */
export function claimsOf({ stateDirs, configs, ports }) {
  return stateDirs.flatMap((stateDir) =>
    configs.flatMap((configPath) => ports.map((port) => ({ stateDir, configPath, port }))),
  );
}

/** What a claim excludes others from, as the journal names it. */
export function resourcesOf({ stateDir, configPath, port }) {
  return [`directory ${stateDir}`, `config ${configPath}`, `port ${port}`];
}

/** CLOCK_MONOTONIC, which all processes share, in ms. */
export function now() {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** One line in one write: whoever is killed in between has written it, or has not. */
export function note(journal, event, fields) {
  appendFileSync(journal, `${JSON.stringify({ at: now(), pid: process.pid, event, ...fields })}\n`);
}

async function freePort(random) {
  for (;;) {
    const port = random.integer(FIRST_PORT, LAST_PORT);
    if ((await isFree(port, "127.0.0.1")) && (await isFree(port, "::1"))) return port;
  }
}

function isFree(port, host) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", ({ code }) => resolve(code === "EADDRNOTAVAIL"));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
