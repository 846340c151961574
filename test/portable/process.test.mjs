// A handle of a process tells of its end, once, and means nobody else then. It is no part of the package's own exports.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname } from "node:path";
import { Worker } from "node:worker_threads";
import { isWindows, NO_CLEAN_UP, scenario, within } from "./scenes.mjs";

const index = createRequire(import.meta.url).resolve("gateway-lock");
const addon = createRequire(index)("node-gyp-build")(dirname(dirname(index)));
const native = () => addon;
const isFailure = (result) => typeof result === "object" && "syscall" in result;

const { EBADF, EBUSY, ENOTSUP, ESRCH } = constants.errno;
const { SIGKILL, SIGTERM } = constants.signals;
const NOBODY = 2 ** 22 + 2; // above the greatest pid of Linux and macOS, and on Windows a number that is never given out
const own = native().openProcess(process.pid);
const skip = isFailure(own) ? `the system has no handles of processes (${own.syscall})` : false;
if (!skip) native().closeProcess(own);

function open(scene, pid) {
  const handle = native().openProcess(pid);
  assert.equal(typeof handle, "number", JSON.stringify(handle));
  scene.defer(() => native().closeProcess(handle));
  return handle;
}

function endOf(handle) {
  return new Promise((resolve) => assert.equal(native().awaitExit(handle, resolve), undefined));
}

scenario("the end of a process is told, also when it has ended before", { skip }, async (scene) => {
  const actor = await scene.actor();
  const handle = open(scene, actor.pid);
  const end = endOf(handle);
  await actor.kill();
  await within(end, "the end");
  await within(endOf(handle), "the end, once more");
  const failure = native().signalProcess(handle, SIGKILL);
  assert.ok([ESRCH, ENOTSUP].includes(failure.errno), JSON.stringify(failure));
});

scenario("a process is killed by its handle", { skip }, async (scene) => {
  const actor = await scene.actor();
  const handle = open(scene, actor.pid);
  if (isWindows) assert.equal(native().signalProcess(handle, SIGTERM).errno, ENOTSUP);
  const failure = native().signalProcess(handle, SIGKILL);
  if (failure !== undefined) {
    assert.equal(failure.errno, ENOTSUP, JSON.stringify(failure));
    return;
  }
  await within(endOf(handle), "the end");
  await within(actor.ended, "the actor's end");
});

scenario("there is no handle of nobody, and none after it was closed", { skip }, async (scene) => {
  assert.equal(native().openProcess(NOBODY).errno, ESRCH);
  const handle = open(scene, process.pid);
  assert.equal(native().awaitExit(handle, assert.fail), undefined);
  assert.equal(native().awaitExit(handle, assert.fail).errno, EBUSY);
  native().closeProcess(handle);
  native().closeProcess(handle);
  assert.equal(native().awaitExit(handle, assert.fail).errno, EBADF);
  assert.equal(native().signalProcess(handle, SIGKILL).errno, EBADF);
});

scenario("many ends are told, each to whoever waits for it, and not to who has closed", { skip }, async (scene) => {
  const actors = await scene.actors(6);
  const handles = actors.map(({ pid }) => open(scene, pid));
  const told = [];
  const ends = handles.map((handle, index) => endOf(handle).then(() => told.push(index)));
  native().closeProcess(handles[0]);
  native().closeProcess(handles[3]);
  await Promise.all(actors.map((actor) => actor.kill()));
  await within(Promise.all(ends.filter((_, index) => index % 3 !== 0)), "four ends");
  assert.deepEqual(told.sort(), [1, 2, 4, 5]);
});

scenario("a worker that is terminated takes its waits along", { skip: skip || NO_CLEAN_UP }, async (scene) => {
  const actor = await scene.actor();
  const worker = new Worker(
    `const { createRequire } = require("node:module");
    const { dirname } = require("node:path");
    const { parentPort, workerData } = require("node:worker_threads");
    const { index, pid } = workerData;
    const addon = createRequire(index)("node-gyp-build")(dirname(dirname(index)));
    for (let count = 0; count < 5; count++) addon.awaitExit(addon.openProcess(pid), () => process.abort());
    parentPort.postMessage("waiting");
    setInterval(() => {}, 1000);`,
    { eval: true, workerData: { index, pid: actor.pid } },
  );
  await within(once(worker, "message"), "the worker");
  await worker.terminate();
  const end = endOf(open(scene, actor.pid));
  await actor.kill();
  await within(end, "the end");
});

scenario("what only some systems have is said to be missing elsewhere", {}, () => {
  const results = [
    native().notify("@gateway-lock-test-nobody", "READY=1"),
    native().countSentSignals([0]),
    native().describeSocket(1000),
    native().adoptSocket(1000),
    native().adoptLock(1000, "nowhere", false),
  ];
  for (const result of results) assert.ok(isFailure(result), JSON.stringify(result));
  if (isWindows) assert.deepEqual([...new Set(results.map(({ errno }) => errno))], [ENOTSUP]);
  assert.equal(native().takeSentSignals(0), 0);
});
