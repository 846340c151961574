// Proves that what a process was started with is described, copied and readied, and that a lock is taken from nobody.

import { once } from "node:events";
import {
  closeSync,
  constants as fsConstants,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { constants } from "node:os";
import { dirname } from "node:path";
import { expect, onTestFinished } from "vitest";
import { isFailure, native } from "../../lib/native.ts";
import { type Caller, startCaller } from "../support/calls.ts";
import { hasFlockCommand, hasIPv6, hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { bound, connectTo } from "../support/listener-tools.ts";
import { flockCommandGets } from "../support/locks.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { aFile } from "../support/waits.ts";

const { EBADF, ENOTSOCK, EPROTOTYPE } = constants.errno;
const PASSED = 3;
const [NONBLOCK, CLOEXEC] = [fsConstants.O_NONBLOCK, 0o2000000];
const it = itWhere(isLinux, "needs procfs");
const itWithIPv6 = itWhere(isLinux && hasIPv6, "needs IPv6");
const itWithPython = itWhere(isLinux && hasPython, "needs python3");
const itWithFlock = itWhere(isLinux && hasFlockCommand, "needs flock(1)");

const startWith = (...passed: number[]): Promise<Caller> => startCaller([], {}, passed);

/** Runs a command with what `make`, a program in Python, leaves in `passed`. */
function passing(make: string): readonly string[] {
  const pass = `
import os, socket, sys
${make}
for number, each in enumerate(passed, ${PASSED}):
    os.dup2(each.fileno(), number + 100)
for number in range(${PASSED}, ${PASSED} + len(passed)):
    os.dup2(number + 100, number)
    os.set_inheritable(number, True)
    os.close(number + 100)
os.execvp(sys.argv[1], sys.argv[1:])
`;
  return ["python3", "-c", pass];
}

function open(path: string, flags = "r+"): number {
  const fd = openSync(path, flags);
  onTestFinished(() => closeSync(fd));
  return fd;
}

/** Ours, with its lock, until the test ends. */
function lock(path: string): number {
  const attempt = native().tryLockFile(path, false, false);
  if (typeof attempt !== "number") throw new Error(JSON.stringify(attempt));
  onTestFinished(() => native().closeFile(attempt));
  return attempt;
}

function socket(make: "listen" | "guard", host: string, dualStack = false): { fd: number; port: number } {
  const made = native()[make](host, 0, 5, dualStack);
  if (isFailure(made)) throw new Error(JSON.stringify(made));
  onTestFinished(() => native().closeSocket(made.fd));
  return made;
}

/** The O_… flags of a descriptor, as procfs has them. */
function flagsOf(pid: number, fd: number): number {
  return Number.parseInt(/^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1] ?? "", 8);
}

it("describes a listening socket and a guard, and takes neither", async () => {
  const [listening, guard] = [socket("listen", "127.0.0.1"), socket("guard", "127.0.0.1")];
  const caller = await startWith(listening.fd, guard.fd);
  const common = { address: "127.0.0.1", family: "IPv4", v6only: false, reusePort: false };
  const seen = await caller.call("describeSocket", PASSED);
  expect(seen).toEqual({ ...common, port: listening.port, listening: true });
  expect(await caller.call("describeSocket", PASSED + 1)).toEqual({ ...common, port: guard.port, listening: false });
  expect(await caller.call("describeSocket", PASSED)).toEqual(seen);
});

itWithIPv6("tells a socket for IPv6 alone from one for both families", async () => {
  const [both, one] = [socket("listen", "::", true), socket("listen", "::1")];
  const caller = await startWith(both.fd, one.fd);
  expect(await caller.call("describeSocket", PASSED)).toMatchObject({ address: "::", family: "IPv6", v6only: false });
  expect(await caller.call("describeSocket", PASSED + 1)).toMatchObject({ address: "::1", v6only: true });
});

itWithPython("says when others may listen beside it", async () => {
  const caller = await startCaller(
    passing(`
shared = socket.socket()
shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
shared.bind(("127.0.0.1", 0))
shared.listen()
passed = [shared]
`),
  );
  expect(await caller.call("describeSocket", PASSED)).toMatchObject({ reusePort: true, listening: true });
});

itWithPython("refuses what is no TCP socket", async () => {
  const caller = await startCaller(
    passing(`
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
unix = socket.socket(socket.AF_UNIX)
passed = [udp, unix, open("/dev/null")]
`),
  );
  for (const call of ["describeSocket", "adoptSocket"]) {
    expect(await caller.call(call, PASSED)).toMatchObject({ errno: EPROTOTYPE });
    expect(await caller.call(call, PASSED + 1)).toMatchObject({ errno: EPROTOTYPE });
    expect(await caller.call(call, PASSED + 2)).toMatchObject({ errno: ENOTSOCK });
    expect(await caller.call(call, 1000)).toMatchObject({ errno: EBADF });
  }
});

it("copies a socket: neither is inherited any further, and accept(2) waits as before for whoever else has it", async () => {
  const { fd, port } = socket("listen", "127.0.0.1");
  expect(native().lendSocket(fd)).toBeUndefined();
  expect(flagsOf(process.pid, fd) & NONBLOCK).toBe(0);
  const caller = await startWith(fd);
  expect(flagsOf(caller.pid, PASSED) & NONBLOCK).toBe(0);
  const adopted = await caller.call("adoptSocket", PASSED);
  expect(adopted).toMatchObject({ address: "127.0.0.1", family: "IPv4", port });
  for (const each of [PASSED, adopted.fd]) {
    expect(flagsOf(caller.pid, each) & (CLOEXEC | NONBLOCK)).toBe(CLOEXEC);
  }
  expect(await caller.call("lendSocket", adopted.fd)).toBeNull();
  expect(flagsOf(caller.pid, adopted.fd) & NONBLOCK).toBe(0);
  expect(await caller.call("closeSocket", adopted.fd)).toBeNull();
  expect(await caller.call("describeSocket", PASSED)).toMatchObject({ port, listening: true });
  expect(await caller.call("lendSocket", adopted.fd)).toMatchObject({ errno: EBADF });
});

itWithPython("lets a successor in at once, although whoever made the socket did not think of it", async () => {
  // The kernel chooses a port without dead connections of others on it.
  const strict = `
strict = socket.socket()
strict.bind(("127.0.0.1", 0))
strict.listen()
passed = [strict]
`;
  const echo = `
const { createServer } = require("node:net");
const native = require("node-gyp-build")(${JSON.stringify(fixturePath("../.."))});
if (process.argv[1] === "adopt") native.adoptSocket(${PASSED});
const server = createServer((socket) => socket.pipe(socket)).listen({ fd: ${PASSED} }, () =>
  console.log(JSON.stringify({ event: "serving", port: server.address().port })));
`;
  const serve = async (how: string) => {
    const [python = "", ...args] = passing(strict);
    const gateway = new TestProcess(python, [...args, process.execPath, "-e", echo, how], {
      cwd: fixturePath("../.."),
    });
    const { port } = await gateway.next("serving");
    const client = await connectTo({ port, host: "127.0.0.1" });
    client.write("hello");
    await once(client, "data");
    await gateway.kill();
    return { host: "127.0.0.1", port };
  };
  bound(await serve("adopt"));
  // And that is what it is for: the kernel goes by what the listener had when the client came.
  const left = await serve("leave");
  expect(() => bound(left)).toThrow("already listening");
});

itWithFlock("copies a lock from whoever started it: both have it, and it ends with the last of them", async () => {
  const path = aFile();
  const fd = native().tryLockFile(path, false, false) as number;
  const caller = await startWith(fd);
  expect(await caller.call("adoptLock", PASSED, path, true)).toMatchObject({ status: "locked", empty: true });
  native().closeFile(fd);
  expect(flockCommandGets(path)).toBe("refused");
  await caller.kill();
  expect(flockCommandGets(path)).toBe("granted");
});

itWithFlock("copies the lock of a directory, whatever test is asked for", async () => {
  const path = temporaryDirectory();
  const fd = native().tryLockDirectory(path, false) as number;
  const caller = await startWith(fd);
  native().closeFile(fd);
  expect(await caller.call("adoptLock", PASSED, path, true)).toMatchObject({ status: "locked" });
  expect(flockCommandGets(path)).toBe("refused");
});

it("does not take somebody else's lock for its own, and leaves it to them", async () => {
  const path = aFile();
  lock(path);
  const caller = await startWith(open(path));
  expect(await caller.call("adoptLock", PASSED, path, true)).toEqual({ status: "held" });
  expect(await caller.call("tryLockFile", path, false, false)).toEqual({ status: "held" });
});

itWithFlock("locks what nobody has locked, and keeps it", async () => {
  const path = aFile();
  writeFileSync(path, "");
  const caller = await startWith(open(path));
  expect(await caller.call("adoptLock", PASSED, path, true)).toMatchObject({ status: "locked" });
  expect(flockCommandGets(path)).toBe("refused");
});

itWithFlock("does not lock what is another file than the one at the path", async () => {
  const path = aFile();
  writeFileSync(path, "");
  const caller = await startWith(open(path));
  renameSync(path, `${path}.moved`);
  expect(await caller.call("adoptLock", PASSED, path, true)).toEqual({ status: "replaced" });
  writeFileSync(path, "");
  expect(await caller.call("adoptLock", PASSED, path, true)).toEqual({ status: "replaced" });
  expect(flockCommandGets(`${path}.moved`)).toBe("granted");
  rmSync(dirname(path), { recursive: true });
  expect(await caller.call("adoptLock", PASSED, path, true)).toEqual({ status: "replaced" });
});

it("refuses a file whose record it could not write, and what is no file", async () => {
  const path = aFile();
  writeFileSync(path, "");
  const caller = await startWith(open(path, "r"), open(path, "a+"), open("/dev/null"));
  for (const fd of [PASSED, PASSED + 1, PASSED + 2]) {
    expect(await caller.call("adoptLock", fd, path, true)).toMatchObject({ errno: EBADF, syscall: "fcntl" });
  }
  expect(await caller.call("adoptLock", 1000, path, true)).toMatchObject({ errno: EBADF });
  expect(await caller.call("tryLockFile", path, false, false)).toEqual(expect.any(Number));
});
