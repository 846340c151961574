// Who waits for a lock gets it when it is free, alone, or never if the wait was ended before.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { lockFile, tryLockFile } from "gateway-lock";
import { refusalOf, scenario, within } from "./scenes.mjs";

scenario("a wait ends with the lock when the holder releases it", {}, async (scene) => {
  const path = scene.file();
  const actor = await scene.actor();
  const lock = tryLockFile(path);
  const wait = actor.ask("lock", { path });
  await actor.event("asked");
  lock.release();
  await wait;
  assert.equal(tryLockFile(path), null);
});

scenario("a wait ends with the lock when the holder is killed", {}, async (scene) => {
  const path = scene.file();
  const holder = await scene.actor();
  await holder.ask("tryLock", { path });
  const wait = lockFile(path);
  await holder.kill();
  const lock = await within(wait, "the lock");
  assert.equal(lock.held, true);
  lock.release();
});

scenario("waits in one process get the lock one after the other", {}, async (scene) => {
  const path = scene.file();
  const first = tryLockFile(path);
  let inside = 0;
  const visit = async () => {
    const lock = await lockFile(path);
    assert.equal(++inside, 1);
    await new Promise(setImmediate);
    inside--;
    lock.release();
  };
  const visits = Array.from({ length: 5 }, visit);
  first.release();
  await within(Promise.all(visits), "five visits");
});

scenario("a wait that has reached its timeout is ALREADY_RUNNING, and never gets the lock", {}, async (scene) => {
  const path = scene.file();
  const holder = await scene.actor();
  await holder.ask("tryLock", { path });
  const started = performance.now();
  const error = await refusalOf(() => lockFile(path, { timeout: 100 }));
  assert.ok(performance.now() - started >= 99);
  assert.equal(error.code, "ALREADY_RUNNING");
  assert.equal(error.exitCode, 75);
  assert.equal(error.retryable, true);
  assert.equal(error.lockPath, path);
  assert.match(error.message, /lock timeout after 100ms$/);
  await holder.ask("release");
  assert.equal(await holder.ask("tryLock", { path }), true);
});

scenario("a timeout of 0 tells at once", {}, async (scene) => {
  const path = scene.file();
  const lock = tryLockFile(path);
  assert.equal((await refusalOf(() => lockFile(path, { timeout: 0 }))).code, "ALREADY_RUNNING");
  lock.release();
  (await lockFile(path, { timeout: 0 })).release();
});

scenario("an aborted wait rejects with the signal's own reason, and never gets the lock", {}, async (scene) => {
  const path = scene.file();
  const holder = await scene.actor();
  await holder.ask("tryLock", { path });
  const controller = new AbortController();
  const reason = new Error("changed my mind");
  const wait = lockFile(path, { signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(within(wait, "the end of the wait"), (error) => error === reason);
  await holder.ask("release");
  assert.equal(await holder.ask("tryLock", { path }), true);
  await holder.ask("release");
  const lock = tryLockFile(path);
  assert.notEqual(lock, null);
  lock.release();
});

scenario("a wait that is aborted just when the lock becomes free does not have it either", {}, async (scene) => {
  const path = scene.file();
  for (let round = 1; round <= 20; round++) {
    const holder = tryLockFile(path);
    const controller = new AbortController();
    const wait = lockFile(path, { signal: controller.signal });
    holder.release();
    controller.abort("too late");
    await assert.rejects(within(wait, "the end of the wait"), (error) => error === "too late");
  }
  const lock = tryLockFile(path);
  assert.notEqual(lock, null);
  lock.release();
});

scenario("a signal that is aborted already takes no lock and makes no file", {}, async (scene) => {
  const path = scene.file();
  await assert.rejects(lockFile(path, { signal: AbortSignal.abort("gone") }), (error) => error === "gone");
  assert.equal(existsSync(path), false);
});

scenario("processes that take turns are never inside at the same time, and all have their turns", {}, async (scene) => {
  const path = scene.file();
  const turns = 25;
  const actors = await scene.actors(4);
  const told = await Promise.all(actors.map((actor) => actor.ask("takeTurns", { path, marker: `${path}.in`, turns })));
  const intervals = told.flat().sort(([a, b], [c, d]) => a - c || b - d);
  assert.equal(intervals.length, actors.length * turns);
  for (const [index, [enter]] of intervals.entries()) {
    const before = intervals[index - 1]?.[1] ?? -Infinity;
    assert.ok(enter >= before, `one entered at ${enter} ms, when another had not left until ${before} ms`);
  }
});
