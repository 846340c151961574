// Proves that every verdict follows from what is really there, that a look changes nothing, and that it says so where it can't see.

import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { expect } from "vitest";
import { inspectGateway } from "../../lib/inspect/status.ts";
import type { GatewayOptions, InspectOptions } from "../../lib/options.ts";
import {
  canUnshareNet,
  canUnshareUser,
  hasFlockCommand,
  hasIPv6,
  hasPython,
  isLinux,
  isRoot,
  itWhere,
} from "../support/capabilities.ts";
import { acquire, deadPid, listenOn, recordOf, startTimeOf } from "../support/gateways.ts";
import { inspect, startElsewhere, startHolder, startReady, startStranger } from "../support/inspections.ts";
import { asOtherUser, canRunAsOtherUser, flockCommandGets, seesAllLocks } from "../support/locks.ts";
import { fixturePath, startFixture, startGateway, TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux && hasPython, "needs Linux and Python");
const itOnTwoFamilies = itWhere(hasIPv6 && hasPython, "needs IPv6 and Python");
const itWithOtherUser = itWhere(canRunAsOtherUser, "needs root, and a checkout that others may read");
const itWithNamespaces = itWhere(canUnshareUser && canUnshareNet, "needs user namespaces");

async function aGateway(change: Partial<GatewayOptions> = {}): Promise<GatewayOptions & { port: number }> {
  return { stateDir: join(temporaryDirectory(), "state"), ...change, port: await freePort() };
}

/** With a record that a process which is gone has left. */
async function aStaleGateway(change: Partial<GatewayOptions> = {}) {
  const options = await aGateway(change);
  const gateway = await startReady(options);
  await gateway.kill();
  return { ...options, pid: gateway.pid };
}

it("says free where there is nothing, and makes nothing", async () => {
  const options = await aGateway();
  const base = join(options.stateDir, "..");
  for (const [stateDir, make] of [
    [options.stateDir, false],
    [join(base, "empty"), true],
  ] as const) {
    if (make) mkdirSync(stateDir);
    expect(await inspect({ ...options, stateDir })).toEqual({
      ...{ verdict: "free", exitCode: 3, next: expect.stringContaining("no gateway runs") },
      lock: { paths: [expect.stringContaining(`${stateDir}/locks/`), expect.anything()], locked: false, holders: [] },
      ...{ owner: null, listener: [], health: null },
    });
  }
});

it("says expected of a gateway that has its lock, listens and is well, and who it is", async () => {
  const options = await aGateway();
  const gateway = startGateway(options);
  const { owner, lockPaths } = await gateway.next("acquired");
  await gateway.next("serving");
  expect(await inspect({ ...options, requireHealth: true })).toEqual({
    ...{ verdict: "expected", exitCode: 0, next: expect.stringContaining(`pid ${gateway.pid}`) },
    lock: { paths: lockPaths, locked: true, holders: [gateway.pid] },
    owner: { ...owner, phase: "listening" },
    listener: [
      { address: "127.0.0.1", port: options.port, pid: gateway.pid, command: expect.stringContaining("gateway.mjs") },
    ],
    health: { ok: true, status: 200, ms: expect.any(Number), error: null },
  });
});

it("finds a gateway by its record, on whatever port it is, and whatever port was given", async () => {
  const { port: _, ...options } = await aGateway();
  const gateway = await startReady({ ...options, port: 0 });
  for (const given of [{}, { port: 0 }, { port: await freePort() }, { port: gateway.port }, { host: "::1" }])
    expect(await inspect({ ...options, ...given, requireHealth: true })).toMatchObject({
      ...{ verdict: "expected", exitCode: 0 },
      listener: [{ port: gateway.port, pid: gateway.pid }],
    });
});

itOnTwoFamilies("shows every address that the gateway listens on", async () => {
  const options = await aGateway({ host: "localhost" });
  const gateway = await startReady(options);
  const { verdict, listener } = await inspect(options);
  expect(verdict).toBe("expected");
  expect(listener.map(({ address, pid }) => `${address} ${pid}`).sort()).toEqual([
    `127.0.0.1 ${gateway.pid}`,
    `::1 ${gateway.pid}`,
  ]);
});

it("says starting while the lock is held and nobody listens, whether there is a record yet or not", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  const starting = { verdict: "starting", exitCode: 0, lock: { locked: true, holders: [owner.pid] }, health: null };
  expect(await inspect(options)).toMatchObject({ ...starting, owner: null });
  await owner.do("publish", { fields: { port: options.port, phase: "starting" } });
  expect(await inspect(options)).toMatchObject({ ...starting, owner: { pid: owner.pid, phase: "starting" } });
  expect(await inspect({ ...options, requireHealth: true })).toMatchObject({ verdict: "starting", exitCode: 1 });
  await owner.do("publish", { fields: { port: options.port, phase: "stopping" } });
  expect((await inspect(options)).next).toContain("wait --for free");
});

it("says starting, not stale, of an owner whose lock files were wiped a moment ago", async () => {
  const options = await aGateway();
  await startHolder(options);
  rmSync(join(options.stateDir, "locks"), { recursive: true });
  expect(await inspect(options)).toMatchObject({ verdict: "starting", lock: { locked: true } });
});

it("says unhealthy of a gateway that hangs, which only counts as a failure where health is required", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  process.kill(gateway.pid, "SIGSTOP");
  const health = { timeout: 200 };
  const hung = { verdict: "unhealthy", owner: { pid: gateway.pid }, health: { ok: false, status: null } };
  expect(await inspect({ ...options, health })).toMatchObject({ ...hung, exitCode: 0 });
  const required = await inspect({ ...options, health, requireHealth: true });
  expect(required).toMatchObject({ ...hung, exitCode: 1 });
  expect(required.next).toMatch(/within 200ms.*stop --force/);
  process.kill(gateway.pid, "SIGCONT");
  expect(await inspect({ ...options, requireHealth: true })).toMatchObject({ verdict: "expected" });
});

it("takes a server without a health endpoint for expected, unless health is required", async () => {
  const options = await aGateway();
  const gateway = await acquire(options);
  await gateway.listen(createServer((_, response) => response.writeHead(404).end()));
  const health = { ok: false, status: 404 };
  expect(await inspect(options)).toMatchObject({ verdict: "expected", exitCode: 0, health });
  expect(await inspect({ ...options, requireHealth: true })).toMatchObject({
    verdict: "unhealthy",
    exitCode: 1,
    health,
  });
});

it("asks the user's own check instead, where there is one", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  const asked: unknown[] = [];
  const check = (answer: boolean) => (target: { url: string; owner: { pid: number } }) => {
    asked.push([target.url, target.owner.pid]);
    return answer;
  };
  expect(await inspect({ ...options, health: { check: check(false) } })).toMatchObject({ verdict: "unhealthy" });
  expect(await inspect({ ...options, health: { check: check(true) } })).toMatchObject({ verdict: "expected" });
  expect(new Set(asked.map(String))).toEqual(new Set([`http://127.0.0.1:${options.port}/healthz,${gateway.pid}`]));
});

it("says stale-record where a killed owner has left its record, or half of one", async () => {
  const { pid, ...options } = await aStaleGateway();
  const stale = {
    verdict: "stale-record",
    exitCode: 3,
    lock: { locked: false, holders: [] },
    listener: [],
    health: null,
  };
  expect(await inspect(options)).toMatchObject({ ...stale, owner: { pid } });
  const { port: _, ...withoutPort } = options;
  const report = await inspect(withoutPort);
  expect(report).toMatchObject({ ...stale, owner: { pid } });
  expect(report.next).toMatch(new RegExp(`takes over .*/locks/gateway.state.lock, which pid ${pid}, which is gone`));

  rmSync(join(options.stateDir, "locks"), { recursive: true });
  mkdirSync(join(options.stateDir, "locks"));
  writeFileSync(join(options.stateDir, "locks", "gateway.state.lock"), '{"pid":1');
  expect(await inspect(options)).toMatchObject({ ...stale, owner: null });
  writeFileSync(join(options.stateDir, "locks", "gateway.state.lock"), "");
  expect(await inspect(options)).toMatchObject({ verdict: "free" });
});

it("says foreign-listener, and names it, where somebody listens and nobody has the lock", async () => {
  const { pid: _, ...options } = await aStaleGateway();
  const stranger = await startStranger(options.port, { host: "0.0.0.0" });
  const foreign = {
    ...{ verdict: "foreign-listener", exitCode: 1, lock: { locked: false }, health: null },
    listener: [
      {
        address: "0.0.0.0",
        port: options.port,
        pid: stranger.pid,
        command: expect.stringContaining("inspect-stranger.py"),
      },
    ],
  };
  const report = await inspect(options);
  expect(report).toMatchObject(foreign);
  expect(report.next).toContain(`pid ${stranger.pid} (`);
  expect(await inspect({ ...options, stateDir: join(options.stateDir, "another") })).toMatchObject(foreign);
  // Nobody has asked for a port: the record's is looked at.
  expect(await inspect({ stateDir: options.stateDir })).toMatchObject(foreign);
});

itOnTwoFamilies("looks at the other loopback too, as the guard would", async () => {
  const options = await aGateway();
  const stranger = await startStranger(options.port, { host: "::1" });
  const listener = [{ address: "::1", pid: stranger.pid }];
  expect(await inspect(options)).toMatchObject({ verdict: "foreign-listener", listener });
  expect(await inspect({ ...options, loopbackGuard: false })).toMatchObject({ verdict: "free", listener: [] });
});

it("says in words that an older program, which takes no lock, is the gateway of the record", async () => {
  const options = await aGateway();
  const stranger = await startStranger(options.port);
  mkdirSync(join(options.stateDir, "locks"), { recursive: true });
  const { pid, port } = { pid: stranger.pid, port: options.port };
  const record = recordOf({ pid, port, startTime: startTimeOf(pid), stateDir: options.stateDir });
  writeFileSync(join(options.stateDir, "locks", "gateway.state.lock"), record);
  // Another port was asked for; the record's is where its owner is.
  const report = await inspect({ ...options, port: await freePort() });
  expect(report).toMatchObject({ verdict: "foreign-listener", exitCode: 1, owner: { pid }, listener: [{ pid, port }] });
  expect(report.next).toContain("older program");
});

it("says split where the lock is held and another process listens", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  const stranger = await startStranger(options.port);
  const split = {
    ...{ verdict: "split", exitCode: 1, lock: { locked: true, holders: [owner.pid] }, health: null },
    listener: [{ pid: stranger.pid, port: options.port }],
  };
  expect(await inspect(options)).toMatchObject({ ...split, owner: null });
  await owner.do("publish", { fields: { port: options.port } });
  const report = await inspect(options);
  expect(report).toMatchObject({ ...split, owner: { pid: owner.pid } });
  expect(report.next).toMatch(new RegExp(`pid ${stranger.pid} .*none of the lock's holders \\(pid ${owner.pid}\\)`));
});

it("gives an inherited socket to the holder that has it too", async () => {
  const options = await aGateway();
  const script = `import os,sys,socket,fcntl,json
os.makedirs(sys.argv[1]); d=os.open(sys.argv[1],os.O_RDONLY); s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1",int(sys.argv[2]))); s.listen()
if os.fork()==0: os.close(d); sys.stdin.read(); os._exit(0)
if os.fork()==0: sys.stdin.read(); os._exit(0)
fcntl.flock(d,fcntl.LOCK_EX); print("held",flush=True); sys.stdin.read()`;
  const parent = new TestProcess("python3", ["-c", script, options.stateDir, String(options.port)]);
  await parent.next("text");
  const { verdict, listener, lock } = await inspect(options);
  expect(verdict).toBe("expected");
  expect(lock.holders).toContain(parent.pid);
  expect(lock.holders).toContain(listener[0]?.pid);
});

it("names the gateway of another state directory that has the config", async () => {
  const base = temporaryDirectory();
  const options = await aGateway({ configPath: join(base, "my.json") });
  const gateway = await startReady(options);
  const report = await inspect({ ...options, stateDir: join(base, "another") });
  expect(report).toMatchObject({ verdict: "expected", lock: { holders: [gateway.pid] } });
  expect(report.next).toContain(options.stateDir);
});

it("takes the options of acquireGateway as they are, and refuses others by name", async () => {
  const options: Required<Omit<GatewayOptions, "handover" | "lockDir" | "configPath">> = {
    ...{ ...(await aGateway()), host: ["127.0.0.1"], scheme: "ws", locks: [], reserve: [], timeout: 5 },
    ...{
      signal: new AbortController().signal,
      loopbackGuard: true,
      backlog: 1,
      metadata: {},
      allowNetworkFilesystem: false,
    },
  };
  expect(await inspect(options)).toMatchObject({ verdict: "free" });
  const rejection = (wrong: object) => inspectGateway({ ...options, ...wrong } as InspectOptions);
  await expect(rejection({ stateDirectory: "" })).rejects.toThrow("did you mean 'stateDir'");
  await expect(rejection({ requireHealth: 1 })).rejects.toMatchObject({ code: "ERR_INVALID_ARG_TYPE" });
  await expect(rejection({ health: { tiemout: 1 } })).rejects.toThrow("did you mean 'health.timeout'");
});

it("lets nothing from a record or a command line reach a terminal as a control character", async () => {
  const options = await aGateway({ stateDir: join(temporaryDirectory(), "odd \u001b[31m name") });
  const owner = await startHolder(options);
  const fields = {
    port: options.port,
    stateDir: "\u009b31m",
    hostname: "\u001b]0;",
    host: "\u001b",
    url: "ws://\u001b",
  };
  await owner.do("publish", { fields });
  await startStranger(options.port, { argument: "\u001b[31mred" });
  const { verdict, next, listener } = await inspect(options); // which looks at `next`
  expect(verdict).toBe("split");
  expect(next + listener[0]?.command).toContain("[31mred");
  expect(listener[0]?.command).not.toMatch(/\p{Cc}/u);
});

itWhere(hasFlockCommand, "needs flock(1)")("takes no lock, and leaves no descriptor", async () => {
  const { pid: _, ...options } = await aStaleGateway();
  await inspect(options);
  const before = openDescriptors();
  for (let look = 0; look < 20; look++) {
    const report = inspectGateway(options);
    expect(flockCommandGets(options.stateDir)).toBe("granted");
    await report;
  }
  expect(openDescriptors()).toBe(before);
});

/** What another user is told. */
async function asSeenByAnother(options: InspectOptions) {
  const { report } = await startFixture("inspect-once.mjs", { options }, asOtherUser).next("report");
  return report;
}

itWithOtherUser("says unknown to a user who sees neither the holder nor the record", async () => {
  const options = await aGateway();
  chmodSync(join(options.stateDir, ".."), 0o711);
  const gateway = await startReady(options);
  expect(await asSeenByAnother(options)).toMatchObject({
    ...{ verdict: "unknown", exitCode: 4, owner: null, next: expect.stringContaining("ask as root") },
    listener: [{ address: "127.0.0.1", port: options.port, pid: null, command: null }],
  });
  chmodSync(options.stateDir, 0o755);
  chmodSync(join(options.stateDir, "locks"), 0o755);
  expect(await asSeenByAnother(options)).toMatchObject({
    ...{ verdict: "unknown", lock: { locked: true, holders: [] }, owner: null, health: null },
    next: expect.stringMatching(/held by a process that this user may not see/),
  });
  // With the record it can be asked, and its answer is proof.
  for (const path of await lockPathsOf(options)) chmodSync(path, 0o644);
  expect(await asSeenByAnother({ ...options, requireHealth: true })).toMatchObject({
    ...{ verdict: "expected", exitCode: 0, owner: { pid: gateway.pid }, health: { ok: true } },
    lock: { locked: true, holders: [] },
    listener: [{ pid: null }],
  });
});

itWhere(canRunAsOtherUser && seesAllLocks, "needs root in the initial pid namespace")(
  "says unknown, not starting, where the record that has the port can't be read",
  async () => {
    const { port: _, ...options } = await aGateway();
    chmodSync(join(options.stateDir, ".."), 0o711);
    await startReady({ ...options, port: await freePort() });
    for (const given of [{}, { port: await freePort() }])
      expect(await asSeenByAnother({ ...options, ...given })).toMatchObject({
        ...{ verdict: "unknown", exitCode: 4, lock: { locked: true, holders: [] }, listener: [] },
        next: expect.stringMatching(/its port stands in a record that this user can't read \(EACCES/),
      });
  },
);

async function lockPathsOf(options: InspectOptions): Promise<readonly string[]> {
  return (await inspectGateway(options)).lock.paths;
}

itWithOtherUser("says unknown, not starting or split, of what a hidden process listens on", async () => {
  const options = await aGateway();
  chmodSync(join(options.stateDir, ".."), 0o777);
  const stranger = await startStranger(options.port);
  expect(await asSeenByAnother(options)).toMatchObject({ verdict: "foreign-listener", listener: [{ pid: null }] });
  const holder = startFixture("inspect-owner.mjs", { options }, asOtherUser);
  holder.send(JSON.stringify({ command: "lock" }));
  await holder.next("done");
  expect(await asSeenByAnother(options)).toMatchObject({ verdict: "unknown", lock: { holders: [holder.pid] } });
  expect(await inspect(options)).toMatchObject({ verdict: "split", listener: [{ pid: stranger.pid }] });
});

itWithOtherUser("says split to a user whose own process listens while a hidden one has the lock", async () => {
  const options = await aGateway();
  await startHolder(options);
  chmodSync(join(options.stateDir, ".."), 0o711);
  chmodSync(options.stateDir, 0o755);
  chmodSync(join(options.stateDir, "locks"), 0o755);
  const own = await startStranger(options.port, asOtherUser);
  expect(await asSeenByAnother(options)).toMatchObject({ verdict: "split", listener: [{ pid: own.pid }] });
});

itWithNamespaces(
  "says unknown from a pid namespace that shows nothing, and believes an answer with the owner's id",
  async () => {
    const options = await aGateway();
    const gateway = await startReady(options);
    const report = async (namespaces: string[]) => {
      const inNamespace = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", ...namespaces];
      const argument = JSON.stringify({ options });
      const looker = new TestProcess("unshare", [
        ...inNamespace,
        process.execPath,
        fixturePath("inspect-once.mjs"),
        argument,
      ]);
      return (await looker.next("report")).report;
    };
    expect(await report([])).toMatchObject({
      verdict: "expected",
      lock: { locked: null, holders: [] },
      health: { ok: true },
    });
    // Without its network, nobody can be asked.
    expect(await report(["--net"])).toMatchObject({
      verdict: "unknown",
      exitCode: 4,
      owner: { pid: gateway.pid },
      listener: [],
    });
    await gateway.kill();
    expect(await report([])).toMatchObject({ verdict: "unknown" });
  },
);

itWithNamespaces("says unknown, not starting, of a gateway in another network namespace", async () => {
  const options = await aGateway();
  const owner = await startElsewhere(options);
  await owner.do("publish", { fields: { port: options.port, phase: "ready" } });
  const unknown = { verdict: "unknown", exitCode: 4, lock: { holders: [owner.pid] } };
  const report = await inspect(options);
  expect(report).toMatchObject({ ...unknown, listener: [] });
  expect(report.next).toContain(`nsenter -t ${owner.pid} -n gateway-lock status --state-dir ${options.stateDir}`);
  // Who has the port here is in nobody's way there.
  await startStranger(options.port);
  expect(await inspect(options)).toMatchObject(unknown);
});

it("says unknown of a state directory that is none", async () => {
  const options = await aGateway();
  writeFileSync(options.stateDir, "");
  expect(await inspect(options)).toMatchObject({
    ...{ verdict: "unknown", exitCode: 4 },
    next: expect.stringContaining(`${options.stateDir} is not a directory`),
  });
});

it("has one wait for a gateway that has its port and has not said that it is ready", async () => {
  const options = await aGateway();
  const gateway = startGateway(options);
  await gateway.next("serving");
  process.kill(gateway.pid, "SIGSTOP");
  const { verdict, next } = await inspect({ ...options, health: { timeout: 200 } });
  expect(verdict).toBe("unhealthy");
  expect(next).toMatch(/has not said that it is ready yet \(.*within 200ms\): wait by `gateway-lock wait --for ready /);
});

itWhere(isRoot, "needs root")("looks at both places of a config's lock, and shows the one that is used", async () => {
  const base = temporaryDirectory();
  chmodSync(base, 0o711);
  const config = join(base, "config");
  mkdirSync(config);
  const stateDir = join(base, "state");
  mkdirSync(stateDir);
  chmodSync(stateDir, 0o777);
  const options = await aGateway({ stateDir, configPath: join(config, "my.json") });
  const gateway = startFixture("inspect-owner.mjs", { options }, asOtherUser);
  gateway.send(JSON.stringify({ command: "lock" }));
  await gateway.next("done");
  const { lock, verdict } = await inspect(options);
  expect(verdict).toBe("starting");
  expect(lock.paths.map((path) => path.startsWith(join(stateDir, "locks")))).toEqual([true, true]);
  expect(lock.paths.map((path) => readFileSync(path, "utf8"))).toEqual(["", ""]);
});

it("sees a gateway that holds only a lock which was asked for by `locks`", async () => {
  const workspace = temporaryDirectory();
  const first = await aGateway({ locks: [workspace] });
  const owner = await startHolder(first);
  const second = await aGateway({ locks: [workspace] });
  expect(await inspect(second)).toMatchObject({ verdict: "starting", lock: { holders: [owner.pid] } });
});

it("takes a pid in a record for nothing without its start time", async () => {
  const options = await aGateway();
  mkdirSync(join(options.stateDir, "locks"), { recursive: true });
  const path = join(options.stateDir, "locks", "gateway.state.lock");
  const { pid, port } = { pid: process.pid, port: await freePort() };
  writeFileSync(path, recordOf({ pid, port, startTime: startTimeOf(pid) - 1 }));
  await listenOn(port);
  // It is gone, so that the port of its record is of no interest where another one was asked for.
  expect(await inspect(options)).toMatchObject({ verdict: "stale-record", listener: [] });
  writeFileSync(path, recordOf({ pid: await deadPid(), port, startTime: null }));
  expect(await inspect({ stateDir: options.stateDir })).toMatchObject({ verdict: "foreign-listener" });
});
