// When all are dead: everybody can start at once, and nothing is left of anybody.

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer, get } from "node:http";
import { connect } from "node:net";
import { acquireGateway, readOwner, tryLockFile } from "../../dist/index.js";
import { claimsOf } from "./world.mjs";

/** What this process has open, and its threads. */
export function possessions() {
  return { descriptors: readdirSync("/proc/self/fd").length, threads: readdirSync("/proc/self/task").length };
}

/** Processes that were started for this world, by their command lines. */
export function processesOf({ root }) {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return [];
    try {
      return readFileSync(`/proc/${name}/cmdline`, "utf8").includes(root) ? [Number(name)] : [];
    } catch {
      return []; // gone
    }
  });
}

/** A process that was killed has no command line any more, and its last threads may still have its descriptors. */
export function isDead(pid) {
  try {
    const [, state] = /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
    return state === "Z" && readdirSync(`/proc/${pid}/task`).length === 1;
  } catch {
    return true;
  }
}

/** What is wrong, in words. A gateway that may be handed over takes the place of a dead one's socket too; others leave that where it is. */
export async function inspectAftermath(world) {
  const findings = [];
  for (const claim of claimsOf(world)) {
    const what = `after all were dead, a gateway for ${JSON.stringify(claim)}`;
    try {
      const gateway = await acquireGateway({ ...claim, timeout: 0, handover: true });
      const { ownerId } = gateway.owner;
      const server = createServer((_, response) => response.end(ownerId));
      await gateway.listen(server);
      for (const path of gateway.lockPaths) {
        const { record, torn, holders } = readOwner(path);
        if (torn || record?.ownerId !== ownerId || !holders.includes(process.pid))
          findings.push(`${what} finds in ${path}: ${JSON.stringify({ record, torn, holders })}`);
      }
      const answer = await answerOf(claim.port);
      if (answer !== ownerId) findings.push(`${what} is not who answers: ${answer}`);
      await gateway.close({ force: true });
    } catch (error) {
      findings.push(`${what} could not start: ${error.stack} ${error.cause?.message ?? ""}`);
    }
  }
  try {
    const lock = tryLockFile(world.plainLock, { remove: true });
    if (lock === null) findings.push(`${world.plainLock} is locked after all were dead`);
    lock?.release();
  } catch (error) {
    findings.push(`${world.plainLock}: ${error.stack}`);
  }
  for (const port of world.ports)
    for (const host of ["127.0.0.1", "::1"])
      if (await isAnswered(host, port)) findings.push(`somebody listens on ${host} port ${port}`);
  for (const directory of world.lockDirs) {
    const left = entriesOf(directory);
    if (left.length > 0) findings.push(`left in ${directory}: ${left.join(", ")}`);
  }
  for (const fd of readdirSync("/proc/self/fd")) {
    const target = targetOf(fd);
    if (target.startsWith(world.root)) findings.push(`left open: ${target}`);
  }
  return findings;
}

function entriesOf(directory) {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function targetOf(fd) {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ""; // of the listing itself
  }
}

function answerOf(port) {
  return new Promise((resolve) => {
    get({ host: "127.0.0.1", port, agent: false }, (response) => {
      response.setEncoding("utf8").once("data", resolve);
    }).once("error", ({ code }) => resolve(code));
  });
}

function isAnswered(host, port) {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const settle = (answered) => {
      socket.destroy();
      resolve(answered);
    };
    socket.once("connect", () => settle(true)).once("error", () => settle(false));
  });
}
