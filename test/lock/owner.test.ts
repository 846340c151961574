// Proves that readers see who holds a lock by the kernel's word alone, and tell a live owner from one that is gone.

import { spawnSync } from "node:child_process";
import { chmodSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, vi } from "vitest";
import { tryLockFile } from "../../lib/lock/file-lock.ts";
import { encodeRecord, livenessOf, type OwnerRecord, readOwner } from "../../lib/lock/record.ts";
import { native } from "../../lib/native.ts";
import { canUnshareUser, hasFlockCommand, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { asOtherUser, canMountProc, canRunAsOtherUser, flockCommandGets, seesAllLocks } from "../support/locks.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const SURVIVAL = 60; // s; it is killed long before
const PATIENCE = { timeout: 10_000, interval: 5 }; // ms; only reached when something is wrong
const it = itWhere(isLinux, "needs procfs");
const itWithFlock = itWhere(hasFlockCommand, "needs flock(1)");
const itWithOtherUser = itWhere(canRunAsOtherUser, "needs root, and a checkout that others may read");
const itWithPidNamespace = itWhere(canUnshareUser, "needs user namespaces");
const itWithHiddenProcesses = itWhere(
  canMountProc && canRunAsOtherUser,
  "needs root, mount namespaces, and a checkout that others may read",
);

/** What is said where nobody holds it: in a pid namespace of our own, the kernel hides who else might. */
const FREE = seesAllLocks ? false : null;

function aFile(): string {
  return join(temporaryDirectory(), "gateway.lock");
}

function ownRecord(change: Partial<OwnerRecord> = {}): OwnerRecord {
  const startTime = native().identifyProcess(process.pid) as number;
  const { record } = encodeRecord({
    pid: process.pid,
    startTime,
    ...{
      ownerId: null,
      createdAt: null,
      configPath: null,
      stateDir: null,
      port: 1,
      host: null,
      url: null,
      phase: "ready",
    },
    ...{ hostname: null, supervisor: null, runtime: null, version: null, configLock: null, metadata: {} },
    ...native().identifyHost(),
  });
  return { ...record, ...change };
}

async function read(reader: TestProcess): Promise<{ locked: boolean | null; holders: number[]; liveness: string }> {
  const { reading, liveness } = await reader.next("read");
  return { ...reading, liveness };
}

it("sees a lock of its own process, and that it is gone", () => {
  const path = aFile();
  const held = tryLockFile(path);
  expect(readOwner(path)).toEqual({ record: null, torn: false, locked: true, holders: [process.pid] });
  held?.release();
  expect(readOwner(path)).toEqual({ record: null, torn: false, locked: FREE, holders: [] });
});

it("names the process that holds it, whatever the record says, and nobody after SIGKILL", async () => {
  const path = aFile();
  writeFileSync(path, encodeRecord(ownRecord()).bytes);
  const holder = startFixture("lock-holder.mjs", { path });
  await holder.next("locked");
  expect(readOwner(path)).toMatchObject({ record: { pid: process.pid }, locked: true, holders: [holder.pid] });
  await holder.kill();
  expect(readOwner(path)).toMatchObject({ record: { pid: process.pid }, locked: FREE, holders: [] });
});

itWithFlock("names a child that inherited the descriptor, also after its parent was killed", async () => {
  const path = aFile();
  // Not one that reads its input: Node closes that when the parent has ended.
  const say = `echo "{\\"event\\":\\"child\\",\\"pid\\":$$}"; exec sleep ${SURVIVAL}`;
  const parent = new TestProcess("flock", [path, "sh", "-c", say]);
  const { pid } = await parent.next("child");
  onTestFinished(() => void spawnSync("kill", ["-KILL", String(pid)]));
  expect(readOwner(path)).toMatchObject({ locked: true, holders: [parent.pid, pid].sort((a, b) => a - b) });
  parent.child.kill("SIGKILL");
  await vi.waitFor(() => expect(readOwner(path)).toMatchObject({ locked: true, holders: [pid] }), PATIENCE);
  process.kill(pid, "SIGKILL");
  await parent.exited;
  await vi.waitFor(() => expect(readOwner(path)).toMatchObject({ locked: FREE, holders: [] }), PATIENCE);
});

itWithFlock("is not deceived by a process that has the file open, or waits for the lock", async () => {
  const path = aFile();
  writeFileSync(path, "");
  const opener = new TestProcess("sh", ["-c", `exec 3<"$0"; echo '{"event":"open"}'; exec cat`, path]);
  await opener.next("open");
  expect(readOwner(path)).toMatchObject({ locked: FREE, holders: [] });

  const held = tryLockFile(path);
  const waiter = new TestProcess("flock", [path, "sh", "-c", `echo '{"event":"locked"}'; exec cat`]);
  await vi.waitFor(
    () => expect(readFileSync("/proc/locks", "utf8")).toMatch(new RegExp(`-> FLOCK .* ${waiter.pid} `)),
    PATIENCE,
  );
  expect(readOwner(path)).toMatchObject({ locked: true, holders: [process.pid] });
  held?.release();
  await waiter.next("locked");
  expect(readOwner(path).holders).toContain(waiter.pid);
});

it("says that nobody holds a file that is missing, or that was made anew while the old one is held", () => {
  const path = aFile();
  expect(readOwner(path)).toEqual({ record: null, torn: false, locked: false, holders: [] });
  const held = tryLockFile(path);
  rmSync(path);
  writeFileSync(path, "");
  expect(readOwner(path)).toMatchObject({ locked: FREE, holders: [] });
  renameSync(path, `${path}.moved`);
  expect(readOwner(path)).toMatchObject({ locked: false, holders: [] });
  held?.release();
});

itWithFlock("takes no lock, changes nothing, and leaves no descriptor", () => {
  const READINGS = 300;
  const path = aFile();
  writeFileSync(path, encodeRecord(ownRecord()).bytes);
  const before = openDescriptors();
  for (let reading = 0; reading < READINGS; reading++) readOwner(path);
  expect(openDescriptors()).toBe(before);
  expect(flockCommandGets(path)).toBe("granted");
  rmSync(path);
  readOwner(path);
  expect(() => readFileSync(path)).toThrow("ENOENT");
});

itWithOtherUser("never says free to a user who may not see the holder", async () => {
  const path = aFile();
  chmodSync(join(path, ".."), 0o711);
  const held = tryLockFile(path);
  const reading = await read(startFixture("lock-reader.mjs", { path }, asOtherUser));
  expect(reading).toMatchObject({ record: null, locked: seesAllLocks || null, holders: [] });
  held?.release();
});

itWithOtherUser("says nothing of a path that the user may not look at", async () => {
  const path = aFile();
  const held = tryLockFile(path);
  expect(await read(startFixture("lock-reader.mjs", { path }, asOtherUser))).toMatchObject({ locked: null });
  held?.release();
});

itWithOtherUser("says free to a user who may not look at every process, however many locks there are", async () => {
  const MANY = 300; // so many that /proc/locks takes several reads
  const directory = temporaryDirectory();
  const locks = Array.from({ length: MANY }, (_, number) => tryLockFile(join(directory, String(number))));
  const path = aFile();
  chmodSync(join(path, ".."), 0o711);
  writeFileSync(path, "");
  // Others on this host may be taking locks just now.
  await vi.waitFor(async () => {
    const reading = await read(startFixture("lock-reader.mjs", { path }, asOtherUser));
    expect(reading).toMatchObject({ locked: FREE, holders: [] });
  }, PATIENCE);
  for (const lock of locks) lock?.release();
});

itWithOtherUser("never says free while other locks on this host come and go", async () => {
  const MANY = 800; // so many that /proc/locks takes many reads
  const READINGS = 1000;
  const directory = temporaryDirectory();
  chmodSync(directory, 0o711);
  const path = join(directory, "gateway.lock");
  const held = tryLockFile(path);
  const busy = startFixture("lock-churn.mjs", { directory: temporaryDirectory(), many: MANY });
  await busy.next("churning");
  const reader = startFixture("lock-reader.mjs", { path, readings: READINGS }, asOtherUser);
  const { verdicts } = await reader.next("verdicts");
  held?.release();

  expect(verdicts).not.toHaveProperty("false");
});

itWithPidNamespace("never says free in a pid namespace from which the holder is not seen", async () => {
  const path = aFile();
  const held = tryLockFile(path);
  const inNamespace = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", process.execPath];
  const argument = JSON.stringify({ path, record: ownRecord() });
  const reader = new TestProcess("unshare", [...inNamespace, fixturePath("lock-reader.mjs"), argument]);
  const reading = await read(reader);
  held?.release();

  expect(reading).toMatchObject({ holders: [], liveness: "unknown" });
  expect([true, null]).toContain(reading.locked);
});

it("tells a live owner from a recycled pid, another boot and another pid namespace", () => {
  const record = ownRecord();
  const startTime = record.startTime ?? 0;
  const elsewhere = "other";
  expect(livenessOf(record)).toBe("alive");
  expect(livenessOf({ ...record, startTime: startTime - 1 })).toBe("gone");
  expect(livenessOf({ ...record, startTime: startTime + 1 })).toBe("gone");
  expect(livenessOf({ ...record, bootId: elsewhere })).toBe("gone");
  expect(livenessOf({ ...record, pidNamespace: elsewhere })).toBe("unknown");
  expect(livenessOf({ ...record, bootId: elsewhere, pidNamespace: elsewhere })).toBe("gone");
  // A field that is missing contradicts nothing.
  expect(livenessOf({ ...record, startTime: null, bootId: null, pidNamespace: null })).toBe("alive");
  expect(livenessOf({ ...record, pid: 2 ** 31 - 1 })).toBe("gone");
});

it("reads the start time of a process whose name contains parentheses and spaces", async () => {
  const script = join(temporaryDirectory(), "a) R 1 (b");
  writeFileSync(script, '#!/bin/sh\necho \'{"event":"started"}\'\nread line\n', { mode: 0o755 });
  const odd = new TestProcess(script, []);
  await odd.next("started");
  const stat = readFileSync(`/proc/${odd.pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  expect(stat).toContain("(a) R 1 (b)");
  expect(livenessOf(ownRecord({ pid: odd.pid, startTime: Number(fields[19]) }))).toBe("alive");
  expect(livenessOf(ownRecord({ pid: odd.pid, startTime: Number(fields[19]) + 1 }))).toBe("gone");
});

it("takes a zombie for gone", async () => {
  // cat, which the shell becomes, never waits for the child that it inherits.
  const say = `sleep 60 & echo "{\\"event\\":\\"child\\",\\"pid\\":$!}"; exec cat`;
  const parent = new TestProcess("sh", ["-c", say]);
  const { pid } = await parent.next("child");
  parent.send('{"event":"cat"}');
  await parent.next("cat");
  expect(livenessOf(ownRecord({ pid, startTime: null }))).toBe("alive");
  process.kill(pid, "SIGKILL");
  await vi.waitFor(() => expect(readFileSync(`/proc/${pid}/stat`, "utf8")).toMatch(/\) Z /), PATIENCE);
  expect(livenessOf(ownRecord({ pid, startTime: null }))).toBe("gone");
});

itWithOtherUser("takes another user's process for alive", async () => {
  const argument = { path: "/", record: ownRecord() };
  expect(await read(startFixture("lock-reader.mjs", argument, asOtherUser))).toMatchObject({ liveness: "alive" });
});

for (const hidepid of ["noaccess", "invisible"]) {
  itWithHiddenProcesses(`takes another user's process for alive where procfs hides it (${hidepid})`, async () => {
    const argument = JSON.stringify({ path: "/", record: ownRecord() });
    const script = `mount -t proc -o hidepid=${hidepid} proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"`;
    const reader = [process.execPath, fixturePath("lock-reader.mjs"), argument];
    const hidden = new TestProcess("unshare", ["--mount", "sh", "-c", script, "sh", ...reader], { cwd: "/" });
    expect(await read(hidden)).toMatchObject({ liveness: "alive" });
  });
}

itWhere(isRoot, "needs root")("names the holder to root even when it runs as another user", async () => {
  const path = aFile();
  chmodSync(join(path, ".."), 0o777);
  writeFileSync(path, "", { mode: 0o666 });
  chmodSync(path, 0o666);
  const script = `exec 3<>"$0"; flock 3; echo '{"event":"locked"}'; exec cat`;
  const holder = new TestProcess("sh", ["-c", script, path], asOtherUser);
  await holder.next("locked");
  expect(readOwner(path)).toMatchObject({ locked: true, holders: [holder.pid] });
});
