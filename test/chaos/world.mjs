// What the actors of one round fight for: two state directories, three configs, two ports, and a plain lock file.

import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, realpathSync } from "node:fs";
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

/** In one write, that nobody else's comes into. Of somebody who is killed in it, what lies on the next page may be missing: the next line begins by itself. */
export function note(journal, event, fields) {
  appendFileSync(journal, `\n${JSON.stringify({ at: now(), pid: process.pid, event, ...fields })}`);
}

/** Linux looks for a fatal signal between the pages of a write (generic_perform_write() in mm/filemap.c), and nowhere else. */
const PAGE = 4096; // bytes

/** All notes, in their order in time. A torn one is what somebody wanted to tell while it was killed: it did no more. */
export function readNotes(journal) {
  const bytes = readFileSync(journal);
  const notes = [];
  let end;
  for (let begin = 0; begin < bytes.length; begin = end + 1) {
    end = bytes.indexOf("\n", begin);
    if (end === -1) end = bytes.length;
    const line = bytes.toString("utf8", begin, end);
    try {
      notes.push(JSON.parse(line));
    } catch (error) {
      if (end % PAGE !== 0) throw new Error(`the line of ${journal} that ends at ${end} is no note`, { cause: error });
    }
  }
  return notes.sort((a, b) => a.at - b.at);
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
