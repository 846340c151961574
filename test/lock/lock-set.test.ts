// Proves that a lock which was waited for becomes part of a set only while it still is the one at its path.

import { renameSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type FileLock, tryLock, tryLockFile } from "../../lib/lock/file-lock.ts";
import { LockSet } from "../../lib/lock/lock-set.ts";
import { resolveResources } from "../../lib/lock/resources.ts";
import { native } from "../../lib/native.ts";
import { resolveGatewayOptions } from "../../lib/options.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";

/** The resources of a gateway, and the lock on its config's file, as after a wait. */
function waitedFor() {
  const configPath = join(temporaryDirectory(), "gateway.json");
  const resources = resolveResources(resolveGatewayOptions({ stateDir: temporaryDirectory(), configPath }));
  const path = resources[1]?.lockPath ?? "";
  const first = LockSet.tryLock(resources, false, { granted: null, inherited: null }); // makes the directories
  if (first instanceof LockSet) first.release();
  return { resources, path };
}

function granted(path: string): FileLock {
  const lock = tryLock({ path, kind: "gateway-file" });
  if (lock === null) throw new Error(`${path} is held`);
  return lock;
}

for (const [what, change] of [
  ["is as it was", () => {}],
  ["was deleted", (path: string) => unlinkSync(path)],
  ["was renamed", (path: string) => renameSync(path, `${path}.old`)],
] as const) {
  it(`takes the lock of the file that is at the path when the one that was waited for ${what}`, () => {
    const { resources, path } = waitedFor();
    const lock = granted(path);
    const before = openDescriptors();
    change(path);
    const set = LockSet.tryLock(resources, false, { granted: lock, inherited: null });
    if (!(set instanceof LockSet)) throw new Error("refused");
    set.assertCurrent();
    expect(tryLockFile(path)).toBeNull();
    set.release();
    expect(lock.held).toBe(false);
    expect(openDescriptors()).toBe(before - 1);
  });
}

it("lets the lock go that was waited for when somebody else has another one, and when it is none of the set", () => {
  const { resources, path } = waitedFor();
  const stranger = tryLock({ path: resources[0]?.lockPath ?? "", kind: "file" });
  const lock = granted(path);
  const refusal = LockSet.tryLock(resources, false, { granted: lock, inherited: null });
  expect(refusal).toMatchObject({ held: { path: resources[0]?.lockPath } });
  expect(lock.held).toBe(false);
  stranger?.release();

  const other = granted(join(temporaryDirectory(), "other.lock"));
  const set = LockSet.tryLock(resources, false, { granted: other, inherited: null });
  expect([set instanceof LockSet, other.held]).toEqual([true, false]);
  if (set instanceof LockSet) set.release();
});

it("is looked at by one path for each descriptor, and by nothing beyond the paths", () => {
  const path = join(temporaryDirectory(), "lock");
  const fd = native().tryLockFile(path, false, false);
  if (typeof fd !== "number") throw new Error("refused");
  const current = (count: number, paths: string) => native().areCurrent(new Int32Array(count).fill(fd), paths);
  expect(current(2, `${path}\0${path}\0`)).toBe(true);
  for (const paths of ["", path, `${path}\0`]) expect(current(2, paths)).toBe(false);
  native().releaseLock(fd, true);
});
