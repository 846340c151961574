// Proves that a path that is no safe lock file is refused in clear words, and that nothing there is touched.

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, vi } from "vitest";
import { tryLockFile } from "../../lib/lock/file-lock.ts";
import { isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { appearance, asOtherUser, canMakeDevices, canRunAsOtherUser, OTHER_UID } from "../support/locks.ts";
import { startFixture, TestProcess } from "../support/processes.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const PATIENCE = { timeout: 10_000, interval: 5 }; // ms; only reached when something is wrong
const it = itWhere(isLinux, "needs Linux");
const itAsRoot = itWhere(isRoot, "needs root");
const itWithOtherUser = itWhere(canRunAsOtherUser, "needs root, and a checkout that others may read");
const itWithDevices = itWhere(canMakeDevices, "needs the right to make devices");
const CONTENT = "not ours\n";

function refusal(path: string, reason: string | RegExp): object {
  const message =
    typeof reason === "string" ? `failed to acquire gateway lock at ${path}: ${reason}` : expect.stringMatching(reason);
  return expect.objectContaining({
    name: "GatewayLockError",
    code: "LOCK_FAILED",
    message,
    lockPath: path,
    retryable: false,
    exitCode: 1,
  });
}

/** Refused with this reason, and everything looks as before. */
function expectRefused(path: string, reason: string | RegExp): void {
  const before = appearance(path);
  expect(() => tryLockFile(path, { remove: true })).toThrow(refusal(path, reason));
  expect(appearance(path)).toEqual(before);
}

it("refuses a symbolic link, dangling or not, and leaves link and target untouched", () => {
  const directory = temporaryDirectory();
  const [target, link, dangling] = [join(directory, "target"), join(directory, "link"), join(directory, "dangling")];
  writeFileSync(target, CONTENT);
  symlinkSync(target, link);
  symlinkSync(join(directory, "nothing"), dangling);
  const before = appearance(target);

  expectRefused(link, "it is a symbolic link; remove it, or lock the file that it points to");
  expectRefused(dangling, /symbolic link/);
  expect(appearance(target)).toEqual(before);
  expect([readlinkSync(link), readFileSync(target, "utf8")]).toEqual([target, CONTENT]);
});

it("refuses a directory", () => {
  const path = join(temporaryDirectory(), "directory");
  mkdirSync(path);
  expectRefused(path, "it is a directory; choose another path");
});

it("refuses a socket, which goes on accepting", async () => {
  const path = join(temporaryDirectory(), "socket");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    expectRefused(path, "it is not a regular file; choose another path");
    expect(server.listening).toEqual(true);
  } finally {
    server.close();
  }
});

it("refuses a FIFO without waking the process that waits at its other end", async () => {
  const path = join(temporaryDirectory(), "fifo");
  execFileSync("mkfifo", [path]);
  const writer = new TestProcess(process.execPath, [
    "-e",
    `const say = (event, at) => require("fs").writeSync(1, JSON.stringify({ event, at }) + "\\n");
     say("opening");
     const fd = require("fs").openSync(${JSON.stringify(path)}, "w");
     say("woken", String(process.hrtime.bigint()));
     require("fs").writeSync(fd, "hello");`,
  ]);
  await writer.next("opening");
  await vi.waitFor(() => expect(stateOf(writer.pid)).toBe("S"), PATIENCE);
  const ATTEMPTS = 200;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) expectRefused(path, /not a regular file/);

  const refused = process.hrtime.bigint();
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const { at } = await writer.next("woken");
  await writer.exited;
  expect(BigInt(at)).toBeGreaterThan(refused);
  expect(readFileSync(reader, "utf8")).toBe("hello");
  closeSync(reader);
});

function stateOf(pid: number): string | undefined {
  return /\) (\w) /.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1];
}

itWithDevices("refuses a device", () => {
  const path = join(temporaryDirectory(), "null");
  execFileSync("mknod", [path, "c", "1", "3"]);
  expectRefused(path, "it is not a regular file; choose another path");
});

it("refuses a file with a second hard link under either name", () => {
  const directory = temporaryDirectory();
  const [path, second] = [join(directory, "a.lock"), join(directory, "second")];
  writeFileSync(path, CONTENT);
  linkSync(path, second);
  for (const name of [path, second]) {
    expectRefused(name, "the file has a second hard link; remove that link, or this file");
  }
  expect(readFileSync(path, "utf8")).toBe(CONTENT);
});

itAsRoot("refuses, as root, a file of another user in a directory of its own", () => {
  const path = join(temporaryDirectory(), "a.lock");
  writeFileSync(path, CONTENT);
  chownSync(path, OTHER_UID, OTHER_UID);
  expectRefused(path, "the file belongs to another user; remove it, or run as that user");
});

itAsRoot("accepts, as root, the file of the user whose directory it is, and leaves it to that user", () => {
  const directory = temporaryDirectory();
  const path = join(directory, "a.lock");
  writeFileSync(path, CONTENT);
  for (const name of [directory, path]) chownSync(name, OTHER_UID, OTHER_UID);
  const before = appearance(path);
  tryLockFile(path)?.release();
  expect(appearance(path)).toEqual(before);
});

itAsRoot("refuses, as root, a third user's file in a user's directory", () => {
  const directory = temporaryDirectory();
  const path = join(directory, "a.lock");
  writeFileSync(path, CONTENT);
  chownSync(directory, OTHER_UID, OTHER_UID);
  chownSync(path, OTHER_UID - 1, OTHER_UID);
  expectRefused(path, /belongs to another user/);
});

itWithOtherUser("refuses, as an ordinary user, a file of root that it may read and write", async () => {
  const directory = temporaryDirectory();
  const path = join(directory, "a.lock");
  writeFileSync(path, CONTENT);
  chmodSync(path, 0o666);
  chownSync(directory, OTHER_UID, OTHER_UID);
  const before = appearance(path);
  const failed = await startFixture("lock-holder.mjs", { path }, asOtherUser).next("failed");

  expect(failed).toMatchObject({ code: "LOCK_FAILED", message: expect.stringContaining("belongs to another user") });
  expect(appearance(path)).toEqual(before);
});

it("refuses a directory that its group or others may write, whether the file is there or not", () => {
  for (const mode of [0o770, 0o720, 0o702, 0o777]) {
    const directory = temporaryDirectory();
    const [there, missing] = [join(directory, "a.lock"), join(directory, "missing.lock")];
    writeFileSync(there, CONTENT);
    chmodSync(directory, mode);
    expectRefused(there, /users other than its owner may write to the directory.*chmod go-w/);
    const before = appearance(there);
    expect(() => tryLockFile(missing), mode.toString(8)).toThrow(refusal(missing, /may write to the directory/));
    expect(appearance(there)).toEqual(before);
  }
});

it("accepts a sticky directory of its own", () => {
  const directory = temporaryDirectory();
  chmodSync(directory, 0o1777);
  const held = tryLockFile(join(directory, "a.lock"), { remove: true });
  expect(held?.held).toEqual(true);
  held?.release();
});

itWithOtherUser("refuses, as an ordinary user, a sticky directory of somebody else", async () => {
  const directory = temporaryDirectory();
  const path = join(directory, "a.lock");
  const beside = join(directory, "beside");
  writeFileSync(beside, CONTENT);
  chmodSync(directory, 0o1777);
  const before = appearance(beside);
  const failed = await startFixture("lock-holder.mjs", { path }, asOtherUser).next("failed");

  expect(failed).toMatchObject({ code: "LOCK_FAILED", message: expect.stringContaining("may write to the directory") });
  expect(appearance(beside)).toEqual(before);
});

itWithOtherUser("says which right is missing where the user may not write, and makes nothing", async () => {
  const directory = temporaryDirectory();
  chmodSync(directory, 0o755);
  const path = join(directory, "a.lock");
  const failed = await startFixture("lock-holder.mjs", { path }, asOtherUser).next("failed");

  expect(failed).toMatchObject({ code: "LOCK_FAILED", cause: { code: "EACCES" } });
  expect(() => readFileSync(path)).toThrow("ENOENT");
});

itAsRoot("gives, as root, a new file to the owner of the directory", () => {
  const directory = temporaryDirectory();
  chownSync(directory, OTHER_UID, OTHER_UID);
  const path = join(directory, "a.lock");
  const held = tryLockFile(path);
  expect(appearance(path)).toMatchObject({ uid: BigInt(OTHER_UID), mode: BigInt(constants.S_IFREG | 0o600) });
  held?.release();
});
