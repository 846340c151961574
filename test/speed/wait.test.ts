// Proves that a released lock reaches a waiter nearly as fast as the kernel alone would bring it, and that waits delay nothing else.

import { execFileSync } from "node:child_process";
import { lookup } from "node:dns/promises";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { lockFile } from "../../lib/lock/file-lock.ts";
import { isLinux, itWhere } from "../support/capabilities.ts";
import { median, quantile, showTimes } from "../support/measures.ts";
import { fixturePath, startFixture } from "../support/processes.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { aFile, hasCompiler, lock, untilWaiters } from "../support/waits.ts";

const it = itWhere(isLinux, "needs procfs");
const itWithCompiler = itWhere(isLinux && hasCompiler, "needs a C compiler");

const HAND_OVERS = 1000;
const BATCH = 100;
/** A daemon's code has run for a while, too. */
const WARM_UP = 500;
const TIMES_THE_FLOOR = 3;

const WAITS = 64;
/** At once: a single call measures on which processor the scheduler wakes the next thread, and no two runs agree on that. */
const CALLS = 64;
const ROUNDS = 30;
const BATCHES = 4;
const TIMES_ALONE = 2;

itWithCompiler("is handed over to another process within 3 times what a program in C needs", async () => {
  const [path, floor] = [aFile(), join(temporaryDirectory(), "lock-floor")];
  execFileSync("cc", ["-O2", "-o", floor, fixturePath("lock-floor.c")]);
  const argument = { path, floor, count: HAND_OVERS, batch: BATCH, warmUp: WARM_UP };
  const times = await startFixture("wait-speed.mjs", argument).next("done");
  for (const name of ["floor", "lockFile"]) {
    const [p50, p90, p99] = [0.5, 0.9, 0.99].map((part) => (quantile(times[name], part) / 1000).toFixed(1));
    showTimes(`release → ${name}: p50 ${p50} µs, p90 ${p90} µs, p99 ${p99} µs, of ${times[name].length}`);
  }
  const ratio = median(times.lockFile) / median(times.floor);
  showTimes(`lockFile / floor: ${ratio.toFixed(2)}`);
  expect(ratio).toBeLessThan(TIMES_THE_FLOOR);
});

it("delays neither files nor names: libuv's threads are not what it waits on", async () => {
  const path = aFile();
  const held = lock(path);
  const calls: Record<string, () => Promise<unknown>> = { stat: () => stat(path), lookup: () => lookup("localhost") };
  for (const call of Object.values(calls)) await call();
  /** The median of a batch, for each call. */
  const batch = async () => {
    const medians: number[] = [];
    for (const call of Object.values(calls)) {
      const times: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const started = performance.now();
        await Promise.all(Array.from({ length: CALLS }, call));
        times.push(performance.now() - started);
      }
      medians.push(median(times));
    }
    return medians;
  };
  const ratios: number[][] = Object.keys(calls).map(() => []);
  for (let pair = 0; pair < BATCHES; pair++) {
    const alone = await batch();
    const controller = new AbortController();
    const waits = Array.from({ length: WAITS }, () => lockFile(path, { signal: controller.signal }));
    await untilWaiters(path, WAITS);
    const beside = await batch();
    controller.abort();
    await Promise.allSettled(waits);
    ratios.forEach((of, call) => {
      of.push((beside[call] ?? Number.NaN) / (alone[call] ?? Number.NaN));
    });
    showTimes(
      `${CALLS} at once, ms of stat and lookup: alone ${alone.join(", ")}, beside ${WAITS} waits ${beside.join(", ")}`,
    );
  }
  held.release();
  // Whoever has to wait for a thread of the pool waits in every batch; a busy machine delays some of them.
  for (const of of ratios) expect(Math.min(...of)).toBeLessThan(TIMES_ALONE);
});
