// What tests of waits share: what the kernel shows of waiters and threads, and intervals that must not overlap.

import { spawnSync } from "node:child_process";
import { appendFileSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished, vi } from "vitest";
import { type FileLock, type LockOptions, lockFile, tryLockFile } from "../../lib/lock/file-lock.ts";
import { fixturePath, startFixture, TestProcess } from "./processes.ts";
import { temporaryDirectory } from "./temporary.ts";

/** For what comes at once, unless something is wrong. ms */
export const PATIENCE: { timeout: number; interval: number } = { timeout: 15_000, interval: 1 };

export const hasCompiler: boolean = spawnSync("cc", ["--version"], { stdio: "ignore" }).status === 0;
export const hasPrlimit: boolean = spawnSync("prlimit", ["--nofile"], { stdio: "ignore" }).status === 0;

export function aFile(): string {
  return join(temporaryDirectory(), "a.lock");
}

/** The lock on `path`, which must be free; released when the test ends. */
export function lock(path: string): FileLock {
  const lock = tryLockFile(path);
  if (lock === null) throw new Error(`${path} is held`);
  onTestFinished(() => lock.release());
  return lock;
}

/** How many are blocked in flock(2) on the file at `path`, in all processes: lines with an arrow in proc_locks(5). */
export function waitersOn(path: string): number {
  return locksOn(path, "-> FLOCK");
}

/** How many hold it. A waiter that was woken and has not taken it yet is neither. */
export function holdersOf(path: string): number {
  return locksOn(path, ": FLOCK");
}

function locksOn(path: string, kind: string): number {
  // Not the device: on some filesystems it is another one than that of stat(2).
  const { ino } = statSync(path);
  return readFileSync("/proc/locks", "utf8")
    .split("\n")
    .filter((line) => line.includes(kind) && line.includes(`:${ino} `)).length;
}

export async function untilWaiters(path: string, count: number): Promise<void> {
  await until(() => waitersOn(path) === count);
}

/** Asks every millisecond. */
export async function until(fact: () => boolean): Promise<void> {
  await vi.waitUntil(fact, PATIENCE);
}

/** Does not let the event loop turn meanwhile. */
export function spinUntil(fact: () => boolean): void {
  const deadline = performance.now() + PATIENCE.timeout;
  while (!fact()) if (performance.now() > deadline) throw new Error(`not within ${PATIENCE.timeout} ms: ${fact}`);
}

export function spin(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

export function threadsOf(pid: number | "self" = "self"): number {
  return readdirSync(`/proc/${pid}/task`).length;
}

/** Of libuv's pool: its threads are started by the first calls that need them, and stay. */
export async function startPool(): Promise<void> {
  const POOL_SIZE = 4;
  await Promise.all(Array.from({ length: POOL_SIZE }, () => stat("/")));
}

/** Paths of the files on which a process has a flock. */
export function locksOf(pid: number | "self" = "self"): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const isLocked = /^lock:/m.test(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"));
      return isLocked ? [readlinkSync(`/proc/${pid}/fd/${fd}`)] : [];
    } catch {
      return []; // readdir's own, closed by now
    }
  });
}

export interface Interval {
  readonly start: bigint;
  readonly end: bigint;
  readonly pid: number;
}

/** What wait-turns.mjs has written, in the order of the starts. */
export function readIntervals(log: string): Interval[] {
  return readFileSync(log, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => {
      const [start = "", end = "", pid = ""] = line.split(" ");
      return { start: BigInt(start), end: BigInt(end), pid: Number(pid) };
    })
    .sort((a, b) => (a.start < b.start ? -1 : 1));
}

/** Those that start before an earlier one has ended. */
export function overlaps(intervals: readonly Interval[]): Interval[] {
  return intervals.filter(({ start }, index) => index > 0 && start < (intervals[index - 1]?.end ?? 0n));
}

/** One turn of this process with the lock, written down as wait-turns.mjs does. */
export async function takeTurn(path: string, log: string, options: LockOptions = {}): Promise<void> {
  const lock = await lockFile(path, options);
  const start = process.hrtime.bigint();
  // Others must be able to show that they have the lock too.
  await new Promise(setImmediate);
  appendFileSync(log, `${start} ${process.hrtime.bigint()} ${process.pid}\n`);
  lock.release();
}

/** A process that takes turns with the lock; see test/fixtures/wait-turns.mjs. */
export async function startTurns(argument: { path: string; log: string; remove?: boolean }): Promise<TestProcess> {
  const turns = startFixture("wait-turns.mjs", argument);
  await turns.next("ready");
  return turns;
}

/** A fixture that is to end by itself: nothing but its waits may keep it alive, so its standard input is closed. */
export function startAlone(name: string, argument: unknown): TestProcess {
  const alone = new TestProcess(process.execPath, [fixturePath(name), JSON.stringify(argument)]);
  alone.child.stdin?.end();
  return alone;
}
