// Proves that a Unix socket lies and goes where it should, passes descriptors in order or not at all, and a baton is taken once.

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
const { EINVAL, EMFILE, ENAMETOOLONG, ENOBUFS, ENOENT, ENOTDIR, EPIPE, EPROTOTYPE } = constants.errno;
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
  });
}

it("says what is wrong with a directory, and with a name that is too long for the system", () => {
  for (const bytes of [60, LONG]) {
    const directory = dirname(pathOf(bytes));
    writeFileSync(join(directory, "file"), "");
    const before = [openDescriptors(), readdirSync(directory)];
    for (const [name, errno] of [
      ["file/socket", ENOTDIR],
      ["missing/socket", ENOENT],
      ["s".repeat(LONGEST_ADDRESS), ENAMETOOLONG],
    ] as const) {
      for (const [call, direct] of [
        ["listenLocal", "bind"],
        ["connectLocal", "connect"],
      ] as const) {
        const syscall = errno === ENAMETOOLONG ? "bind" : bytes > LONGEST_ADDRESS ? "open" : direct;
        expect(native()[call](join(directory, name))).toEqual({ errno, syscall });
      }
    }
    expect([openDescriptors(), readdirSync(directory)]).toEqual(before);
  }
  expect(native().listenLocal("s".repeat(LONGEST_ADDRESS + 1))).toMatchObject({ errno: ENAMETOOLONG });
});

itWithFaults("leaves neither a name nor a descriptor where the system does not let it listen", async () => {
  const strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=listen", "-e", "inject=listen:error=ENOBUFS"];
  const peer = await startPeer({}, strace);
  const path = aPath();
  const child = Number(readFileSync(`/proc/${peer.pid}/task/${peer.pid}/children`, "utf8"));
  const before = readdirSync(`/proc/${child}/fd`);
  expect(await peer.call("listenLocal", path)).toEqual({ errno: ENOBUFS, syscall: "listen" });
  expect(readdirSync(`/proc/${child}/fd`)).toEqual(before);
  expect(existsSync(path)).toBe(false);
});

const replacements: readonly (readonly [what: string, make: (path: string) => unknown])[] = [
  ["another socket", (path) => socket("listenLocal", path)],
  ["a left-over name", leftOver],
  ["a regular file", (path) => writeFileSync(path, "")],
  ["a symbolic link to where it was moved", (path) => symlinkSync(`${path}.moved`, path)],
];
for (const [what, make] of replacements) {
  it(`leaves ${what} that has come in the place of its name`, () => {
    for (const bytes of [60, LONG]) {
      const path = pathOf(bytes);
      const listener = socket("listenLocal", path);
      renameSync(path, `${path}.moved`);
      make(path);
      const seen = appearance(path);
      native().closeSocket(listener);
      expect(appearance(path)).toEqual(seen);
    }
  });
}

it("closes a socket whose name is gone, and takes no number for a name that it had", () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  rmSync(path);
  native().closeSocket(listener);
  const next = socket("listenLocal", path);
  expect(next).toBe(listener);
  renameSync(path, `${path}.moved`);
  native().closeSocket(next);
  socket("listenLocal", path);
  const other = socket("connectLocal", path);
  native().closeFile(other); // no file
  native().closeSocket(other);
  native().closeSocket(other);
  expect(readdirSync(dirname(path)).sort()).toEqual(["socket", "socket.moved"]);
});

for (const [how, end, stays] of [
  ["at the end of its input", (peer) => peer.child.stdin?.end(), false],
  ["by process.exit", (peer) => peer.send('["exit"]'), false],
  ["by an exception", (peer) => peer.send('["throw"]'), false],
  ["by SIGKILL", (peer) => peer.child.kill("SIGKILL"), true],
] as const satisfies readonly (readonly [string, (peer: Peer) => unknown, boolean])[]) {
  it(`${stays ? "leaves" : "removes"} the name when the process ends ${how}, though it waits for a client`, async () => {
    const [short, long, taken] = [aPath(), pathOf(LONG), aPath()];
    const peer = await startPeer();
    for (const path of [short, long, taken]) {
      expect(await peer.call("awaitSocket", await peer.call("listenLocal", path), "...")).toBeNull();
    }
    rmSync(taken);
    writeFileSync(taken, "");
    end(peer);
    const { code } = await peer.exited;
    expect(code).toBe(how === "by SIGKILL" ? null : how === "by an exception" ? 1 : 0);
    expect([short, long, taken].map((path) => existsSync(path))).toEqual([stays, stays, true]);
    for (const path of stays ? [short, long] : []) {
      expect(native().connectLocal(path)).toEqual({ errno: ECONNREFUSED, syscall: "connect" });
      expect(native().listenLocal(path)).toEqual({ errno: EADDRINUSE, syscall: "bind" });
    }
  });
}

itWithFlock("goes with its worker: names, sockets, what was received, and whoever waited", async () => {
  const ROUNDS = 3;
  const work = `
    const { workerData, parentPort } = require("node:worker_threads");
    const native = require("node-gyp-build")(workerData.root);
    const listener = native.listenLocal(workerData.path);
    const near = native.connectLocal(workerData.from);
    parentPort.on("message", () => {}); // keeps it
    for (const fd of [listener, near]) {
      native.awaitSocket(fd, () => {
        parentPort.postMessage(native.receiveLocal(near).descriptors.length);
        if (workerData.how === "exit") process.exit(0);
        native.awaitSocket(near, () => parentPort.postMessage("told"));
      });
    }
  `;
  const run = async (how: "terminate" | "exit" | "together") => {
    const [path, from, locked] = [aPath(), aPath(), aFile()];
    const listener = socket("listenLocal", from);
    const worker = new Worker(work, { eval: true, workerData: { root: ROOT, path, from, how } });
    const exit = new Promise((resolve) => worker.once("exit", resolve));
    const messages: unknown[] = [];
    worker.on("message", (message) => messages.push(message));
    await comes(listener);
    const far = accept(listener);
    const lock = { fd: given(native().tryLockFile(locked, false, false)) as number };
    expect(send(far, "lock", [lock.fd])).toBe(4);
    native().closeFile(lock.fd);
    await until(() => messages.length > 0);
    if (how === "terminate") expect(flockCommandGets(locked)).toBe("refused");
    if (how === "together") send(far, "too late");
    if (how !== "exit") await worker.terminate();
    await exit;
    if (how !== "together") expect(messages).toEqual([1]);
    expect(existsSync(path)).toBe(false);
    expect(flockCommandGets(locked)).toBe("granted");
    expect(send(far, "anybody?")).toMatchObject({ errno: EPIPE });
    for (const fd of [far, listener]) native().closeSocket(fd);
  };
  await run("terminate");
  const [descriptors, threads] = [openDescriptors(), threadsOf()];
  for (let round = 0; round < ROUNDS; round++) {
    for (const how of ["terminate", "exit", "together"] as const) await run(how);
  }
  await until(() => openDescriptors() <= descriptors && threadsOf() <= threads);
});

itWithFlock("passes the very file: its lock and its offset are those of whoever sent it", () => {
  const [near, far] = aPair();
  const path = aFile();
  const fd = given(native().tryLockFile(path, false, false)) as number;
  expect(send(near, "file", [file(fd)])).toBe(4);
  const { data, descriptors } = receive(far);
  expect(String(data)).toBe("file");
  expect(descriptors).toHaveLength(1);
  const [copy = -1] = descriptors;
  expect(copy).not.toBe(fd);
  expect(factsOf(copy).flags & CLOEXEC).toBe(CLOEXEC);
  writeSync(fd, "01234");
  expect(factsOf(copy).offset).toBe(5);
  writeSync(copy, "56789");
  expect(factsOf(fd).offset).toBe(10);
  native().closeFile(fd);
  expect(flockCommandGets(path)).toBe("refused");
  expect(readSync(copy, Buffer.alloc(1))).toBe(0); // at its end
  expect(readFileSync(path, "utf8")).toBe("0123456789");
  native().closeFile(copy);
  expect(existsSync(`/proc/self/fd/${copy}`)).toBe(false);
  expect(flockCommandGets(path)).toBe("granted");
});

itWithFlock("keeps what is on its way, and frees it with the socket that nobody reads", async () => {
  const [near, far] = aPair();
  const path = aFile();
  const fd = given(native().tryLockFile(path, false, false)) as number;
  send(near, "lock", [fd]);
  native().closeFile(fd);
  native().closeSocket(near);
  expect(flockCommandGets(path)).toBe("refused");
  native().closeSocket(far);
  await until(() => flockCommandGets(path) === "granted");
});

it("passes a socket that goes on listening, and a pipe", async () => {
  const [near, far] = aPair();
  const host = "127.0.0.1";
  const { fd, port } = given(native().listen(host, 0, 5, false));
  const baton = aBaton();
  const sent = [fd, baton].map(objectOf);
  expect(send(near, "both", [fd, baton])).toBe(4);
  native().closeSocket(fd);
  await connectTo({ host, port }); // also on its way
  const { descriptors } = receive(far);
  expect(descriptors.map(objectOf)).toEqual(sent);
  expect(descriptors.map((each) => factsOf(each).flags & CLOEXEC)).toEqual([CLOEXEC, CLOEXEC]);
  const [listening = -1, pipe = -1] = descriptors;
  expect(native().describeSocket(listening)).toMatchObject({ port, listening: true });
  await connectTo({ host, port });
  native().closeFile(listening);
  expect(await refusalToConnect(port, host)).toBe("ECONNREFUSED");
  native().closeFile(baton);
  expect(native().takeBaton(pipe)).toBe(true);
});

it("passes a listening Unix socket with its name left to whoever made it", () => {
  const [near, far] = aPair();
  const path = aPath();
  const listener = socket("listenLocal", path);
  send(near, "listener", [listener]);
  const [copy = -1] = receive(far).descriptors;
  native().closeFile(copy);
  socket("connectLocal", path);
  accept(listener);
  native().closeSocket(listener);
  expect(existsSync(path)).toBe(false);
});

it(`passes ${MOST_DESCRIPTORS} descriptors at once, in their order, and not one more`, () => {
  const [near, far] = aPair();
  const batons = Array.from({ length: MOST_DESCRIPTORS + 1 }, aBaton);
  const before = openDescriptors();
  expect(send(near, "too many", batons)).toEqual({ errno: EINVAL, syscall: "sendmsg" });
  expect(native().receiveLocal(far)).toEqual({ errno: EAGAIN, syscall: "recvmsg" });
  expect(openDescriptors()).toBe(before);
  const most = batons.slice(0, MOST_DESCRIPTORS);
  expect(send(near, "many", most)).toBe(4);
  expect(openDescriptors()).toBe(before);
  const { descriptors } = receive(far);
  expect(descriptors.map(objectOf)).toEqual(most.map(objectOf));
  expect(new Set([...descriptors, ...batons]).size).toBe(2 * MOST_DESCRIPTORS + 1);
  for (const each of descriptors) expect(factsOf(each).flags & CLOEXEC).toBe(CLOEXEC);
  for (const each of descriptors) native().closeFile(each);
  expect(openDescriptors()).toBe(before);
  expect(native().takeBaton(batons[0] ?? -1)).toBe(true); // the copies were closed, not these
});

it("sends nothing with a descriptor that is not the addon's, and knows what it has", () => {
  const [near, far] = aPair();
  const baton = aBaton();
  const closed = aBaton();
  const strange = openSync("/dev/null", "r");
  onTestFinished(() => closeSync(strange));
  native().closeFile(closed);
  const failure = { errno: EBADF, syscall: "handle" };
  for (const bad of [0, strange, closed, -1, 1_000_000]) {
    for (const list of [[bad], [baton, bad], [bad, baton]]) expect(send(near, "no", list)).toEqual(failure);
    for (const call of ["acceptLocal", "identifyPeer", "receiveLocal", "takeBaton"] as const) {
      expect(native()[call](bad)).toEqual(failure);
    }
    expect(send(bad, "no")).toEqual(failure);
    expect(native().awaitSocket(bad, () => {})).toEqual(failure);
  }
  expect(native().takeBaton(near)).toEqual(failure);
  expect(native().receiveLocal(baton)).toEqual(failure);
  expect(native().receiveLocal(far)).toMatchObject({ errno: EAGAIN });
  expect(native().takeBaton(baton)).toBe(true);
  native().closeFile(strange);
  expect(objectOf(strange)).toBe("/dev/null");
});

itWithPrlimit("says that there are not enough descriptors left, keeps none of them, and goes on", async () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  const peer = await startPeer();
  const near = await peer.call("connectLocal", path);
  const far = accept(listener);
  const limit = (value: number) => execFileSync("prlimit", ["--pid", String(peer.pid), `--nofile=${value}:`]);
  const opened = () => readdirSync(`/proc/${peer.pid}/fd`);
  const batons = Array.from({ length: 20 }, aBaton);
  const before = opened();
  for (const value of [1, before.length + 3]) {
    expect(send(far, "too many", batons)).toBe(8);
    limit(value);
    expect(await peer.call("receiveLocal", near)).toEqual({ errno: EMFILE, syscall: "recvmsg" });
    expect(opened()).toEqual(before);
    expect(await peer.call("awaitSocket", near, "...")).toEqual(
      value === 1 ? { errno: EMFILE, syscall: "eventfd" } : null,
    );
  }
  for (const baton of batons) expect(native().takeBaton(baton)).toBe(true);
  limit(1000);
  expect(send(far, "enough", batons)).toBe(6);
  await peer.next("called");
  const { data, descriptors } = await peer.call("receiveLocal", near);
  expect([data, descriptors.length]).toEqual(["enough", batons.length]);
  expect(await peer.call("takeBaton", descriptors[0])).toBe(false); // it lives, and was taken
});

it("hands out several messages in order, with the descriptors of one of them at a time", () => {
  const [near, far] = aPair();
  const [one = -1, two = -1, three = -1] = Array.from({ length: 3 }, aBaton);
  const names = [one, two, three].map(objectOf);
  for (const [text, descriptors] of [
    ["a", []],
    ["b", [one]],
    ["c", [two, three]],
    ["d", []],
    ["e", []],
    ["", [one]], // no byte that they could go with
    ["f", [three]],
  ] as const) {
    expect(send(near, text, descriptors)).toBe(text.length);
  }
  expect([read(far), read(far), read(far)]).toEqual([
    ["ab", names[0]],
    ["c", names[1], names[2]],
    ["def", names[2]],
  ]);
  expect(native().receiveLocal(far)).toMatchObject({ errno: EAGAIN });
  send(far, "and back", [one]);
  expect(read(near)).toEqual(["and back", names[0]]);
});

it("takes as much as there is room for, with its descriptors or not at all", () => {
  const [near, far] = aPair();
  const [first, late] = [aBaton(), aBaton()];
  const sent = Buffer.alloc(2 ** 20);
  for (let i = 0; i < sent.length; i += 4) sent.writeUInt32LE(i, i);
  let taken = native().sendLocal(near, sent, [first]) as number;
  expect(taken).toBeGreaterThan(0);
  expect(taken).toBeLessThan(sent.length);
  for (;;) {
    const more = native().sendLocal(near, sent.subarray(taken), []);
    if (isFailure(more)) break;
    taken += more;
  }
  expect(send(near, "late", [late])).toEqual({ errno: EAGAIN, syscall: "sendmsg" });
  const received: LocalMessage[] = [];
  for (;;) {
    const message = native().receiveLocal(far);
    if (isFailure(message)) {
      expect(message).toMatchObject({ errno: EAGAIN });
      break;
    }
    message.descriptors.forEach(file);
    received.push(message);
  }
  expect(Buffer.concat(received.map(({ data }) => data)).equals(sent.subarray(0, taken))).toBe(true);
  expect(received.map(({ descriptors }) => descriptors.map(objectOf))).toEqual([
    [objectOf(first)],
    ...received.slice(1).map(() => []),
  ]);
  expect(send(near, "now", [late])).toBe(3);
  expect(read(far)).toEqual(["now", objectOf(late)]);
});

it("says that the other end is closed, after all that it has sent", () => {
  const [near, far] = aPair();
  const baton = aBaton();
  send(near, "last", [baton]);
  native().closeSocket(near);
  expect(send(far, "too late", [baton])).toEqual({ errno: EPIPE, syscall: "sendmsg" });
  expect(read(far)).toEqual(["last", objectOf(baton)]);
  for (let i = 0; i < 2; i++) expect(read(far)).toEqual([""]);
});

it("says once that the other end was closed with something unread, or with nobody let in", () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  const [admitted, waiting] = [socket("connectLocal", path), socket("connectLocal", path)];
  const far = accept(listener);
  send(admitted, "unread");
  for (const fd of [far, listener]) native().closeSocket(fd);
  for (const fd of [admitted, waiting]) {
    expect(native().receiveLocal(fd)).toEqual({ errno: ECONNRESET, syscall: "recvmsg" });
    expect(read(fd)).toEqual([""]);
    expect(send(fd, "gone")).toEqual({ errno: EPIPE, syscall: "sendmsg" });
  }
});

it("does not end a process by SIGPIPE", async () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  const peer = await startPeer();
  const near = await peer.call("connectLocal", path);
  await peer.call("sigpipe");
  const status = readFileSync(`/proc/${peer.pid}/status`, "utf8");
  for (const field of ["SigIgn", "SigCgt", "SigBlk"]) {
    const mask = BigInt(`0x${new RegExp(`^${field}:\\s*(\\w+)$`, "m").exec(status)?.[1]}`);
    expect((mask >> BigInt(constants.signals.SIGPIPE - 1)) & 1n).toBe(0n);
  }
  native().closeSocket(accept(listener));
  expect(await peer.call("sendLocal", near, { text: "gone" }, [])).toEqual({ errno: EPIPE, syscall: "sendmsg" });
  expect(await peer.call("receiveLocal", near)).toEqual({ data: "", descriptors: [] });
});

it("is not lent, so that nobody makes us wait", () => {
  const listener = socket("listenLocal", aPath());
  for (const fd of [listener, ...aPair()])
    expect(native().lendSocket(fd)).toEqual({ errno: EPROTOTYPE, syscall: "getsockopt" });
  expect(native().acceptLocal(listener)).toMatchObject({ errno: EAGAIN });
});

it("never waits: neither for a client, nor for bytes, nor for room", () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  expect(native().acceptLocal(listener)).toEqual({ errno: EAGAIN, syscall: "accept" });
  const before = openDescriptors();
  let clients = 0;
  for (;;) {
    const client = native().connectLocal(path);
    if (isFailure(client)) {
      expect(client).toEqual({ errno: EAGAIN, syscall: "connect" });
      break;
    }
    onTestFinished(() => native().closeSocket(client));
    clients++;
  }
  expect(clients).toBeGreaterThan(1);
  expect(openDescriptors()).toBe(before + clients);
  const far = accept(listener);
  expect(native().receiveLocal(far)).toEqual({ errno: EAGAIN, syscall: "recvmsg" });
  socket("connectLocal", path); // there is room again
});

it("tells once that something has come: a client, bytes, the end", async () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  let told = 0;
  const tell = () => told++;
  expect(native().awaitSocket(listener, tell)).toBeUndefined();
  expect(native().awaitSocket(listener, () => expect.unreachable())).toEqual({ errno: EBUSY, syscall: "handle" });
  await turn();
  expect(told).toBe(0);
  const near = socket("connectLocal", path);
  await until(() => told === 1);
  socket("connectLocal", path);
  await turn();
  expect(told).toBe(1);
  const far = accept(listener);
  native().awaitSocket(far, tell);
  await turn();
  expect(told).toBe(1);
  send(near, "bytes");
  await until(() => told === 2);
  await comes(far); // they are still there
  expect(read(far)).toEqual(["bytes"]);
  const end = comes(far);
  native().closeSocket(near);
  await end;
  expect(read(far)).toEqual([""]);
  await comes(far); // it stays closed
  expect(told).toBe(2);
});

it("may be closed, and awaited again, by whoever is told", async () => {
  const [near, far] = aPair();
  send(near, "bytes");
  let told = 0;
  const again = () => {
    if (++told === 5) return native().closeSocket(far);
    expect(native().awaitSocket(far, again)).toBeUndefined();
  };
  again();
  await until(() => told === 5);
  expect(native().awaitSocket(far, again)).toMatchObject({ errno: EBADF });
});

it("tells nobody of what came just before it was closed, and not whoever has its number now", async () => {
  const ROUNDS = 30;
  let told = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const [near, far] = aPair();
    const [quiet] = aPair();
    native().awaitSocket(far, () => told++);
    const threads = threadsOf();
    send(near, "bytes");
    spinUntil(() => threadsOf() < threads); // its thread has seen it; JavaScript has not
    native().closeSocket(far);
    const path = aPath();
    const next = socket("listenLocal", path);
    expect(next).toBeLessThanOrEqual(far);
    native().awaitSocket(next, () => told++);
    native().awaitSocket(quiet, () => told++);
    await turn();
    for (const fd of [near, next, quiet]) native().closeSocket(fd);
  }
  expect(told).toBe(0);
});

it("gives up two hundred waits at once, and leaves neither a thread nor a descriptor", async () => {
  const MANY = 200;
  aPair();
  await turn();
  const [descriptors, threads] = [openDescriptors(), threadsOf()];
  const pairs = Array.from({ length: MANY }, aPair);
  for (const [near] of pairs) {
    expect(native().awaitSocket(near, () => expect.unreachable())).toBeUndefined();
  }
  expect(threadsOf()).toBe(threads + MANY);
  for (const pair of pairs) pair.map((fd) => native().closeSocket(fd));
  expect(openDescriptors()).toBe(descriptors);
  await until(() => threadsOf() === threads);
  await turn();
});

it("says who is at the other end: when it connected, or began to listen", async () => {
  const path = aPath();
  const user = process.geteuid?.();
  const peer = await startPeer();
  await peer.call("listenLocal", path);
  const near = socket("connectLocal", path);
  expect(native().identifyPeer(near)).toEqual({ user, pid: peer.pid });
  const listener = socket("listenLocal", `${path}.own`);
  const theirs = await peer.call("connectLocal", `${path}.own`);
  const far = accept(listener);
  expect(native().identifyPeer(far)).toEqual({ user, pid: peer.pid });
  expect(await peer.call("identifyPeer", theirs)).toEqual({ user, pid: process.pid });
  await peer.kill();
  for (const fd of [near, far]) expect(native().identifyPeer(fd)).toEqual({ user, pid: peer.pid });
});

itWithOtherUser("says that it is another user, who gets in only if the socket is opened to all", async () => {
  const peer = await startPeer(asOtherUser);
  const stranger = { user: OTHER_UID, pid: peer.pid };
  const [path, theirs] = [aPath(), aPath()];
  chownSync(dirname(theirs), OTHER_UID, OTHER_UID);
  await peer.call("listenLocal", theirs);
  expect(lstatSync(theirs)).toMatchObject({ uid: OTHER_UID, mode: fsConstants.S_IFSOCK | 0o600 });
  expect(native().identifyPeer(socket("connectLocal", theirs))).toEqual(stranger);
  const listener = socket("listenLocal", path);
  chmodSync(dirname(path), 0o755);
  expect(await peer.call("connectLocal", path)).toEqual({ errno: EACCES, syscall: "connect" });
  expect(await peer.call("listenLocal", `${path}.theirs`)).toEqual({ errno: EACCES, syscall: "bind" });
  chmodSync(path, 0o666);
  const near = await peer.call("connectLocal", path);
  expect(native().identifyPeer(accept(listener))).toEqual(stranger);
  expect(await peer.call("identifyPeer", near)).toEqual({ user: 0, pid: process.pid });
});

it("has a baton taken once, by whichever descriptor, also when all others are closed", () => {
  const [near, far] = aPair();
  const before = openDescriptors();
  const baton = aBaton();
  expect(openDescriptors()).toBe(before + 1); // nobody could put a second byte in
  expect([1, 2, 3].map(() => native().takeBaton(baton))).toEqual([true, false, false]);
  for (let taker = 0; taker < 3; taker++) {
    const other = aBaton();
    send(near, "batons", [other, other]);
    const all = [other, ...receive(far).descriptors];
    expect(all.map((_, index) => native().takeBaton(all[(index + taker) % 3] ?? -1))).toEqual([true, false, false]);
  }
  const last = aBaton();
  send(near, "baton", [last]);
  native().closeFile(last);
  const [copy = -1] = receive(far).descriptors;
  expect([1, 2].map(() => native().takeBaton(copy))).toEqual([true, false]);
});

it("has a baton taken after its maker was killed", async () => {
  const path = aPath();
  const listener = socket("listenLocal", path);
  const peer = await startPeer();
  const near = await peer.call("connectLocal", path);
  const far = accept(listener);
  const [kept, taken] = [await peer.call("makeBaton"), await peer.call("makeBaton")];
  expect(await peer.call("sendLocal", near, { text: "batons" }, [kept, taken])).toBe(6);
  expect(await peer.call("takeBaton", taken)).toBe(true);
  await peer.kill();
  const { descriptors } = receive(far);
  expect(descriptors.map((baton) => native().takeBaton(baton))).toEqual([true, false]);
  expect(descriptors.map((baton) => native().takeBaton(baton))).toEqual([false, false]);
});

it("gives each baton to one of eight threads that reach for it at once", async () => {
  const [THREADS, ROUNDS] = [8, MOST_DESCRIPTORS];
  const work = `
    const { workerData, parentPort } = require("node:worker_threads");
    const { root, path, threads, gate } = workerData;
    const native = require("node-gyp-build")(root);
    const near = native.connectLocal(path);
    native.awaitSocket(near, () => {
      const { descriptors } = native.receiveLocal(near);
      parentPort.postMessage(descriptors.map((baton, round) => {
        if (Atomics.add(gate, 0, 1) === (round + 1) * threads - 1) {
          Atomics.store(gate, 1, round + 1);
          Atomics.notify(gate, 1);
        } else Atomics.wait(gate, 1, round);
        Atomics.add(gate, 2, 1);
        while (Atomics.load(gate, 2) < round * threads + 2); // two of them on their way in the same moment
        return native.takeBaton(baton);
      }));
    });
    parentPort.once("message", () => {}); // until it is terminated
  `;
  const path = aPath();
  const listener = socket("listenLocal", path);
  const gate = new Int32Array(new SharedArrayBuffer(12));
  const workerData = { root: ROOT, path, threads: THREADS, gate };
  const workers = Array.from({ length: THREADS }, () => new Worker(work, { eval: true, workerData }));
  onTestFinished(async () => void (await Promise.all(workers.map((worker) => worker.terminate()))));
  const results = workers.map(
    (worker) =>
      new Promise<unknown[]>((resolve, reject) =>
        worker.once("message", resolve).once("error", reject).once("exit", reject),
      ),
  );
  const batons = Array.from({ length: ROUNDS }, aBaton);
  for (let thread = 0; thread < THREADS; thread++) {
    await comes(listener);
    expect(send(accept(listener), "go", batons)).toBe(2);
  }
  const taken = await Promise.all(results);
  for (let round = 0; round < ROUNDS; round++) {
    const here = taken.map((each) => each[round]).sort();
    expect(here).toEqual([...Array(THREADS - 1).fill(false), true]);
  }
});

it("gives each baton to one of four processes", async () => {
  const PROCESSES = 4;
  const path = aPath();
  const listener = socket("listenLocal", path);
  const batons = Array.from({ length: MOST_DESCRIPTORS }, aBaton);
  const peers = await Promise.all(Array.from({ length: PROCESSES }, () => startPeer()));
  const received: number[][] = [];
  for (const peer of peers) {
    const near = await peer.call("connectLocal", path);
    send(accept(listener), "batons", batons);
    received.push((await peer.call("receiveLocal", near)).descriptors);
  }
  const taken: boolean[][] = await Promise.all(peers.map((peer, index) => peer.call("takeEach", received[index])));
  for (let round = 0; round < batons.length; round++) {
    const here = taken.map((each) => each[round]).sort();
    expect(here).toEqual([...Array(PROCESSES - 1).fill(false), true]);
  }
  for (const baton of batons) expect(native().takeBaton(baton)).toBe(false);
});

it("forgets a socket whose number another one has, because somebody has closed it behind our back", () => {
  const directory = temporaryDirectory();
  const lost = native().listenLocal(join(directory, "lost")) as number;
  expect(native().awaitSocket(lost, () => {})).toBeUndefined();
  closeSync(lost);
  const socket = native().listenLocal(join(directory, "socket")) as number;
  expect(socket).toBe(lost);
  expect(readdirSync(directory)).toEqual(["socket"]);
  expect(native().awaitSocket(socket, () => {})).toBeUndefined();
  native().closeSocket(socket);
  expect(readdirSync(directory)).toEqual([]);
});
