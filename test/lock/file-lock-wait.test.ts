// Proves that a wait for a file lock is the kernel's, that it ends with the lock of the file that is there, at its timeout or with its
// signal, and that wrong arguments are refused.

import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, vi } from "vitest";
import { lockFile, tryLockFile } from "../../lib/lock/file-lock.ts";
import { callAt } from "../../lib/lock/wait.ts";
import { hasFlockCommand, isLinux, itWhere } from "../support/capabilities.ts";
import { flockCommandGets } from "../support/locks.ts";
import { startFixture } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";
import {
  aFile,
  holdersOf,
  lock,
  overlaps,
  readIntervals,
  spinUntil,
  startPool,
  startTurns,
  takeTurn,
  threadsOf,
  until,
  untilWaiters,
  waitersOn,
} from "../support/waits.ts";

const it = itWhere(isLinux, "needs procfs");
const itWithFlock = itWhere(isLinux && hasFlockCommand, "needs procfs and flock(1)");
const SHORT = 60; // ms
const LONGEST_TIMER = 2 ** 31 - 1; // ms; setTimeout() fires at once when it is given more
const NOTICED_WITHIN = 1000; // ms

it("waits in the kernel, on a thread of its own that is gone afterwards", async () => {
  const path = aFile();
  await startPool();
  const [threads, descriptors] = [threadsOf(), openDescriptors()];
  const held = lock(path);

  const waiting = lockFile(path);
  await untilWaiters(path, 1);
  expect(threadsOf()).toBe(threads + 1);
  const controller = new AbortController();
  const cancelled = lockFile(path, { signal: controller.signal });
  await untilWaiters(path, 2);
  expect(threadsOf()).toBe(threads + 2);
  controller.abort();
  await expect(cancelled).rejects.toBe(controller.signal.reason);
  await untilWaiters(path, 1);
  await until(() => threadsOf() === threads + 1);

  held.release();
  (await waiting).release();
  await until(() => threadsOf() === threads);
  expect(openDescriptors()).toBe(descriptors);
  expect(waitersOn(path)).toBe(0);
});

itWithFlock("is granted the lock by the kernel, even while JavaScript is busy with other things", async () => {
  const path = aFile();
  const held = lock(path);
  let settled = false;
  const waiting = lockFile(path).finally(() => {
    settled = true;
  });
  await untilWaiters(path, 1);
  held.release();
  spinUntil(() => holdersOf(path) === 1);
  expect(flockCommandGets(path)).toBe("refused");
  expect(settled, "the event loop has not turned yet").toBe(false);
  (await waiting).release();
  expect(flockCommandGets(path)).toBe("granted");
});

it("rejects a wait at its timeout, with the pid that the kernel names", async () => {
  const path = aFile();
  const holder = startFixture("lock-holder.mjs", { path });
  await holder.next("locked");
  const before = openDescriptors();
  const started = performance.now();
  await expect(lockFile(path, { timeout: SHORT })).rejects.toMatchObject({
    name: "GatewayLockError",
    code: "ALREADY_RUNNING",
    message: `gateway already running (pid ${holder.pid}); lock timeout after ${SHORT}ms`,
    retryable: true,
    exitCode: 75,
    lockPath: path,
  });
  // A timer may fire a millisecond early.
  expect(performance.now() - started).toBeGreaterThan(SHORT - 2);
  await expect(lockFile(path, { timeout: 0 })).rejects.toThrow(
    `gateway already running (pid ${holder.pid}); lock timeout after 0ms`,
  );
  expect(openDescriptors()).toBe(before);
});

it("waits until the holder has released, or has been killed", async () => {
  const path = aFile();
  const ours = lock(path);
  const waiting = lockFile(path);
  ours.release();
  const second = await waiting;
  expect([second.held, second.path]).toEqual([true, path]);
  second.release();

  const holder = startFixture("lock-holder.mjs", { path });
  await holder.next("locked");
  const afterKill = lockFile(path, { remove: true });
  await holder.kill();
  (await afterKill).release();
  expect(existsSync(path)).toEqual(false);
});

it("ends a wait with the reason of its signal, before it starts or while it lasts, and takes nothing", async () => {
  const path = aFile();
  const reason = new Error("enough");
  await expect(lockFile(path, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  expect(existsSync(path)).toEqual(false);

  const held = lock(path);
  const before = openDescriptors();
  const controller = new AbortController();
  const waiting = lockFile(path, { signal: controller.signal });
  controller.abort(reason);
  await expect(waiting).rejects.toBe(reason);
  expect(openDescriptors()).toBe(before);
  held.release();
  lock(path).release();
});

it("waits longer than a timer of Node can, and gets the lock", async () => {
  const path = aFile();
  const held = lock(path);
  const waits = [LONGEST_TIMER + 6, 2 ** 40, Infinity].map((timeout) => lockFile(path, { timeout }));
  // A timeout that is over at once would be seen here, or in the waits.
  await untilWaiters(path, waits.length);
  await new Promise((resolve) => setTimeout(resolve, SHORT));
  expect(waitersOn(path)).toBe(waits.length);
  held.release();
  for (const wait of waits) void wait.then((lock) => lock.release());
  await Promise.all(waits);
});

it("ends such a wait neither before its time nor after", () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  const armed = vi.spyOn(globalThis, "setTimeout");
  onTestFinished(() => {
    armed.mockRestore();
    vi.useRealTimers();
  });
  for (const wait of [LONGEST_TIMER, LONGEST_TIMER + 1, LONGEST_TIMER + 6, 2.5 * LONGEST_TIMER]) {
    const called = vi.fn();
    callAt(performance.now() + wait, called);
    expect(armed.mock.lastCall?.[1], `${wait} ms`).toBeLessThanOrEqual(LONGEST_TIMER);
    vi.advanceTimersByTime(Math.floor(wait) - 1);
    expect(called, `${wait} ms`).not.toHaveBeenCalled();
    vi.advanceTimersByTime(2);
    expect(called, `${wait} ms`).toHaveBeenCalledTimes(1);

    const stopped = vi.fn();
    const stop = callAt(performance.now() + wait, stopped);
    vi.advanceTimersByTime(wait - 1);
    stop();
    vi.advanceTimersByTime(2 * LONGEST_TIMER);
    expect([stopped.mock.calls.length, vi.getTimerCount()], `${wait} ms, stopped`).toEqual([0, 0]);
  }
  callAt(Infinity, vi.fn());
  expect(vi.getTimerCount(), "never").toBe(0);
});

it("ends at a deadline that has passed meanwhile, and warns nobody", async () => {
  const seen: string[] = [];
  const note = ({ name }: Error) => seen.push(name);
  process.on("warning", note);
  onTestFinished(() => void process.off("warning", note));
  await new Promise<void>((resolve) => callAt(performance.now() - SHORT, resolve));
  await new Promise(setImmediate);
  expect(seen).toEqual([]);
});

for (const [what, change] of [
  ["deleted", (path: string) => rmSync(path)],
  ["renamed", (path: string) => renameSync(path, `${path}.old`)],
  ["replaced", (path: string) => replace(path)],
] as const) {
  it(`gets the lock within a second after the file under it was ${what}, whoever keeps the old one`, async () => {
    const [path, log] = [aFile(), join(temporaryDirectory(), "intervals")];
    const holder = startFixture("lock-holder.mjs", { path });
    await holder.next("locked");
    const waiter = await startTurns({ path, log });
    waiter.send("turn");
    const turns = [takeTurn(path, log), takeTurn(path, log)];
    await untilWaiters(path, 3);

    const changed = process.hrtime.bigint();
    change(path);
    await Promise.all([...turns, waiter.next("had")]);
    const intervals = readIntervals(log);
    expect(Number((intervals.at(-1)?.start ?? 0n) - changed) / 1e6).toBeLessThan(NOTICED_WITHIN);
    expect(overlaps(intervals)).toEqual([]);
    expect(intervals).toHaveLength(3);
    holder.send("assert");
    await holder.next("lost");
  });
}

/** As a careful program writes a file: under another name, and then in one step. */
function replace(path: string): void {
  writeFileSync(`${path}.new`, "");
  renameSync(`${path}.new`, path);
}

it("refuses wrong arguments with the codes of Node, before anything is made", async () => {
  const path = aFile();
  const wrong: [code: string, ...given: unknown[]][] = [
    ["ERR_INVALID_ARG_TYPE", 42],
    ["ERR_INVALID_ARG_TYPE", undefined],
    ["ERR_INVALID_ARG_VALUE", ""],
    ["ERR_INVALID_ARG_VALUE", "a\0b"],
    ["ERR_INVALID_ARG_TYPE", path, { remove: "yes" }],
    ["ERR_INVALID_ARG_TYPE", path, null],
    ["ERR_INVALID_ARG_VALUE", path, { removed: true }],
  ];
  for (const [code, ...given] of wrong) {
    expect(() => Reflect.apply(tryLockFile, null, given), String(given)).toThrow(expect.objectContaining({ code }));
    await expect(Reflect.apply(lockFile, null, given), String(given)).rejects.toMatchObject({ code });
  }
  expect(() => Reflect.apply(tryLockFile, null, [path, { removed: true }])).toThrow(/removed.*'remove'/);
  const wrongWaits: [code: string, options: object][] = [
    ["ERR_INVALID_ARG_TYPE", { timeout: "5" }],
    ["ERR_OUT_OF_RANGE", { timeout: -1 }],
    ["ERR_OUT_OF_RANGE", { timeout: Number.NaN }],
    ["ERR_INVALID_ARG_TYPE", { signal: {} }],
  ];
  for (const [code, options] of wrongWaits) await expect(lockFile(path, options)).rejects.toMatchObject({ code });

  expect(existsSync(path)).toEqual(false);
});
