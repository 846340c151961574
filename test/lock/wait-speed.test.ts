// Proves that a released lock reaches a waiter nearly as fast as the kernel alone would bring it, and that waits delay nothing else.

import { execFileSync } from "node:child_process";
import { lookup } from "node:dns/promises";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { lockFile } from "../../lib/lock/file-lock.ts";
import { isLinux, itWhere } from "../support/capabilities.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { aFile, hasCompiler, lock, median, quantile, showTimes, untilWaiters } from "../support/waits.ts";

const it = itWhere(isLinux, "needs procfs");
const itWithCompiler = itWhere(isLinux && hasCompiler, "needs a C compiler");

const HAND_OVERS = 1000;
const BATCH = 50;
const HELD_FOR = 1; // ms
const TIMES_THE_FLOOR = 3;

const WAITS = 64;
const CALLS = 20;
const BATCHES = 10;
/** Whoever has to wait for a thread of the pool waits for ever. */
const TIMES_ALONE = 2;

/** Nanoseconds from the release in this process to the lock in that one, for each hand-over. */
async function handOver(waiter: TestProcess, path: string, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < count; round++) {
    const held = lock(path);
    waiter.send("go");
    await untilWaiters(path, 1);
    // Both sleep before it comes to that, as they do in life.
    await sleep(HELD_FOR);
    const released = process.hrtime.bigint();
    held.release();
    times.push(Number(BigInt((await waiter.next("had")).at) - released));
  }
  return times;
}

itWithCompiler("is handed over to another process within 3 times what a program in C needs", async () => {
  const [path, floor] = [aFile(), join(temporaryDirectory(), "lock-floor")];
  execFileSync("cc", ["-O2", "-o", floor, fixturePath("lock-floor.c")]);
  const waiters = {
    floor: new TestProcess(floor, [path]),
    lockFile: startFixture("wait-speed.mjs", { path }),
  };
  const times: Record<keyof typeof waiters, number[]> = { floor: [], lockFile: [] };
  for (const waiter of Object.values(waiters)) {
    await waiter.next("ready");
    await handOver(waiter, path, BATCH);
  }
  while (times.lockFile.length < HAND_OVERS) {
    times.floor.push(...(await handOver(waiters.floor, path, BATCH)));
    times.lockFile.push(...(await handOver(waiters.lockFile, path, BATCH)));
  }
  const ratio = median(times.lockFile) / median(times.floor);
  for (const [name, ns] of Object.entries(times)) {
    const [p50, p90, p99] = [0.5, 0.9, 0.99].map((part) => (quantile(ns, part) / 1000).toFixed(1));
    showTimes(`release → ${name}: p50 ${p50} µs, p90 ${p90} µs, p99 ${p99} µs, of ${ns.length}`);
  }
  showTimes(`lockFile / floor: ${ratio.toFixed(2)}`);
  expect(ratio).toBeLessThan(TIMES_THE_FLOOR);
});

it("delays neither files nor names: libuv's threads are not what it waits on", async () => {
  const path = aFile();
  const held = lock(path);
  const calls = { stat: () => stat(path), lookup: () => lookup("localhost") };
  for (const call of Object.values(calls)) await call();
  const times = {
    stat: { alone: [] as number[], beside: [] as number[] },
    lookup: { alone: [] as number[], beside: [] as number[] },
  };
  for (let batch = 0; batch < 2 * BATCHES; batch++) {
    const beside = batch % 2 === 1;
    const controller = new AbortController();
    const waits = beside ? Array.from({ length: WAITS }, () => lockFile(path, { signal: controller.signal })) : [];
    await untilWaiters(path, waits.length);
    for (const [name, call] of Object.entries(calls) as [keyof typeof calls, () => Promise<unknown>][]) {
      for (let count = 0; count < CALLS; count++) {
        const started = performance.now();
        await call();
        times[name][beside ? "beside" : "alone"].push(performance.now() - started);
      }
    }
    controller.abort();
    await Promise.allSettled(waits);
  }
  held.release();
  for (const [name, { alone, beside }] of Object.entries(times)) {
    showTimes(`${name}: ${median(alone).toFixed(3)} ms alone, ${median(beside).toFixed(3)} ms beside ${WAITS} waits`);
    expect(median(beside) / median(alone), name).toBeLessThan(TIMES_ALONE);
  }
});
