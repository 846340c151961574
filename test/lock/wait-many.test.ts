// Proves that many may wait at once, in one process and in many: each gets the lock once, nobody with somebody else, and nobody starves.

import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "vitest";
import { lockFile } from "../../lib/lock/file-lock.ts";
import { hasFlockCommand, isLinux, itWhere } from "../support/capabilities.ts";
import { flockCommandGets } from "../support/locks.ts";
import { showTimes } from "../support/measures.ts";
import { startFixture } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";
import {
  aFile,
  lock,
  overlaps,
  readIntervals,
  startTurns,
  takeTurn,
  threadsOf,
  until,
  untilWaiters,
  waitersOn,
} from "../support/waits.ts";

const it = itWhere(isLinux && hasFlockCommand, "needs procfs and flock(1)");

const MANY = 1000;
const PROCESSES = 32;
const TURNS = 5;
const WITH_REMOVE = 16;

for (const [where, paths] of [
  ["one file", () => Array(MANY).fill(aFile()) as string[]],
  ["1,000 files", () => inOneDirectory(MANY)],
] as const) {
  it(`waits 1,000 times at once on ${where}: all are cancelled by one signal, and then each gets the lock once`, async () => {
    const [all, log] = [paths(), join(temporaryDirectory(), "intervals")];
    const before = { threads: threadsOf(), descriptors: openDescriptors() };
    const held = [...new Set(all)].map(lock);

    const controller = new AbortController();
    const cancelled = all.map((path) => lockFile(path, { signal: controller.signal }));
    await until(() => threadsOf() === before.threads + MANY);
    controller.abort();
    for (const { status } of await Promise.allSettled(cancelled)) expect(status).toBe("rejected");
    await until(() => threadsOf() === before.threads);
    expect(openDescriptors()).toBe(before.descriptors + held.length);

    const turns = all.map((path) => takeTurn(path, `${log}.${path === all[0] ? "first" : "others"}`));
    await until(() => threadsOf() === before.threads + MANY);
    for (const lock of held) lock.release();
    await Promise.all(turns);
    const intervals = readIntervals(`${log}.first`);
    expect(intervals).toHaveLength(MANY / held.length);
    expect(overlaps(intervals)).toEqual([]);
    await until(() => threadsOf() === before.threads);
    expect(openDescriptors()).toBe(before.descriptors);
    expect(flockCommandGets(all[0] ?? "")).toBe("granted");
  });
}

function inOneDirectory(count: number): string[] {
  const directory = temporaryDirectory();
  return Array.from({ length: count }, (_, index) => join(directory, String(index)));
}

it("gives each of 32 processes the lock once, and later each its turns while the others never stop", async () => {
  const [path, log] = [aFile(), join(temporaryDirectory(), "intervals")];
  const held = lock(path);
  const processes = await Promise.all(Array.from({ length: PROCESSES }, () => startTurns({ path, log })));
  for (const process of processes) process.send("turn");
  await untilWaiters(path, PROCESSES);
  held.release();
  for (const process of processes) await process.next("had");
  const once = readIntervals(log);
  expect(overlaps(once)).toEqual([]);
  expect(new Set(once.map(({ pid }) => pid))).toEqual(new Set(processes.map(({ pid }) => pid)));
  expect(once).toHaveLength(PROCESSES);
  expect(waitersOn(path)).toBe(0);

  const started = performance.now();
  for (const process of processes) process.send(`turns ${TURNS}`);
  for (const process of processes) await process.next("had");
  showTimes(`${PROCESSES} × ${TURNS} turns: ${(performance.now() - started).toFixed()} ms`);
  for (const process of processes) process.child.stdin?.end();
  for (const process of processes) await process.exited;
  const turns = readIntervals(log);
  showTimes(`${turns.length - PROCESSES} turns were taken until the last of ${PROCESSES} had its ${TURNS}`);
  expect(overlaps(turns)).toEqual([]);
  expect(flockCommandGets(path)).toBe("granted");
});

it("gives each of 16 waiters the lock as often as it asks although every holder deletes the file", async () => {
  const [path, log] = [aFile(), join(temporaryDirectory(), "intervals")];
  const holder = startFixture("lock-holder.mjs", { path, remove: true });
  await holder.next("locked");
  const other = await startTurns({ path, log, remove: true });
  other.send("turn");
  const turns = Array.from({ length: WITH_REMOVE - 1 }, async () => {
    // From the second on they are newcomers, at a new file, while others still wait on the old one.
    for (let turn = 0; turn < TURNS; turn++) await takeTurn(path, log, { remove: true });
  });
  await untilWaiters(path, WITH_REMOVE);
  holder.send("release");
  await Promise.all([...turns, other.next("had")]);

  const intervals = readIntervals(log);
  expect(overlaps(intervals)).toEqual([]);
  expect(intervals).toHaveLength((WITH_REMOVE - 1) * TURNS + 1);
  expect(readdirSync(dirname(path))).toEqual([]);
});
