// A lock that the kernel refuses is never stolen, one that it grants is reclaimed from the dead only, and a refusal leaves nothing.

import { chmodSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { OwnerFields } from "../lib/lock/record.ts";
import { canUnshareMount, hasFlockCommand, hasIPv6, hasPython, itWhere } from "./support/capabilities.ts";
import {
  acquire,
  deadPid,
  expectNothingLeft,
  holdWithFlock,
  isPortFree,
  listenOn,
  lockFilesIn,
  recordOf,
  refusalOf,
  startTimeOf,
} from "./support/gateways.ts";
import { asOtherUser, canRunAsOtherUser, flockCommandGets } from "./support/locks.ts";
import { fixturePath, startFixture, startGateway, TestProcess } from "./support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "./support/temporary.ts";

const GRACE_LIMIT = 400; // ms: 100 ms of trying, and what a busy machine adds
const LETS_GO_AFTER = 30; // ms, within the time in which a refused lock is tried again
const YEARS_AGO = new Date("2001-01-01");

const itWithFlock = itWhere(hasFlockCommand, "there is no flock(1)");

/** A state directory with a lock file of somebody else's in it. */
function leftover(content: string | Buffer): { stateDir: string; lockPath: string } {
  const stateDir = temporaryDirectory();
  mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
  const lockPath = join(stateDir, "locks", "gateway.state.lock");
  writeFileSync(lockPath, content, { mode: 0o600 });
  return { stateDir, lockPath };
}

/** A state directory's locks, as a gateway names them. */
async function lockPathsOf(stateDir: string): Promise<string[]> {
  const gateway = await acquire({ stateDir, port: 0 });
  const paths = [...gateway.lockPaths];
  await gateway.close();
  return paths;
}

describe("rule 1: a held lock", () => {
  const hostile: [string, () => Promise<Partial<OwnerFields> & { pid: number }>][] = [
    ["a dead process", async () => ({ pid: await deadPid() })],
    ["another boot", async () => ({ pid: process.pid, bootId: "00000000-0000-0000-0000-000000000000" })],
    ["a recycled pid", async () => ({ pid: process.pid, startTime: 1 })],
    ["another pid namespace", async () => ({ pid: process.pid, pidNamespace: "1" })],
  ];
  itWithFlock("is never stolen, whatever its record and however old it is", async () => {
    for (const [what, fields] of hostile) {
      const { stateDir, lockPath } = leftover(recordOf({ ...(await fields()), port: await freePort() }));
      utimesSync(lockPath, YEARS_AGO, YEARS_AGO);
      const before = readFileSync(lockPath);
      const holder = await holdWithFlock(lockPath);
      const error = await refusalOf({ stateDir, port: await freePort() });
      expect(error, what).toMatchObject({
        code: "ALREADY_RUNNING",
        message: `gateway already running (pid ${holder.pid}); lock timeout after 0ms`,
        retryable: true,
        exitCode: 75,
        lockPath,
      });
      expect(readFileSync(lockPath).equals(before), what).toEqual(true);
      await holder.kill();
    }
  });

  itWithFlock("is found on the lock file, on the state directory, and on the config's lock file", async () => {
    const stateDir = temporaryDirectory();
    const paths = [stateDir, ...(await lockPathsOf(stateDir))];
    expect(paths).toHaveLength(3);
    for (const path of paths) {
      const holder = await holdWithFlock(path);
      const error = await refusalOf({ stateDir, port: await freePort() });
      expect(error, path).toMatchObject({
        code: "ALREADY_RUNNING",
        message: `gateway already running (pid ${holder.pid}); lock timeout after 0ms`,
      });
      await holder.kill();
      expect(flockCommandGets(stateDir)).toBe("granted");
    }
  });

  itWithFlock(
    "is refused with the holder's pid, not the record's, where the recorded process does not listen",
    async () => {
      const { stateDir, lockPath } = leftover(recordOf({ pid: process.pid, port: await freePort() }));
      const holder = await holdWithFlock(lockPath);
      const started = performance.now();
      const error = await refusalOf({ stateDir, port: await freePort() });
      expect(error.message).toBe(`gateway already running (pid ${holder.pid}); lock timeout after 0ms`);
      expect(error).toMatchObject({ owner: { pid: process.pid } });
      expect(performance.now() - started).toBeLessThan(GRACE_LIMIT);
    },
  );

  itWithFlock("is taken where the holder lets go before the time for trying again is over", async () => {
    const { stateDir, lockPath } = leftover("");
    const holder = await holdWithFlock(lockPath);
    const timer = setTimeout(() => void holder.kill(), LETS_GO_AFTER);
    onTestFinished(() => clearTimeout(timer));
    const gateway = await acquire({ stateDir, port: await freePort() });
    expect(gateway.owner.pid).toBe(process.pid);
  });

  it("is refused with ALREADY_LISTENING and the owner's address, though the contender wants another port", async () => {
    const stateDir = temporaryDirectory();
    const port = await freePort();
    const owner = startGateway({ stateDir, port, scheme: "wss" });
    await owner.next("serving");
    const error = await refusalOf({ stateDir, port: await freePort() });
    expect(error).toMatchObject({
      code: "ALREADY_LISTENING",
      message: `another gateway instance is already listening on wss://127.0.0.1:${port}`,
      port,
      owner: { pid: owner.pid },
      listener: { pid: owner.pid },
    });
  });

  itWithFlock("says after how long it gave up", async () => {
    const { stateDir, lockPath } = leftover("");
    const holder = await holdWithFlock(lockPath);
    const TIMEOUT = 60;
    const started = performance.now();
    const error = await refusalOf({ stateDir, port: await freePort(), timeout: TIMEOUT });
    expect(error.message).toBe(`gateway already running (pid ${holder.pid}); lock timeout after ${TIMEOUT}ms`);
    expect(performance.now() - started).toBeGreaterThanOrEqual(TIMEOUT);
  });
});

describe("rules 2 and 3: a free lock", () => {
  it.each([
    ["empty", ""],
    ["blank", " ".repeat(4096)],
    ["torn", '{"pid":1,"port":18'],
    ["with a wrong check", '{"pid":1,"port":1,"check":"0123456789abcdef"}'],
    ["foreign JSON", '["not","a","record"]'],
    ["of wrong types", '{"pid":"1","port":"x"}'],
    ["a plain pid", "1234\n"],
    ["binary", Buffer.from([0, 255, 254, 0, 128])],
    ["a megabyte", Buffer.alloc(2 ** 20, "x")],
  ])("is reclaimed where its record is %s", async (_, content) => {
    const { stateDir, lockPath } = leftover(content);
    const gateway = await acquire({ stateDir, port: 0 });
    const text = readFileSync(lockPath, "utf8");
    expect(JSON.parse(text)).toMatchObject({ pid: process.pid, ownerId: gateway.owner.ownerId });
    expect(text.length % 4096).toBe(0);
    await gateway.close();
    expect(lockFilesIn(stateDir)).toEqual([]);
  });

  const gone: [string, () => Promise<Partial<OwnerFields> & { pid: number }>][] = [
    ["a dead pid", async () => ({ pid: await deadPid() })],
    ["a recycled pid", async () => ({ pid: process.pid, startTime: startTimeOf(process.pid) + 1 })],
    ["another boot", async () => ({ pid: process.pid, bootId: "00000000-0000-0000-0000-000000000000" })],
    ["another pid namespace", async () => ({ pid: process.pid, pidNamespace: "1" })],
  ];
  it.each(gone)("is reclaimed from %s, though its port is busy", async (_, fields) => {
    const port = await freePort();
    await listenOn(port);
    const { stateDir, lockPath } = leftover(recordOf({ ...(await fields()), port }));
    const gateway = await acquire({ stateDir, port: 0 });
    expect(JSON.parse(readFileSync(lockPath, "utf8"))).toMatchObject({ ownerId: gateway.owner.ownerId });
  });

  it("is reclaimed from a live process whose port is free", async () => {
    const port = await freePort();
    const { stateDir } = leftover(recordOf({ pid: process.pid, startTime: startTimeOf(process.pid), port }));
    expect(await acquire({ stateDir, port })).toMatchObject({ port });
  });
});

describe("rule 4: a free lock whose recorded owner is alive and listens", () => {
  const records: [string, (pid: number, port: number) => Buffer | string][] = [
    ["whole", (pid, port) => recordOf({ pid, startTime: startTimeOf(pid), port })],
    ["without boot and pid namespace", (pid, port) => JSON.stringify({ pid, startTime: startTimeOf(pid), port })],
    ["an older program's, without start time", (pid, port) => `{"pid":${pid},"port":${port}}\n`],
    [
      "with null fields",
      (pid, port) => recordOf({ pid, startTime: null, bootId: null, pidNamespace: null, hostname: null, port }),
    ],
  ];
  itWhere(hasPython, "there is no python3")("is refused, and its lock file stays as it was", async () => {
    const port = await freePort();
    const server = new TestProcess("python3", ["-u", "-m", "http.server", String(port), "--bind", "127.0.0.1"]);
    await server.next("text");
    for (const [what, record] of records) {
      const { stateDir, lockPath } = leftover(record(server.pid, port));
      const before = readFileSync(lockPath);
      const descriptors = openDescriptors();
      const ownPort = await freePort();
      const error = await refusalOf({ stateDir, port: ownPort });
      expect(error, what).toMatchObject({
        code: "ALREADY_LISTENING",
        message: `another gateway instance is already listening on ws://127.0.0.1:${port}`,
        exitCode: 75,
        lockPath,
        owner: { pid: server.pid },
        listener: { pid: server.pid },
      });
      expect(readFileSync(lockPath).equals(before), what).toEqual(true);
      expect(openDescriptors(), what).toBe(descriptors);
      expectNothingLeft(stateDir, ["gateway.state.lock"]);
      expect(await isPortFree(ownPort)).toBe("free");
    }
    const { stateDir } = leftover(recordOf({ pid: server.pid, startTime: startTimeOf(server.pid), port }));
    await server.kill();
    expect(await acquire({ stateDir, port })).toMatchObject({ port });
  });
});

describe("a refusal leaves no descriptor, port, lock or lock file", () => {
  it("where a stranger listens on the port", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    await listenOn(port);
    await refusalOf({ stateDir: temporaryDirectory(), port });
    const descriptors = openDescriptors();
    const error = await refusalOf({ stateDir, port });
    expect(error).toMatchObject({
      code: "ALREADY_LISTENING",
      message: `another gateway instance is already listening on ws://127.0.0.1:${port}`,
      cause: { code: "EADDRINUSE" },
      listener: { pid: process.pid },
    });
    expect(openDescriptors()).toBe(descriptors);
    expectNothingLeft(stateDir);
  });

  it("where a stranger listens on the port, nor what a dead owner has left", async () => {
    const port = await freePort();
    await listenOn(port);
    const { stateDir } = leftover(recordOf({ pid: await deadPid(), port }));
    expect(await refusalOf({ stateDir, port })).toMatchObject({ code: "ALREADY_LISTENING" });
    expectNothingLeft(stateDir);
  });

  itWhere(hasIPv6, "there is no ::1")("where a rival listens on the guarded loopback", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    await listenOn(port, "::1");
    const descriptors = openDescriptors();
    const error = await refusalOf({ stateDir, port });
    expect(error.message).toBe(`another gateway instance is already listening on ws://[::1]:${port}`);
    expect(openDescriptors()).toBe(descriptors);
    expect(await isPortFree(port)).toBe("free");
    expectNothingLeft(stateDir);
  });

  it("where the second host's port is taken", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    await listenOn(port, "127.0.0.2");
    const descriptors = openDescriptors();
    const error = await refusalOf({ stateDir, port, host: ["127.0.0.1", "127.0.0.2"] });
    expect(error.message).toBe(`another gateway instance is already listening on ws://127.0.0.2:${port}`);
    expect(openDescriptors()).toBe(descriptors);
    expect(await isPortFree(port)).toBe("free");
    expectNothingLeft(stateDir);
  });

  it("where this host does not have the address", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const descriptors = openDescriptors();
    const error = await refusalOf({ stateDir, port, host: ["127.0.0.1", "192.0.2.1"] });
    expect(error).toMatchObject({ code: "BIND_FAILED", exitCode: 1, cause: { code: "EADDRNOTAVAIL" } });
    expect(error.message).toMatch(
      new RegExp(`^failed to bind gateway socket on ws://192\\.0\\.2\\.1:${port}: .*EADDRNOTAVAIL`),
    );
    expect(openDescriptors()).toBe(descriptors);
    expect(await isPortFree(port)).toBe("free");
    expectNothingLeft(stateDir);
  });

  itWithFlock("where the second lock is refused", async () => {
    const stateDir = temporaryDirectory();
    const [, configLock = ""] = await lockPathsOf(stateDir);
    const holder = await holdWithFlock(configLock);
    const descriptors = openDescriptors();
    await refusalOf({ stateDir, port: await freePort() });
    expect(openDescriptors()).toBe(descriptors);
    expectNothingLeft(stateDir, readdirSync(dirname(configLock)));
    expect(lockFilesIn(stateDir)).not.toContain("gateway.state.lock");
    await holder.kill();
  });

  itWithFlock("where a signal ends the wait", async () => {
    const { stateDir, lockPath } = leftover("");
    const holder = await holdWithFlock(lockPath);
    const descriptors = openDescriptors();
    const reason = new Error("enough");
    const { promise, abort } = waiting(stateDir, await freePort());
    abort(reason);
    await expect(promise).rejects.toBe(reason);
    expect(openDescriptors()).toBe(descriptors);
    await holder.kill();
    expectNothingLeft(stateDir, ["gateway.state.lock"]);
  });

  it("where the signal has aborted before the start", async () => {
    const stateDir = temporaryDirectory();
    const reason = new Error("enough");
    await expect(acquire({ stateDir, port: 0, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expectNothingLeft(stateDir);
  });

  const PAGE = 4096;
  for (const [what, room] of [
    ["no record", 0],
    ["one record of two", PAGE],
  ] as const) {
    itWhere(canUnshareMount, "no mount namespaces")(`where the disk has room for ${what}`, async () => {
      const [stateDir, port] = [temporaryDirectory(), await freePort()];
      const script =
        `mount -t tmpfs -o size=${2 * PAGE} tmpfs "$1" && head -c ${2 * PAGE - room} /dev/zero > "$1/filler" && ` +
        'exec "$2" "$3"';
      const contender = new TestProcess("unshare", [
        ...["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"],
        ...[stateDir, process.execPath, fixturePath("gateway-contender.mjs")],
      ]);
      await contender.next("loaded");
      contender.send(JSON.stringify({ command: "acquire", options: { stateDir, port } }));
      const refused = await contender.next("refused", "acquired");
      expect(refused).toMatchObject({ code: "LOCK_FAILED", exitCode: 1, cause: { code: "ENOSPC" } });
      expect(refused.descriptors).toBe(refused.before);
      const inside = join(`/proc/${contender.pid}/root`, stateDir);
      expect(readdirSync(inside).sort()).toEqual(["filler", "locks"]);
      expect(lockFilesIn(inside)).toEqual([]);
      expect(await isPortFree(port)).toBe("free");
    });
  }

  itWhere(canRunAsOtherUser, "only root can become another user")(
    "where this user may not write the lock directory",
    async () => {
      const stateDir = temporaryDirectory();
      mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
      chmodSync(stateDir, 0o755);
      const contender = startFixture("gateway-contender.mjs", {}, asOtherUser);
      await contender.next("loaded");
      const port = await freePort();
      contender.send(JSON.stringify({ command: "acquire", options: { stateDir, port } }));
      const refused = await contender.next("refused", "acquired");
      expect(refused).toMatchObject({ code: "LOCK_FAILED", exitCode: 1, cause: { code: "EACCES" } });
      expect(refused.message).toMatch(/^failed to acquire gateway lock at .*gateway\.state\.lock: /);
      expect(refused.descriptors).toBe(refused.before);
      expect(await isPortFree(port)).toBe("free");
      expectNothingLeft(stateDir);
    },
  );
});

/** A gateway that waits without end. */
function waiting(stateDir: string, port: number) {
  const controller = new AbortController();
  const promise = acquire({ stateDir, port, timeout: Infinity, signal: controller.signal });
  promise.catch(() => {});
  return { promise, abort: (reason: unknown) => controller.abort(reason) };
}
