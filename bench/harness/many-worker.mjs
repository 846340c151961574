// A process with very many locks, or very many waiters: many-worker.mjs <subject> <locks | waiters> <path>; run with --expose-gc

import { setTimeout as pause } from "node:timers/promises";
import { load } from "../peers/index.mjs";
import { waitersOn } from "./kernel.mjs";
import { now, serve } from "./serve.mjs";

const [subject, , path] = process.argv.slice(2);
const peer = await load(subject);
const STEADY = 3; // looks at the kernel's list in which it has not changed

function resident() {
  globalThis.gc();
  return process.memoryUsage().rss;
}

async function timed(operation) {
  const start = now();
  const pending = operation();
  const value = pending instanceof Promise ? await pending : pending;
  return [value, Number(now() - start)];
}

/** Files named 0, 1, … are at the path already. */
async function many(count) {
  const locks = [];
  const acquire = [];
  const release = [];
  const before = resident();
  for (let i = 0; i < Number(count); i++) {
    const [lock, ns] = await timed(() => peer.acquire(`${path}/${i}`));
    locks.push(lock);
    acquire.push(ns);
  }
  const memory = resident() - before;
  for (const lock of locks) release.push((await timed(() => peer.release(lock)))[1]);
  return { acquire, release, memory };
}

let drained;
let first;
let before;

async function waiters(count) {
  first = await (peer.acquire ?? peer.wait)(path);
  before = resident();
  const start = [];
  const turns = [];
  for (let i = 0; i < Number(count); i++) {
    const begin = now();
    turns.push(peer.wait(path).then(peer.release));
    start.push(Number(now() - begin));
  }
  drained = Promise.all(turns);
  // Those who wait on a thread pool are never all in the kernel.
  let [waiting, steady] = [-1, 0];
  while (waiting < Number(count) && steady < STEADY) {
    await pause(20);
    const current = waitersOn(path);
    steady = current === waiting ? steady + 1 : 0;
    waiting = current;
  }
  return { start };
}

async function drain() {
  const memory = resident() - before;
  const start = now();
  await peer.release(first);
  await drained;
  return { drain: Number(now() - start), memory };
}

serve({ many, waiters, drain });
