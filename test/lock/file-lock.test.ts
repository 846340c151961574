// Proves that a file lock is granted to one holder at a time, that it ends with release, and that a lost one is noticed.

import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type FileLock, tryLockFile } from "../../lib/lock/file-lock.ts";
import { hasFlockCommand, hasStrace, isLinux, itWhere } from "../support/capabilities.ts";
import { flockCommandGets } from "../support/locks.ts";
import { startFixture, TestProcess } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux, "needs procfs");
const itWithFlock = itWhere(hasFlockCommand, "needs flock(1)");
const ATTEMPTS = 1000;

/** The lock on `path`, which must be free. */
function lock(path: string, options: { remove?: boolean } = {}): FileLock {
  const lock = tryLockFile(path, options);
  if (lock === null) throw new Error(`${path} is held`);
  return lock;
}

function aFile(): string {
  return join(temporaryDirectory(), "a.lock");
}

it("makes the file with mode 0600, leaves it empty, and says what it holds", () => {
  const path = aFile();
  using held = lock(path);

  expect(held).toMatchObject({ path, held: true });
  expect(lstatSync(path).mode & 0o7777).toBe(0o600);
  expect(readFileSync(path)).toHaveLength(0);
  expect(() => held.assertCurrent()).not.toThrow();
});

it("changes neither content nor mode of a file that is there", () => {
  const path = aFile();
  writeFileSync(path, "somebody's", { mode: 0o640 });
  lock(path).release();

  expect(readFileSync(path, "utf8")).toBe("somebody's");
  expect(lstatSync(path).mode & 0o777).toBe(0o640);
});

it("refuses a second lock within one process until the first is released", () => {
  const path = aFile();
  const first = lock(path);
  expect(tryLockFile(path)).toBeNull();
  first.release();
  const second = lock(path);

  expect([first.held, second.held]).toEqual([false, true]);
  first.release();
  expect(tryLockFile(path), "a second release of the first must not free the second").toBeNull();
  second.release();
});

it("refuses a lock that another process holds, and gets it when that one releases or exits", async () => {
  const path = aFile();
  const holder = startFixture("lock-holder.mjs", { path });
  await holder.next("locked");
  expect(tryLockFile(path)).toBeNull();

  holder.send("release");
  await holder.next("done");
  const ours = lock(path);
  await startFixture("lock-holder.mjs", { path }).next("held");
  ours.release();

  const other = startFixture("lock-holder.mjs", { path });
  await other.next("locked");
  other.send("exit");
  await other.exited;
  lock(path).release();
});

itWithFlock("refuses flock(1) while it holds, and lets it in after release", () => {
  const path = aFile();
  const held = lock(path);
  expect(flockCommandGets(path)).toBe("refused");
  held.release();
  expect(flockCommandGets(path)).toBe("granted");
});

itWithFlock("is refused while flock(1) holds, exclusively or shared", async () => {
  for (const mode of ["--exclusive", "--shared"]) {
    const path = aFile();
    const stranger = new TestProcess("flock", [mode, path, "sh", "-c", `echo '{"event":"locked"}'; exec cat`]);
    await stranger.next("locked");
    expect(tryLockFile(path), mode).toBeNull();
    stranger.child.stdin?.end();
    await stranger.exited;
    lock(path).release();
  }
});

it("keeps the file at release unless `remove` is asked for", () => {
  const [kept, removed] = [aFile(), aFile()];
  lock(kept).release();
  lock(removed, { remove: true }).release();

  expect([kept, removed].map((path) => existsSync(path))).toEqual([true, false]);
});

it("deletes its file in an exit hook, and not the one of a lock without `remove`", async () => {
  const [kept, removed] = [aFile(), aFile()];
  for (const [path, remove] of [
    [kept, false],
    [removed, true],
  ] as const) {
    const holder = startFixture("lock-holder.mjs", { path, remove });
    await holder.next("locked");
    holder.send("exit");
    await holder.exited;
  }
  expect([kept, removed].map((path) => existsSync(path))).toEqual([true, false]);
});

it("ends with the block that uses it", () => {
  const path = aFile();
  {
    using held = lock(path);
    expect(held.held).toEqual(true);
  }
  lock(path).release();
});

it("notices that its file was deleted, and leaves a stranger's file at the path alone", () => {
  const path = aFile();
  const held = lock(path, { remove: true });
  rmSync(path);
  expect(() => held.assertCurrent()).toThrow(
    expect.objectContaining({
      name: "GatewayLockError",
      code: "LOCK_LOST",
      message: `the gateway lock at ${path} was lost: it was deleted or renamed`,
      lockPath: path,
      retryable: false,
      exitCode: 1,
    }),
  );
  writeFileSync(path, "a stranger's");
  expect(() => held.assertCurrent()).toThrow(`the gateway lock at ${path} was lost: it was replaced by another file`);
  held.release();

  expect(readFileSync(path, "utf8")).toBe("a stranger's");
});

it("notices that its file was replaced by a rename, and leaves the new one alone", () => {
  const path = aFile();
  const held = lock(path, { remove: true });
  writeFileSync(`${path}.new`, "a stranger's");
  renameSync(`${path}.new`, path);
  expect(() => held.assertCurrent()).toThrow(expect.objectContaining({ code: "LOCK_LOST" }));
  held.release();

  expect(readFileSync(path, "utf8")).toBe("a stranger's");
});

it("notices that the whole directory was renamed away", () => {
  const directory = join(temporaryDirectory(), "locks");
  const path = join(directory, "a.lock");
  mkdirSync(directory);
  const held = lock(path);
  renameSync(directory, `${directory}.old`);
  expect(() => held.assertCurrent()).toThrow(expect.objectContaining({ code: "LOCK_LOST" }));
  held.release();
});

it("says of a released lock that it was released", () => {
  const path = aFile();
  const held = lock(path);
  held.release();
  expect(() => held.assertCurrent()).toThrow(`the gateway lock at ${path} was lost: it was released`);
});

it("stays with its file when it was named by a relative path and the process changes its directory", async () => {
  const directory = temporaryDirectory();
  const holder = startFixture("lock-holder.mjs", { path: "relative.lock", remove: true }, { cwd: directory });
  await holder.next("locked");
  for (const command of ["change-directory", "assert"]) holder.send(command);
  expect(await holder.next("current", "lost")).toEqual({ event: "current" });
  for (const command of ["release", "assert"]) holder.send(command);
  expect(await holder.next("lost")).toMatchObject({ message: expect.stringContaining("it was released") });

  expect(readdirSync(directory)).toEqual([]);
});

itWithFlock("holds a lock by a number that somebody has closed under another lock of ours", () => {
  const directory = temporaryDirectory();
  const robbed = tryLockFile(join(directory, "robbed")) as FileLock;
  closeSync(robbed.fd);
  const next = tryLockFile(join(directory, "next")) as FileLock;
  expect(next.fd).toBe(robbed.fd); // or this proves nothing
  expect(flockCommandGets(next.path)).toBe("refused");
  next.release();
  robbed.release();
  expect(flockCommandGets(next.path)).toBe("granted");
});

it("has its descriptor closed on exec", () => {
  const path = aFile();
  using held = lock(path);
  const O_CLOEXEC = 0o2000000;
  const flags = readdirSync("/proc/self/fd")
    .filter((fd) => linkOf(fd) === held.path)
    .map((fd) => /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "");

  expect(flags.map((octal) => Number.parseInt(octal, 8) & O_CLOEXEC)).toEqual([O_CLOEXEC]);
});

function linkOf(fd: string): string | null {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return null;
  }
}

it("leaves no descriptor behind, however often it is granted, refused or fails", () => {
  const path = aFile();
  const before = openDescriptors();
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const held = lock(path, { remove: attempt % 2 === 0 });
    expect(tryLockFile(path)).toBeNull();
    held.release();
  }
  const directory = join(temporaryDirectory(), "directory");
  mkdirSync(directory);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++)
    expect(() => tryLockFile(directory)).toThrow("it is a directory");

  expect(openDescriptors()).toBe(before);
});

it("names the missing directory when there is none for the file", () => {
  const path = join(temporaryDirectory(), "missing", "a.lock");
  expect(() => tryLockFile(path)).toThrow(
    expect.objectContaining({
      code: "LOCK_FAILED",
      lockPath: path,
      cause: expect.objectContaining({ code: "ENOENT" }),
    }),
  );
});

itWhere(isLinux && hasStrace, "needs strace")(
  "asks once where nobody waits, and again for a moment before a thread waits",
  () => {
    const path = aFile();
    lock(path);
    const log = join(temporaryDirectory(), "strace.log");
    const dist = new URL("../../dist/index.js", import.meta.url).href;
    const program = `import { lockFile, tryLockFile } from "${dist}";
    if (tryLockFile(${JSON.stringify(path)}) !== null) process.exit(2);
    await lockFile(${JSON.stringify(path)}, { timeout: 200 }).catch(({ code }) => process.exit(code === "ALREADY_RUNNING" ? 0 : 3));`;
    const command = [process.execPath, "--input-type=module", "-e", program];
    const { status, stderr } = spawnSync("strace", ["-f", "-e", "trace=flock", "-o", log, ...command]);
    expect([status, String(stderr)]).toEqual([0, ""]);
    const calls = readFileSync(log, "utf8").split("\n");
    const isRefused = (line: string) => line.includes("LOCK_EX|LOCK_NB") && line.includes("EAGAIN");
    const waits = calls.findIndex((line) => /flock\(\d+, LOCK_EX[ )]/.test(line));
    expect(waits, "where a thread waits").toBeGreaterThan(0);
    const asked = calls.slice(0, waits).filter(isRefused).length - 1;
    expect(asked).toBeGreaterThan(1);
    expect(asked, "at most").toBeLessThanOrEqual(48);
    expect(calls.slice(waits).filter(isRefused), "the last one, at the deadline").toHaveLength(1);
  },
);
