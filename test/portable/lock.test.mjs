// A lock is one holder's at a time, in this process and among all, and free as soon as that is gone.

import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { readOwner, tryLockFile } from "gateway-lock";
import {
  canLink,
  fixture,
  isAlive,
  isPlainLinux,
  NO_CLEAN_UP,
  refusalOf,
  scenario,
  until,
  within,
  writeFile,
} from "./scenes.mjs";

scenario("a lock that is held is refused in the same process, and granted once it is released", {}, (scene) => {
  const path = scene.file();
  const lock = tryLockFile(path);
  assert.equal(lock.held, true);
  assert.equal(tryLockFile(path), null);
  lock.release();
  assert.equal(lock.held, false);
  const again = tryLockFile(path);
  assert.equal(again.held, true);
  again.release();
});

scenario("a lock that another process holds is refused, and granted once that has released it", {}, async (scene) => {
  const path = scene.file();
  const actor = await scene.actor();
  assert.equal(await actor.ask("tryLock", { path }), true);
  assert.equal(tryLockFile(path), null);
  await actor.ask("release");
  const lock = tryLockFile(path);
  assert.notEqual(lock, null);
  assert.equal(await actor.ask("tryLock", { path }), false);
  lock.release();
  assert.equal(await actor.ask("tryLock", { path }), true);
});

scenario("a lock is free once its holder was killed", {}, async (scene) => {
  const path = scene.file();
  const actor = await scene.actor();
  await actor.ask("tryLock", { path });
  await actor.kill();
  const lock = tryLockFile(path);
  assert.notEqual(lock, null);
  lock.release();
});

scenario("a lock is free once its holder has ended without releasing it", {}, async (scene) => {
  const path = scene.file();
  const actor = await scene.actor();
  await actor.ask("tryLock", { path });
  actor.ask("exit", { code: 3 }).catch(() => {});
  assert.equal((await within(actor.ended, "the exit")).code, 3);
  const lock = tryLockFile(path);
  assert.notEqual(lock, null);
  lock.release();
});

scenario("with `remove` the file goes with the lock, without it the file stays", {}, (scene) => {
  const path = scene.file();
  tryLockFile(path, { remove: true }).release();
  assert.equal(existsSync(path), false);
  tryLockFile(path).release();
  assert.equal(existsSync(path), true);
});

scenario("with `remove` the file goes when its holder just ends", { skip: NO_CLEAN_UP }, async (scene) => {
  const path = scene.file();
  const actor = await scene.actor();
  await actor.ask("tryLock", { path, remove: true });
  assert.equal(existsSync(path), true);
  actor.ask("exit", { code: 0 }).catch(() => {});
  await within(actor.ended, "the exit");
  assert.equal(existsSync(path), false);
});

scenario(
  "what was in the file is there afterwards, and can be read by others while it is locked",
  {},
  async (scene) => {
    const path = scene.file();
    writeFile(path, '{"pid":2147483647,"port":1}');
    const actor = await scene.actor();
    await actor.ask("tryLock", { path });
    const { record, torn, locked, holders } = readOwner(path);
    assert.equal(record?.pid, 2147483647);
    assert.equal(torn, false);
    assert.notEqual(locked, false);
    if (isPlainLinux) assert.deepEqual(holders, [actor.pid]);
    await actor.ask("release");
    assert.notEqual(readOwner(path).locked, true);
  },
);

scenario("a child that outlives the holder keeps neither its lock nor its port", {}, async (scene) => {
  const path = scene.file();
  const stateDir = scene.directory();
  const server = createServer();
  const control = await scene.listen(server, { port: 0, host: "127.0.0.1" });
  const owner = await scene.actor();
  await owner.ask("tryLock", { path });
  const { port } = await owner.ask("acquire", { options: { stateDir, port: 0 } });
  const connected = once(server, "connection");
  await owner.ask("leaveChild", { port: control });
  const [socket] = await within(connected, "the child");
  const [greeting] = await within(once(socket, "data"), "the child's pid");
  const survivor = Number(String(greeting).trim());
  await owner.kill();
  assert.equal(isAlive(survivor), true);
  const lock = tryLockFile(path);
  assert.notEqual(lock, null);
  lock.release();
  const gateway = await scene.acquire({ stateDir, port });
  assert.equal(gateway.port, port);
  assert.equal(isAlive(survivor), true);
  // Its pid may stay in use by a zombie, where nobody reaps: in a container without an init.
  const ended = once(socket, "close");
  socket.end();
  await within(ended, "the end of the child");
});

scenario("a worker thread's lock keeps others off, and is free once the worker is terminated", {}, async (scene) => {
  const path = scene.file();
  const worker = new Worker(fixture("worker.mjs"), { workerData: path });
  scene.defer(() => worker.terminate());
  const [answer] = await within(once(worker, "message"), "the worker");
  assert.equal(answer, "granted");
  assert.equal(tryLockFile(path), null);
  await worker.terminate();
  // Deno resolves before the thread has ended.
  let lock = null;
  await until(() => {
    lock = tryLockFile(path);
    return lock !== null;
  });
  lock.release();
});

scenario("a directory at the path is refused, and nothing is changed", {}, async (scene) => {
  const path = scene.file();
  mkdirSync(path);
  const error = await refusalOf(() => tryLockFile(path));
  assert.equal(error.code, "LOCK_FAILED");
  assert.equal(error.lockPath, path);
  assert.equal(error.exitCode, 1);
  assert.equal(error.retryable, false);
});

scenario(
  "a symbolic link at the path is refused, and what it points to is not locked",
  { skip: canLink ? false : "this system makes no symbolic links" },
  async (scene) => {
    const target = scene.file();
    writeFile(target, "");
    const link = join(scene.directory(), "link.lock");
    symlinkSync(target, link);
    const error = await refusalOf(() => tryLockFile(link));
    assert.equal(error.code, "LOCK_FAILED");
    const lock = tryLockFile(target);
    assert.notEqual(lock, null);
    lock.release();
  },
);

scenario("a directory that is missing is LOCK_FAILED with the system's own error as its cause", {}, async (scene) => {
  const error = await refusalOf(() => tryLockFile(join(scene.directory(), "missing", "the.lock")));
  assert.equal(error.code, "LOCK_FAILED");
  assert.equal(error.cause.code, "ENOENT");
});

scenario("a misspelt option is refused by name, and no file is made", {}, (scene) => {
  const path = scene.file();
  assert.throws(() => tryLockFile(path, { removed: true }), { code: "ERR_INVALID_ARG_VALUE", message: /'remove'/ });
  assert.throws(() => tryLockFile(path, { remove: 1 }), { code: "ERR_INVALID_ARG_TYPE" });
  assert.throws(() => tryLockFile(""), { code: "ERR_INVALID_ARG_VALUE" });
  assert.equal(existsSync(path), false);
});
