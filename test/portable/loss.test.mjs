// Locks that are taken away from under an owner are restored where that is safe, and otherwise the owner is told.

import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { acquireGateway, readOwner, tryLockFile } from "gateway-lock";
import { assertDuplicate, freePort, isWindows, refusalOf, scenario, until, within } from "./scenes.mjs";

/** Windows may refuse to touch what is open. */
function happens(change) {
  try {
    change();
    return true;
  } catch (error) {
    if (isWindows && ["EPERM", "EBUSY", "EACCES", "ENOTEMPTY"].includes(error.code)) return false;
    throw error;
  }
}

async function assertRefused(scene, options) {
  const actor = await scene.actor();
  const error = await actor.refusal("acquire", { options });
  assertDuplicate(error);
  assert.equal(error.owner.pid, process.pid);
}

scenario("a wiped lock directory opens no door: its files are restored, or the owner is told", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire(options);
  happens(() => rmSync(join(options.stateDir, "locks"), { recursive: true }));
  const isRestored = () => gateway.lockPaths.every((lockPath) => readOwner(lockPath).record?.pid === process.pid);
  await until(() => isRestored() || gateway.lost.aborted);
  if (!isWindows) assert.equal(gateway.lost.aborted, false);
  if (gateway.lost.aborted) return assert.equal(gateway.lost.reason.code, "LOCK_LOST");
  gateway.assertCurrent();
  await assertRefused(scene, options);
});

scenario("a lock file that is renamed is restored, or can't be renamed, or the owner is told", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire(options);
  const [lockPath] = gateway.lockPaths;
  happens(() => renameSync(lockPath, `${lockPath}.away`));
  await until(() => existsSync(lockPath) || gateway.lost.aborted);
  if (!isWindows) assert.equal(gateway.lost.aborted, false);
  if (gateway.lost.aborted) return assert.equal(gateway.lost.reason.code, "LOCK_LOST");
  await assertRefused(scene, options);
});

scenario("a state directory that is renamed is lost, or can't be renamed", {}, async (scene) => {
  const options = { stateDir: join(scene.directory(), "state"), port: await freePort() };
  const gateway = await scene.acquire(options);
  const away = `${options.stateDir}-away`;
  if (happens(() => renameSync(options.stateDir, away))) {
    if (!gateway.lost.aborted) await within(once(gateway.lost, "abort"), "the loss");
    assert.equal(gateway.lost.reason.code, "LOCK_LOST");
    assert.throws(() => gateway.assertCurrent(), { code: "LOCK_LOST" });
  } else {
    gateway.assertCurrent();
    assert.equal((await refusalOf(() => acquireGateway(options))).code, "ALREADY_LISTENING");
  }
});

scenario("a lock file of its own that is deleted is noticed by assertCurrent, or can't be deleted", {}, (scene) => {
  const path = scene.file();
  const lock = tryLockFile(path);
  lock.assertCurrent();
  if (happens(() => rmSync(path))) assert.throws(() => lock.assertCurrent(), { code: "LOCK_LOST" });
  else lock.assertCurrent();
  lock.release();
  assert.throws(() => lock.assertCurrent(), { code: "LOCK_LOST" });
});
