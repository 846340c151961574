// Proves that a Unix socket lies where it should and goes when it must, passes descriptors whole, in order or not at all, and that a baton is taken once.

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  constants as fsConstants,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { constants } from "node:os";
import { basename, dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { beforeAll, expect, onTestFinished } from "vitest";
import { isFailure, type LocalMessage, type NativeFailure, native } from "../../lib/native.ts";
import { hasFlockCommand, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { connectTo, refusalToConnect } from "../support/listener-tools.ts";
import {
  appearance,
  asOtherUser,
  canInjectFaults,
  canRunAsOtherUser,
  flockCommandGets,
  OTHER_UID,
} from "../support/locks.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";
import { aFile, hasPrlimit, spinUntil, startPool, threadsOf, until } from "../support/waits.ts";

const { EACCES, EADDRINUSE, EAGAIN, EBADF, EBUSY, ECONNREFUSED, ECONNRESET } = constants.errno;
const { EINVAL, EMFILE, ENAMETOOLONG, ENOBUFS, ENOENT, ENOTDIR, EPIPE } = constants.errno;
const LONGEST_ADDRESS = 107; // bytes; sun_path of unix(7)
const LONG = 3000;
const MOST_DESCRIPTORS = 253; // SCM_MAX_FD
const [NONBLOCK, CLOEXEC] = [fsConstants.O_NONBLOCK, 0o2000000];
const ROOT = fixturePath("../..");

const it = itWhere(isLinux, "needs procfs");
const itWithFlock = itWhere(isLinux && hasFlockCommand, "needs flock(1)");
const itWithPrlimit = itWhere(isLinux && hasPrlimit, "needs prlimit(1)");
const itWithFaults = itWhere(isLinux && canInjectFaults, "needs strace that may inject faults");
const itWithOtherUser = itWhere(isRoot && canRunAsOtherUser, "needs root, and a checkout that others may read");

/** A process that has the addon too. */
class Peer extends TestProcess {
  // biome-ignore lint/suspicious/noExplicitAny: each call has its own result
  async call(name: string, ...args: readonly unknown[]): Promise<any> {
    this.send(JSON.stringify([name, ...args]));
    return (await this.next(name)).result;
  }
}

async function startPeer(options: object = {}, through: readonly string[] = []): Promise<Peer> {
  const [command = "", ...args] = [...through, process.execPath, fixturePath("local-socket-peer.mjs")];
  const peer = new Peer(command, args, options);
  await peer.next("ready");
  return peer;
}

/** A path of that many bytes, in directories that are there. */
function pathOf(bytes: number): string {
  const [LONGEST_NAME, LONGEST_DIRECTORY] = [80, 200];
  let directory = temporaryDirectory();
  const left = () => bytes - directory.length - 1;
  while (left() > LONGEST_NAME) directory += `/${"d".repeat(Math.min(LONGEST_DIRECTORY, left() - 3))}`;
  mkdirSync(directory, { recursive: true });
  return `${directory}/ß${"s".repeat(left() - 2)}`;
}

function aPath(): string {
  return join(temporaryDirectory(), "socket");
}

function given<T>(result: T | NativeFailure): T {
  if (isFailure(result)) throw new Error(JSON.stringify(result));
  return result;
}

function socket(call: "listenLocal" | "connectLocal", path: string): number {
  const fd = given(native()[call](path));
  onTestFinished(() => native().closeSocket(fd));
  return fd;
}

function accept(listener: number): number {
  const fd = given(native().acceptLocal(listener));
  onTestFinished(() => native().closeSocket(fd));
  return fd;
}

/** Two ends, connected. */
function aPair(): readonly [near: number, far: number] {
  const path = aPath();
  const listener = socket("listenLocal", path);
  const near = socket("connectLocal", path);
  const far = accept(listener);
  native().closeSocket(listener);
  return [near, far];
}

function file(fd: number): number {
  onTestFinished(() => native().closeFile(fd));
  return fd;
}

function aBaton(): number {
  return file(given(native().makeBaton()));
}

function send(fd: number, text: string, descriptors: readonly number[] = []): number | NativeFailure {
  return native().sendLocal(fd, Buffer.from(text), descriptors);
}

function receive(fd: number): LocalMessage {
  const message = given(native().receiveLocal(fd));
  message.descriptors.forEach(file);
  return message;
}

/** The text, and what the descriptors mean here. */
function read(fd: number): readonly [string, ...string[]] {
  const { data, descriptors } = receive(fd);
  return [String(data), ...descriptors.map(objectOf)];
}

/** What a descriptor is of: two of a pipe or a socket have the same. */
function objectOf(fd: number): string {
  return readlinkSync(`/proc/self/fd/${fd}`);
}

/** The O_… flags, and the offset. */
function factsOf(fd: number): { readonly flags: number; readonly offset: number } {
  const facts = readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
  const fact = (name: string) => new RegExp(`^${name}:\\s*(\\d+)$`, "m").exec(facts)?.[1] ?? "";
  return { flags: Number.parseInt(fact("flags"), 8), offset: Number(fact("pos")) };
}

/** When something has come. */
function comes(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const failure = native().awaitSocket(fd, resolve);
    if (failure !== undefined) reject(new Error(JSON.stringify(failure)));
  });
}

/** Everything that the addon's threads have told of by now has been delivered. */
async function turn(): Promise<void> {
  const [near, far] = aPair();
  send(near, "turn");
  await comes(far);
}

function withUmask(mask: number, act: () => void): void {
  const before = process.umask(mask);
  try {
    act();
  } finally {
    process.umask(before);
  }
}

/** A socket's name that nobody listens by. */
function leftOver(path: string): void {
  const listener = socket("listenLocal", `${dirname(path)}/new`);
  renameSync(`${dirname(path)}/new`, path);
  native().closeSocket(listener);
}

beforeAll(startPool);

it("makes a socket for this user alone, whatever the umask", () => {
  for (const mask of [0, 0o777, 0o077]) {
    for (const bytes of [LONGEST_ADDRESS, LONG]) {
      const path = pathOf(bytes);
      withUmask(mask, () => socket("listenLocal", path));
      expect(lstatSync(path).mode).toBe(fsConstants.S_IFSOCK | 0o600);
    }
  }
});

for (const bytes of [60, LONGEST_ADDRESS, LONGEST_ADDRESS + 1, 256, LONG]) {
  it(`listens and connects at a path of ${bytes} bytes, and exactly there`, () => {
    const path = pathOf(bytes);
    expect(Buffer.byteLength(path)).toBe(bytes);
    const before = openDescriptors();
    const listener = socket("listenLocal", path);
    expect(readdirSync(dirname(path))).toEqual([basename(path)]);
    const near = socket("connectLocal", path);
    const far = accept(listener);
    expect(openDescriptors()).toBe(before + 3);
    expect(send(near, "there")).toBe(5);
    expect(read(far)).toEqual(["there"]);
    for (const each of [near, far]) native().closeSocket(each);
    expect(readdirSync(dirname(path))).toEqual([basename(path)]); // a connection has no name
    native().closeSocket(listener);
    expect(readdirSync(dirname(path))).toEqual([]);
    expect(openDescriptors()).toBe(before);
  });
}

it("opens what no child process inherits, and what does not wait", () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  const near = socket("connectLocal", path);
  for (const fd of [listener, near, accept(listener), aBaton()]) {
    expect(factsOf(fd).flags & (CLOEXEC | NONBLOCK)).toBe(CLOEXEC | NONBLOCK);
  }
});

for (const bytes of [LONGEST_ADDRESS, LONG]) {
  it(`says what is in the way at a path of ${bytes} bytes, and leaves it and nothing else`, () => {
    const path = pathOf(bytes);
    const long = bytes > LONGEST_ADDRESS;
    const refuses = (call: "listenLocal" | "connectLocal", at: string, failure: object) => {
      const before = [openDescriptors(), readdirSync(dirname(path))];
      expect(native()[call](at)).toEqual(failure);
      expect([openDescriptors(), readdirSync(dirname(path))]).toEqual(before);
    };
    refuses("connectLocal", path, { errno: ENOENT, syscall: "connect" });
    const here = [
      [() => writeFileSync(path, "kept"), ECONNREFUSED],
      [() => mkdirSync(path), ECONNREFUSED],
      [() => leftOver(path), ECONNREFUSED],
      [() => symlinkSync("nowhere", path), ENOENT],
    ] as const;
    for (const [make, errno] of here) {
      make();
      const seen = appearance(path);
      refuses("listenLocal", path, { errno: EADDRINUSE, syscall: "bind" });
      refuses("connectLocal", path, { errno, syscall: "connect" });
      expect(appearance(path)).toEqual(seen);
      rmSync(path, { recursive: true });
    }
    const listener = socket("listenLocal", path);
    refuses("listenLocal", path, { errno: EADDRINUSE, syscall: "bind" });
    socket("connectLocal", path);
    accept(listener); // it listens as before
    native().closeSocket(listener);
    writeFileSync(path, "");
    for (const [directory, errno] of [
      [path, ENOTDIR],
      [`${path.slice(0, -2)}/x`, ENOENT],
    ] as const) {
      const at = `${directory.slice(0, long ? undefined : LONGEST_ADDRESS - 2)}/s`;
      if (!long) renameSync(path, path.slice(0, LONGEST_ADDRESS - 2));
      for (const call of ["listenLocal", "connectLocal"] as const) {
        refuses(call, at, { errno, syscall: long ? "open" : call === "listenLocal" ? "bind" : "connect" });
      }
      if (!long) renameSync(path.slice(0, LONGEST_ADDRESS - 2), path);
    }
  });
}
