// Proves that the holders of several locks are found in one look, under whatever name a process has opened its file.

import { spawnSync } from "node:child_process";
import { linkSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { tryLockFile } from "../../lib/lock/file-lock.ts";
import { readOwner } from "../../lib/lock/record.ts";
import { native } from "../../lib/native.ts";
import { startCaller } from "../support/calls.ts";
import { canUnshareMount, hasFlockCommand, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { asOtherUser, canMountProc, canRunAsOtherUser } from "../support/locks.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";
import { aFile, lock } from "../support/waits.ts";

const it = itWhere(isLinux, "needs procfs");
const itWithFlock = itWhere(isLinux && hasFlockCommand, "needs flock(1)");
const itWithMounts = itWhere(isLinux && canUnshareMount && hasFlockCommand, "needs mount namespaces and flock(1)");
const OVERLAY = 'mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/merged"';
const itWithOverlay = itWhere(isRoot && canMountOverlay(), "needs root and overlayfs");
const itWithHiddenProcesses = itWhere(canMountProc && canRunAsOtherUser, "needs root and mount namespaces");

function canMountOverlay(): boolean {
  const script = `d=$(mktemp -d) && mount -t tmpfs none "$d" && mkdir "$d/lower" "$d/upper" "$d/work" "$d/merged" && set - "$d" && ${OVERLAY}`;
  return spawnSync("unshare", ["--mount", "sh", "-c", script], { stdio: "ignore" }).status === 0;
}

function evidence(paths: readonly string[], hints: readonly number[] = [], firstOnly = false): unknown[] {
  return native()
    .findLockHolders(paths, hints, firstOnly)
    .map(({ locked, holders }) => [locked, ...holders]);
}

it("answers for each path, in their order, also for the same one twice", async () => {
  const [ours, theirs, free, missing] = [aFile(), aFile(), aFile(), aFile()];
  const both = temporaryDirectory();
  lock(ours);
  writeFileSync(free, "");
  const holder = await startCaller();
  await holder.call("tryLockFile", theirs, false, false);
  await holder.call("tryLockDirectory", both, false);
  expect(evidence([theirs, free, ours, missing, both, ours])).toEqual([
    [true, holder.pid],
    // null: where not every process can be looked at, and other locks come and go.
    [expect.toBeOneOf([false, null])],
    [true, process.pid],
    [false],
    [true, holder.pid],
    [true, process.pid],
  ]);
  expect(evidence([])).toEqual([]);
});

itWithFlock("names everybody who has a lock, once, or only the first, the hinted ones before others", async () => {
  const path = aFile();
  // flock(1) and its child have the same open file description, the child twice.
  const script = `exec 4<&3; echo "{\\"event\\":\\"child\\",\\"pid\\":$$}"; exec sleep 60`;
  const parent = new TestProcess("sh", ["-c", `exec 3<>"$0"; flock 3; sh -c '${script}' & wait`, path]);
  const { pid } = await parent.next("child");
  const both = [parent.pid, pid].sort((a, b) => a - b);
  expect(evidence([path])).toEqual([[true, ...both]]);
  expect(evidence([path], [pid])).toEqual([[true, pid, parent.pid]]);
  expect(evidence([path], [pid, pid, process.pid, 0, -1, 2 ** 22 + 1])).toEqual([[true, pid, parent.pid]]);
  expect(evidence([path], [pid], true)).toEqual([[true, pid]]);
  process.kill(pid, "SIGKILL");
});

it("stops at the first holder only when every path has one", async () => {
  const [first, second] = [aFile(), aFile()];
  lock(first);
  const holder = await startCaller();
  await holder.call("tryLockFile", second, false, false);
  expect(evidence([first, second], [process.pid], true)).toEqual([
    [true, process.pid],
    [true, holder.pid],
  ]);
});

it("knows a file again that was renamed, or has another name as well", () => {
  const path = aFile();
  const held = tryLockFile(path);
  renameSync(path, `${path}.moved`);
  linkSync(`${path}.moved`, `${path}.second`);
  expect(evidence([`${path}.moved`, `${path}.second`, path])).toEqual([
    [true, process.pid],
    [true, process.pid],
    [false],
  ]);
  held?.release();
});

itWithMounts("knows a file and a directory again that a container has under other names", async () => {
  const directory = temporaryDirectory();
  const [file, state] = [join(directory, "a.lock"), join(directory, "state")];
  for (const each of [file, join(directory, "b")]) writeFileSync(each, "");
  for (const each of [state, join(directory, "data")]) mkdirSync(each);
  const script = `
    cd "$0" && mount --bind a.lock b && mount --bind state data &&
    exec 3<>b && flock 3 && exec 4<data && flock 4 && echo '{"event":"locked"}' && exec cat`;
  const container = new TestProcess("unshare", ["--user", "--map-root-user", "--mount", "sh", "-c", script, directory]);
  await container.next("locked");
  expect(evidence([file, state])).toEqual([
    [true, container.pid],
    [true, container.pid],
  ]);
});

itWithOverlay("finds holders on overlayfs, whose inode numbers are not always the kernel's own", async () => {
  const mounts = `mount -t tmpfs none "$1" && cd "$1" && mkdir lower upper work merged && mkdir lower/state && touch lower/a.lock`;
  const script = `${mounts} && ${OVERLAY} && shift && exec "$@"`;
  const directory = temporaryDirectory();
  const caller = await startCaller(["unshare", "--mount", "sh", "-c", script, "sh", directory]);
  const [merged, lower] = [join(directory, "merged"), join(directory, "lower")];
  const file = join(merged, "a.lock");
  const locked = await caller.call("tryLockFile", file, true, false);
  expect(locked).toMatchObject({ status: "locked" });
  await caller.call("tryLockDirectory", join(merged, "state"), false);
  const both = [file, join(merged, "state")];
  const seen = await caller.call("findLockHolders", both, [], false);
  expect(seen).toEqual(both.map(() => ({ locked: true, holders: [caller.pid] })));
  await caller.call("closeFile", locked.fd);
  const [free, below] = await caller.call("findLockHolders", [file, join(lower, "a.lock")], [], false);
  expect(free.holders).toEqual([]);
  expect(free.locked).not.toBe(true);
  expect(below).toMatchObject({ holders: [] });
});

it("is not deceived by a lock of another kind, or by other locks in plenty on the same file", async () => {
  const path = aFile();
  writeFileSync(path, "");
  const script = `
import fcntl, json, sys
file = open(sys.argv[1], "r+")
for byte in range(0, 4000, 2):
    fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
print(json.dumps({"event": "ranges"}), flush=True)
sys.stdin.readline()
fcntl.flock(file, fcntl.LOCK_EX)
print(json.dumps({"event": "flock"}), flush=True)
sys.stdin.readline()
`;
  const ranges = new TestProcess("python3", ["-c", script, path]);
  await ranges.next("ranges");
  expect(native().findLockHolders([path], [], false)[0]?.holders).toEqual([]);
  ranges.send("flock");
  await ranges.next("flock");
  expect(evidence([path])).toEqual([[true, ranges.pid]]);
});

it("leaves no descriptor, and opens no other end of a FIFO", () => {
  const fifo = join(temporaryDirectory(), "fifo");
  spawnSync("mkfifo", [fifo]);
  const path = aFile();
  lock(path);
  const before = openDescriptors();
  for (let round = 0; round < 100; round++) native().findLockHolders([path, fifo, `${path}.missing`], [], false);
  expect(openDescriptors()).toBe(before);
});

itWithHiddenProcesses(
  "never says free where procfs leaves out whole processes, and other locks come and go",
  async () => {
    const MANY = 800;
    const READINGS = 300;
    const directory = temporaryDirectory();
    spawnSync("chmod", ["711", directory]);
    const path = join(directory, "gateway.lock");
    const held = tryLockFile(path);
    const busy = startFixture("lock-churn.mjs", { directory: temporaryDirectory(), many: MANY });
    await busy.next("churning");
    const script = `mount -t proc -o hidepid=invisible proc /proc && exec setpriv --reuid ${asOtherUser.uid} --regid ${asOtherUser.gid} --clear-groups "$@"`;
    const reader = [process.execPath, fixturePath("lock-reader.mjs"), JSON.stringify({ path, readings: READINGS })];
    const hidden = new TestProcess("unshare", ["--mount", "sh", "-c", script, "sh", ...reader], { cwd: "/" });
    const { verdicts } = await hidden.next("verdicts");
    held?.release();
    expect(verdicts).not.toHaveProperty("false");
    expect(readOwner(path)).toMatchObject({ holders: [] });
  },
);
