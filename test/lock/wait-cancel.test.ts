// Proves that a wait for a lock can be cancelled at any moment, within milliseconds, and that nothing of it is left.

import { getEventListeners } from "node:events";
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished } from "vitest";
import { type FileLock, lockFile } from "../../lib/lock/file-lock.ts";
import { hasFlockCommand, isLinux, itWhere } from "../support/capabilities.ts";
import { flockCommandGets } from "../support/locks.ts";
import { quantile, showTimes } from "../support/measures.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";
import {
  aFile,
  type Interval,
  lock,
  locksOf,
  overlaps,
  readIntervals,
  spin,
  startPool,
  startTurns,
  threadsOf,
  until,
  waitersOn,
} from "../support/waits.ts";

const it = itWhere(isLinux && hasFlockCommand, "needs procfs and flock(1)");

const CANCELLED_WITHIN = 10; // ms
const WAITS = 10_000;
const ERRAND_EACH = 4; // waits
const RACES = 1000;
const AT_ONCE = 100;
const ROUNDS = 6;
const TIMEOUTS = 300;
const TIMEOUT = 2; // ms
const MOMENT = 0.1; // ms
const [SOONER, LATER] = [0.9, 1.1];

/** When a signal may come, counted from the call of lockFile(). */
const MOMENTS: Record<string, () => unknown> = {
  "right after the call": () => {},
  "after a microtask": () => Promise.resolve(),
  "in the next turn of the event loop": () => nextTurn(),
  "after a millisecond": () => sleep(1),
  "within 100 µs, at random": () => spin(Math.random() * MOMENT),
};

/** What the least errand to another thread and back takes here and now: a machine with too much to do delays both. */
async function errand(): Promise<number> {
  const started = performance.now();
  await stat("/");
  return performance.now() - started;
}

function mappingsOf(): number {
  return readFileSync("/proc/self/maps", "utf8").split("\n").length;
}

/** Every warning of this process from now on, by name. */
function warnings(): string[] {
  const seen: string[] = [];
  const note = ({ name, message }: Error) => seen.push(`${name}: ${message}`);
  process.on("warning", note);
  onTestFinished(() => void process.off("warning", note));
  return seen;
}

it("is cancelled by a signal that comes at any moment, 10,000 times, and leaks nothing", async () => {
  const path = aFile();
  const held = lock(path);
  await startPool();
  const before = { threads: threadsOf(), descriptors: openDescriptors(), locks: locksOf() };
  const mappings = mappingsOf();
  for (const [name, moment] of Object.entries(MOMENTS)) {
    const latencies: number[] = [];
    const errands: number[] = [];
    for (let round = 0; round < WAITS / Object.keys(MOMENTS).length; round++) {
      const controller = new AbortController();
      const waiting = lockFile(path, { signal: controller.signal });
      const pause = moment();
      if (pause !== undefined) await pause;
      const aborted = performance.now();
      controller.abort();
      const error = await waiting.then(
        () => "it was granted",
        (reason) => reason,
      );
      latencies.push(performance.now() - aborted);
      if (error !== controller.signal.reason) throw new Error(`${name}, round ${round}: ${error}`);
      if (round % ERRAND_EACH === 0) errands.push(await errand());
    }
    showTimes(`${name}: p50 ${quantile(latencies, 0.5).toFixed(3)} ms, p99 ${quantile(latencies, 0.99).toFixed(3)} ms`);
    expect(quantile(latencies, 0.99), name).toBeLessThan(CANCELLED_WITHIN + quantile(errands, 0.99));
  }
  await until(() => threadsOf() === before.threads);
  expect({ threads: threadsOf(), descriptors: openDescriptors(), locks: locksOf() }).toEqual(before);
  // A thread that nobody joins is gone, but its stack is not.
  expect(mappingsOf() - mappings).toBeLessThan(WAITS / 10);
  expect(waitersOn(path)).toBe(0);
  held.release();
  expect(flockCommandGets(path)).toBe("granted");
});

it("ends at its timeout, and not much later", async () => {
  const path = aFile();
  const held = lock(path);
  const latencies: number[] = [];
  const errands: number[] = [];
  for (let round = 0; round < TIMEOUTS; round++) {
    const deadline = performance.now() + TIMEOUT;
    await expect(lockFile(path, { timeout: TIMEOUT })).rejects.toMatchObject({ code: "ALREADY_RUNNING" });
    latencies.push(performance.now() - deadline);
    errands.push(await errand());
  }
  showTimes(
    `at its timeout: p50 ${quantile(latencies, 0.5).toFixed(3)} ms, p99 ${quantile(latencies, 0.99).toFixed(3)} ms`,
  );
  expect(quantile(latencies, 0.99)).toBeLessThan(CANCELLED_WITHIN + quantile(errands, 0.99));
  held.release();
});

it("shares one signal among many waits without a warning, and takes its listener back from a signal that never aborts", async () => {
  const path = aFile();
  const held = lock(path);
  const seen = warnings();
  const { signal } = new AbortController();
  await startPool();
  const before = { threads: threadsOf(), descriptors: openDescriptors() };
  for (let round = 0; round < ROUNDS; round++) {
    const ending = new AbortController();
    const waits = Array.from({ length: AT_ONCE }, (_, index) =>
      lockFile(path, { signal: index % 2 === 0 ? ending.signal : signal, timeout: round + 1 + (index % 7) }),
    );
    if (round % 2 === 0) ending.abort();
    const results = await Promise.allSettled(waits);
    expect(results.filter(({ status }) => status === "fulfilled")).toEqual([]);
    expect([ending.signal, signal].map((shared) => getEventListeners(shared, "abort").length)).toEqual([0, 0]);
  }
  const granted = Array.from({ length: AT_ONCE }, () => lockFile(path, { signal }));
  expect(getEventListeners(signal, "abort")).toHaveLength(1);
  held.release();
  for (const wait of granted) void wait.then((lock) => lock.release());
  await Promise.all(granted);

  expect(getEventListeners(signal, "abort")).toEqual([]);
  await nextTurn();
  expect(seen).toEqual([]);
  await until(() => threadsOf() === before.threads);
  expect(openDescriptors()).toBe(before.descriptors - 1);
});

it("is cancelled although another listener keeps the signal to itself", async () => {
  const path = aFile();
  const held = lock(path);
  const controller = new AbortController();
  controller.signal.addEventListener("abort", (event) => event.stopImmediatePropagation());
  const waiting = lockFile(path, { signal: controller.signal });
  controller.abort();
  await expect(waiting).rejects.toBe(controller.signal.reason);
  held.release();
});

it("leaves the lock free when the signal comes while the holder in the same process lets go", async () => {
  const path = aFile();
  const outcomes = { granted: 0, rejected: 0 };
  let held = lock(path);
  for (let round = 0; round < RACES; round++) {
    const controller = new AbortController();
    const waiting = lockFile(path, { signal: controller.signal });
    // Granted in this turn of the event loop, or already known in the next one.
    spin(Math.random() * MOMENT);
    held.release();
    if (round % 2 === 0) spin(Math.random() * MOMENT);
    else for (const end = performance.now() + Math.random() * 2 * MOMENT; performance.now() < end; ) await nextTurn();
    controller.abort();
    const granted = await waiting.catch((reason) => {
      if (reason !== controller.signal.reason) throw reason;
      return null;
    });
    outcomes[granted === null ? "rejected" : "granted"]++;
    if (granted === null) expect(locksOf()).not.toContain(path);
    granted?.release();
    held = lock(path);
  }
  held.release();
  showTimes(`signal and release in one process: ${JSON.stringify(outcomes)}`);
  expect(Math.min(outcomes.granted, outcomes.rejected), "both must have happened").toBeGreaterThan(0);
  expect(flockCommandGets(path)).toBe("granted");
});

it("has the lock or has it not when the signal comes while another process lets go, and never both have it", async () => {
  const path = aFile();
  const log = `${temporaryDirectory()}/intervals`;
  const holder = await startTurns({ path, log });
  holder.send("wait");
  await holder.next("locked");
  const ours: Interval[] = [];
  const aborts: bigint[] = [];
  // Come nearer with every round: to the release, without a turn of the event loop; and to the moment at which the grant is known.
  const delays = { busy: MOMENT, turning: MOMENT };
  for (let round = 0; round < RACES; round++) {
    const controller = new AbortController();
    const waiting = lockFile(path, { signal: controller.signal });
    await nextTurn();
    holder.send("release");
    if (round % 2 === 0) spin(delays.busy);
    else for (const end = performance.now() + delays.turning; performance.now() < end; ) await nextTurn();
    aborts.push(process.hrtime.bigint());
    controller.abort();
    const granted: FileLock | null = await waiting.catch((reason) => {
      if (reason !== controller.signal.reason) throw reason;
      return null;
    });
    const start = process.hrtime.bigint();
    if (granted === null) expect(locksOf()).not.toContain(path);
    else {
      spin(Math.random() * MOMENT);
      ours.push({ start, end: process.hrtime.bigint(), pid: process.pid });
      granted.release();
    }
    // It could be quicker than whoever it wakes up, so it asks again only now.
    holder.send("wait");
    await holder.next("locked");
    if (round % 2 === 0) delays.busy *= (readIntervals(log).at(-1)?.end ?? 0n) < (aborts.at(-1) ?? 0n) ? SOONER : LATER;
    else delays.turning *= granted === null ? LATER : SOONER;
  }
  holder.send("release");
  await until(() => waitersOn(path) === 0 && readIntervals(log).length === RACES + 1);
  const theirs = readIntervals(log);
  const intervals = [...theirs, ...ours].sort((a, b) => (a.start < b.start ? -1 : 1));
  expect(overlaps(intervals)).toEqual([]);
  const near = theirs.filter(({ end }, round) => Math.abs(Number(end - (aborts[round] ?? 0n))) < MOMENT * 1e6);
  showTimes(`signal and release in two processes: ${ours.length} granted, ${near.length} within 100 µs of each other`);
  expect(near.length, "signal and release must have met").toBeGreaterThan(0);
  expect(ours.length, "both must have happened").toBeGreaterThan(0);
  expect(ours.length).toBeLessThan(RACES);
  expect(flockCommandGets(path)).toBe("granted");
});
