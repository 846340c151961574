// Proves that a wait for a file lock ends with the lock, at its timeout or with its signal, and that wrong arguments are refused.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type FileLock, lockFile, tryLockFile } from "../../lib/lock/file-lock.ts";
import { isLinux, itWhere } from "../support/capabilities.ts";
import { startFixture } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux, "needs procfs");
const SHORT = 60; // ms

/** The lock on `path`, which must be free. */
function lock(path: string): FileLock {
  const lock = tryLockFile(path);
  if (lock === null) throw new Error(`${path} is held`);
  return lock;
}

function aFile(): string {
  return join(temporaryDirectory(), "a.lock");
}

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
