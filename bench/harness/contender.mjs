// A process that takes one lock again and again until a time, and logs when it asked, had it, and let go: contender.mjs <subject>

import { writeFileSync } from "node:fs";
import { setTimeout as pauseFor } from "node:timers/promises";
import { load } from "../peers/index.mjs";
import { now, say, serve } from "./serve.mjs";

const MS = 1e6; // ns
/** Turns before the log has to grow. Not an array of objects, which would be garbage to collect. */
const ROOM = 100_000;

const peer = await load(process.argv[2]);
const release = peer.releaseAfterWait ?? peer.release;

async function takeTurns(path, start, duration, section, pause, log) {
  const begin = BigInt(start);
  const end = begin + BigInt(duration);
  const length = BigInt(section);
  const isTimed = pause !== "0";
  let turns = new BigInt64Array(3 * ROOM);
  let logged = 0;
  const ahead = Number(begin - now()) / MS;
  if (ahead > 0) await pauseFor(ahead);
  while (now() < begin);
  const used = process.cpuUsage();
  for (let asked = now(); asked < end; asked = now()) {
    const lock = await peer.wait(path);
    const acquired = now();
    if (isTimed) await pauseFor(Number(length) / MS);
    else if (length > 0n) while (now() < acquired + length);
    if (logged === turns.length) turns = grown(turns);
    turns[logged++] = asked;
    turns[logged++] = acquired;
    turns[logged++] = now();
    const released = release(lock);
    if (released instanceof Promise) await released;
    if (isTimed) await pauseFor(Number(pause) / MS);
  }
  const { user, system } = process.cpuUsage(used);
  writeFileSync(log, turns.subarray(0, logged));
  return { count: logged / 3, cpu: user + system };
}

function grown(turns) {
  const more = new BigInt64Array(2 * turns.length);
  more.set(turns);
  return more;
}

/** Alone, for `duration` ms: a program that has just begun is compiled while it runs. */
async function warmUp(path, duration) {
  for (const end = now() + BigInt(duration) * BigInt(MS); now() < end; ) {
    const released = release(await peer.wait(path));
    if (released instanceof Promise) await released;
  }
  return {};
}

serve({ block: takeTurns, warm: warmUp });
say({ event: "ready" });
