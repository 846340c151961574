// Proves that a handle means one process for ever, tells of its end once, and leaves nothing behind.

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { closeSync, readdirSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { Worker } from "node:worker_threads";
import { beforeAll, expect, onTestFinished } from "vitest";
import { isFailure, native } from "../../lib/native.ts";
import { startCaller } from "../support/calls.ts";
import { hasPython, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { asOtherUser, canRunAsOtherUser } from "../support/locks.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { openDescriptors } from "../support/temporary.ts";
import { hasPrlimit, startAlone, startPool, threadsOf, until } from "../support/waits.ts";

const { SIGTERM, SIGKILL } = constants.signals;
const { EAGAIN, EBADF, EBUSY, EMFILE, ENOSYS, EPERM, ESRCH } = constants.errno;
const NOBODY = 2 ** 22 + 1; // above the greatest pid (PID_MAX_LIMIT)

const it = itWhere(isLinux && !isFailure(native().openProcess(process.pid)), "needs pidfds (Linux 5.3)");
const itWithSandbox = itWhere(hasPython && isLinux, "needs python3");
const itWithPidNamespace = itWhere(
  spawnSync("unshare", [...ownPidNamespace(), "sh", "-c", "echo 100 > /proc/sys/kernel/ns_last_pid"]).status === 0,
  "needs a pid namespace of its own",
);
const itWithOtherUser = itWhere(isRoot && canRunAsOtherUser, "needs root, and a checkout that others may read");

function ownPidNamespace(): readonly string[] {
  return ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];
}

/** Sleeps until it is killed; reaped by Node. */
function aSleeper(): TestProcess {
  return new TestProcess("sleep", ["60"]);
}

function open(pid: number): number {
  const handle = native().openProcess(pid);
  if (isFailure(handle)) throw new Error(JSON.stringify(handle));
  onTestFinished(() => native().closeProcess(handle));
  return handle;
}

function endOf(handle: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const failure = native().awaitExit(handle, resolve);
    if (failure !== undefined) reject(new Error(JSON.stringify(failure)));
  });
}

/** Dead, and not reaped while this process spins. */
function killNow(pid: number): void {
  process.kill(pid, "SIGKILL");
  while (!/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8")));
}

beforeAll(startPool);

it("signals the process, and tells of its end once", async () => {
  const sleeper = aSleeper();
  const handle = open(sleeper.pid);
  let told = 0;
  const end = endOf(handle).then(() => told++);
  expect(native().signalProcess(handle, SIGTERM)).toBeUndefined();
  await end;
  expect(await sleeper.exited).toEqual({ code: null, signal: "SIGTERM" });
  expect(told).toBe(1);
  expect(native().signalProcess(handle, SIGTERM)).toMatchObject({ errno: ESRCH, syscall: "pidfd_send_signal" });
  await endOf(handle); // it stays ended
});

it("tells of the end of a process that nobody has reaped yet", async () => {
  const parent = new TestProcess("sh", ["-c", `sleep 60 & echo "{\\"event\\":\\"child\\",\\"pid\\":$!}"; exec cat`]);
  const { pid } = await parent.next("child");
  parent.send('{"event":"cat"}');
  await parent.next("cat"); // which never reaps what it has inherited
  const handle = open(pid);
  const end = endOf(handle);
  process.kill(pid, "SIGKILL");
  await end;
  expect(readFileSync(`/proc/${pid}/stat`, "utf8")).toMatch(/\) Z /);
});

it("says of whom it has no handle, and why", async () => {
  expect(native().openProcess(NOBODY)).toMatchObject({ errno: ESRCH, syscall: "pidfd_open" });
  const handle = open(aSleeper().pid);
  void endOf(handle);
  expect(native().awaitExit(handle, () => {})).toMatchObject({ errno: EBUSY });
  native().closeProcess(handle);
  native().closeProcess(handle);
  expect(native().awaitExit(handle, () => {})).toMatchObject({ errno: EBADF });
  expect(native().signalProcess(handle, SIGKILL)).toMatchObject({ errno: EBADF });
});

for (const [call, name] of [
  ["pidfd_open", "openProcess"],
  ["pidfd_send_signal", "signalProcess"],
] as const) {
  itWithSandbox(`says so where a sandbox refuses ${call}`, async () => {
    for (const error of ["ENOSYS", "EPERM"] as const) {
      const caller = await startCaller(["python3", fixturePath("refused-call.py"), error, call]);
      const opened = await caller.call("openProcess", caller.pid);
      const result = name === "openProcess" ? opened : await caller.call(name, opened, 0);
      expect(result).toMatchObject({ errno: { ENOSYS, EPERM }[error], syscall: call });
    }
  });
}

itWithOtherUser("waits for another user's process, and may not signal it", async () => {
  const sleeper = aSleeper();
  const caller = await startCaller([], asOtherUser);
  const handle = await caller.call("openProcess", sleeper.pid);
  expect(await caller.call("signalProcess", handle, "SIGTERM")).toMatchObject({ errno: EPERM });
  expect(await caller.call("awaitExit", handle, "...")).toBeNull();
  await sleeper.kill();
  await caller.next("called");
});

itWithPidNamespace("never hits the process that has the number now", async () => {
  const recycler = new TestProcess("unshare", [
    ...ownPidNamespace(),
    process.execPath,
    fixturePath("process-recycled.mjs"),
  ]);
  expect(await recycler.next("recycled")).toEqual({
    event: "recycled",
    byHandle: { errno: ESRCH, syscall: "pidfd_send_signal" },
    survived: true,
    byNumber: "SIGTERM",
  });
});

it("keeps the event loop alive until the end of the process, and no longer", async () => {
  const sleeper = aSleeper();
  const waiter = startAlone("process-waiter.mjs", { pid: sleeper.pid });
  await waiter.next("waiting");
  await waiter.next("turned"); // with nothing else to do
  await sleeper.kill();
  await waiter.next("ended");
  expect(await waiter.exited).toEqual({ code: 0, signal: null });
  const closer = startAlone("process-waiter.mjs", { pid: process.pid, close: true });
  expect(await closer.exited).toEqual({ code: 0, signal: null });
});

it("is closed at any moment, tells nobody then, and leaves neither a thread nor a descriptor", async () => {
  const ROUNDS = 1000;
  const warmUp = open(process.pid);
  void endOf(warmUp);
  native().closeProcess(warmUp);
  const [descriptors, threads] = [openDescriptors(), threadsOf()];
  for (let round = 0; round < ROUNDS; round++) {
    const handle = open(process.pid);
    void native().awaitExit(handle, () => expect.unreachable());
    native().closeProcess(handle);
  }
  expect(openDescriptors()).toBe(descriptors);
  expect(threadsOf()).toBe(threads);
});

for (const [what, resource, refusal] of [
  ["thread", "nproc", { errno: EAGAIN, syscall: "pthread_create" }],
  ["descriptor", "nofile", { errno: EMFILE, syscall: "eventfd" }],
] as const) {
  const able = hasPrlimit && (resource === "nofile" || !isRoot || canRunAsOtherUser);
  itWhere(isLinux && able, "needs prlimit(1), and for threads an ordinary user who may read this checkout")(
    `says that there is no ${what} left, and waits when there is one again`,
    async () => {
      const as = isRoot && resource === "nproc" ? asOtherUser : {}; // root may start as many threads as it likes
      const sleeper = new TestProcess("sleep", ["60"], as);
      const caller = await startCaller([], as);
      const handle = await caller.call("openProcess", sleeper.pid);
      const limit = (value: string | number) =>
        execFileSync("prlimit", ["--pid", String(caller.pid), `--${resource}=${value}:`], as as object);
      const descriptors = readdirSync(`/proc/${caller.pid}/fd`).length;
      limit(resource === "nproc" ? 1 : 3);
      expect(await caller.call("awaitExit", handle, "...")).toEqual(refusal);
      limit(1000);
      expect(readdirSync(`/proc/${caller.pid}/fd`).length).toBe(descriptors);
      expect(await caller.call("awaitExit", handle, "...")).toBeNull();
      await sleeper.kill();
      await caller.next("called");
    },
  );
}

it("tells nobody of an end that came just before it was closed, and not whoever has its number now", async () => {
  const ROUNDS = 50;
  const survivor = aSleeper();
  let told = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const victim = spawn("sleep", ["60"]);
    const handle = open(victim.pid ?? 0);
    void native().awaitExit(handle, () => told++);
    const threads = threadsOf();
    killNow(victim.pid ?? 0);
    while (threadsOf() === threads); // its thread has seen it; JavaScript has not
    native().closeProcess(handle);
    const next = open(survivor.pid);
    expect(next).toBe(handle);
    void native().awaitExit(next, () => told++);
    await new Promise((resolve) => victim.once("exit", resolve));
    native().closeProcess(next);
  }
  expect(told).toBe(0);
});

it("tells of a hundred ends, whoever closes what meanwhile", async () => {
  const MANY = 100;
  const sleepers = Array.from({ length: MANY }, aSleeper);
  const handles = sleepers.map(({ pid }) => open(pid));
  const threads = threadsOf();
  let told = 0;
  const even = Promise.all(
    handles.map((handle, index) =>
      index % 2 === 1
        ? native().awaitExit(handle, () => expect.unreachable())
        : endOf(handle).then(() => {
            told++;
            native().closeProcess(handle);
          }),
    ),
  );
  expect(threadsOf()).toBe(threads + MANY);
  handles.forEach((handle, index) => {
    native().signalProcess(handle, SIGKILL);
    if (index % 2 === 1) native().closeProcess(handle);
  });
  await even;
  expect(told).toBe(MANY / 2);
  await until(() => threadsOf() === threads);
});

it("goes with its worker, however that one ends, also when the process ends in the same moment", async () => {
  const ROUNDS = 10;
  const work = `
    const { workerData, parentPort } = require("node:worker_threads");
    const native = require("node-gyp-build")(workerData.root);
    for (let count = 0; count < 5; count++) {
      native.awaitExit(native.openProcess(workerData.pid), () => parentPort.postMessage("told"));
    }
    parentPort.postMessage("waiting");
    if (workerData.how === "exit") process.exit(0);
  `;
  const root = fixturePath("../..");
  const start = async (how: "terminate" | "exit" | "together") => {
    const sleeper = aSleeper();
    const worker = new Worker(work, { eval: true, workerData: { root, pid: sleeper.pid, how } });
    const exit = new Promise((resolve) => worker.once("exit", resolve));
    const messages: unknown[] = [];
    worker.on("message", (message) => messages.push(message));
    await new Promise((resolve) => worker.once("message", resolve));
    if (how === "together") process.kill(sleeper.pid, "SIGKILL");
    if (how !== "exit") await worker.terminate();
    await exit;
    if (how !== "together") expect(messages).toEqual(["waiting"]);
    await sleeper.kill();
  };
  await start("terminate");
  const [descriptors, threads] = [openDescriptors(), threadsOf()];
  for (let round = 0; round < ROUNDS; round++) {
    for (const how of ["terminate", "exit", "together"] as const) await start(how);
  }
  await until(() => openDescriptors() <= descriptors && threadsOf() <= threads);
});

it("is another one's when its number is, because somebody has closed it behind our back", () => {
  const lost = native().openProcess(process.pid) as number;
  closeSync(lost);
  const handle = native().openProcess(process.pid) as number;
  onTestFinished(() => native().closeProcess(handle));
  expect(handle).toBe(lost);
  expect(native().signalProcess(handle, 0)).toBeUndefined();
});
