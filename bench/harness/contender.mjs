// A process that takes one lock again and again until a time, and logs when it asked, had it, and let go: contender.mjs <subject>

import { writeFileSync } from "node:fs";
import { setTimeout as pauseFor } from "node:timers/promises";
import { load } from "../peers/index.mjs";
import { now, say, serve } from "./serve.mjs";

const MS = 1e6; // ns

const peer = await load(process.argv[2]);
const release = peer.releaseAfterWait ?? peer.release;

async function takeTurns(path, start, duration, section, pause, log) {
  const begin = BigInt(start);
  const end = begin + BigInt(duration);
  const length = BigInt(section);
  const isTimed = pause !== "0";
  const turns = [];
  const ahead = Number(begin - now()) / MS;
  if (ahead > 0) await pauseFor(ahead);
  while (now() < begin);
  const used = process.cpuUsage();
  for (let asked = now(); asked < end; asked = now()) {
    const lock = await peer.wait(path);
    const acquired = now();
    if (isTimed) await pauseFor(Number(length) / MS);
    else if (length > 0n) while (now() < acquired + length);
    turns.push(asked, acquired, now());
    const released = release(lock);
    if (released instanceof Promise) await released;
    if (isTimed) await pauseFor(Number(pause) / MS);
  }
  const { user, system } = process.cpuUsage(used);
  writeFileSync(log, BigInt64Array.from(turns));
  return { count: turns.length / 3, cpu: user + system };
}

serve({ block: takeTurns });
say({ event: "ready" });
