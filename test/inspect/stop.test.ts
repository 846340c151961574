// Proves that stop ends the verified owner and nobody else, says what it found, and leaves alone whoever does not fit.

import { chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, vi } from "vitest";
import { inspectGateway } from "../../lib/inspect/status.ts";
import { stopGateway } from "../../lib/inspect/stop.ts";
import { native } from "../../lib/native.ts";
import type { GatewayOptions, StopOptions } from "../../lib/options.ts";
import { canUnshareNet, canUnshareUser, hasPython, hasStrace, isLinux, itWhere } from "../support/capabilities.ts";
import { acquire, deadPid, recordOf, startTimeOf } from "../support/gateways.ts";
import { reap, startElsewhere, startHolder, startReady, startStranger, traceOf } from "../support/inspections.ts";
import { asOtherUser, canRunAsOtherUser, OTHER_UID } from "../support/locks.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";
import { startPool, threadsOf, until } from "../support/waits.ts";

const it = itWhere(isLinux && hasPython, "needs Linux and Python");
const itWithOtherUser = itWhere(canRunAsOtherUser, "needs root, and a checkout that others may read");
const itWithStrace = itWhere(hasStrace, "needs strace");
/** Short, for those who will not go. ms */
const NOT_LONG = 150;

async function aGateway(): Promise<GatewayOptions & { port: number }> {
  return { stateDir: join(temporaryDirectory(), "state"), port: await freePort() };
}

function isAlive(pid: number): boolean {
  return typeof native().identifyProcess(pid) === "number";
}

it("ends a gateway by SIGTERM, and says how it knew it", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  const progress: string[] = [];
  const report = await stopGateway({ ...options, onProgress: (text) => progress.push(text) });
  expect(report).toEqual({
    ...{ outcome: "stopped", exitCode: 0, pids: [gateway.pid], signal: "SIGTERM", ms: expect.any(Number) },
    evidence: [
      `pid ${gateway.pid} holds the lock of ${options.stateDir}, by the kernel`,
      `the record names pid ${gateway.pid}, which is alive, and the same process`,
      expect.stringMatching(new RegExp(`^pid ${gateway.pid} \\(.*\\) listens on 127.0.0.1:${options.port}$`)),
      `sent SIGTERM to pid ${gateway.pid}`,
    ],
    next: expect.stringMatching(/a record is left at .*, and the next start takes it over/),
  });
  expect(progress).toEqual([`sent SIGTERM to pid ${gateway.pid}`]);
  expect(await gateway.exited).toMatchObject({ signal: "SIGTERM" });
  expect(await stopGateway(options)).toMatchObject({ outcome: "none", exitCode: 0, pids: [], signal: null });
});

it("has nothing to do where nothing runs, and changes nothing", async () => {
  const options = await aGateway();
  expect(await stopGateway(options)).toMatchObject({
    outcome: "none",
    exitCode: 0,
    next: expect.stringContaining("no gateway runs"),
  });
  mkdirSync(join(options.stateDir, "locks"), { recursive: true });
  writeFileSync(
    join(options.stateDir, "locks", "gateway.state.lock"),
    recordOf({ pid: await deadPid(), port: options.port }),
  );
  const before = traceOf(options.stateDir);
  expect(await stopGateway({ ...options, force: true })).toMatchObject({ outcome: "none", exitCode: 0, pids: [] });
  expect(traceOf(options.stateDir)).toEqual(before);
});

it("ends a gateway that starts and does not listen yet, and one that has no port", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  await owner.do("publish", { fields: { port: options.port, phase: "starting" } });
  expect(await stopGateway(options)).toMatchObject({ outcome: "stopped", pids: [owner.pid], signal: "SIGTERM" });
  expect(await owner.process.exited).toMatchObject({ signal: "SIGTERM" });
});

it("does not end who has no record: the next moment may bring it", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  const refused = await stopGateway({ ...options, force: true });
  expect(refused).toMatchObject({ outcome: "refused", exitCode: 1, pids: [] });
  expect(refused.next).toContain(`stop --force --pid ${owner.pid}`);
  expect(await stopGateway({ ...options, force: true, pid: owner.pid })).toMatchObject({
    outcome: "stopped",
    pids: [owner.pid],
  });
});

it("waits for a hung owner as long as it was told, and with force ends it", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  process.kill(gateway.pid, "SIGSTOP");
  const patient = await stopGateway({ ...options, timeout: NOT_LONG });
  expect(patient).toMatchObject({ outcome: "refused", exitCode: 1, pids: [gateway.pid], signal: "SIGTERM" });
  expect(patient.ms).toBeGreaterThanOrEqual(NOT_LONG);
  expect(patient.evidence.at(-1)).toBe(`after ${NOT_LONG}ms pid ${gateway.pid} is still there`);
  expect(patient.next).toContain("stop --force");
  expect(isAlive(gateway.pid)).toBe(true);

  const forced = await stopGateway({ ...options, force: true, timeout: NOT_LONG });
  expect(forced).toMatchObject({ outcome: "stopped", exitCode: 0, pids: [gateway.pid], signal: "SIGKILL" });
  expect(await gateway.exited).toMatchObject({ signal: "SIGKILL" });
});

itWhere(canUnshareUser && canUnshareNet, "needs user namespaces")(
  "ends a gateway in another network namespace only with force, because its port can't be compared",
  async () => {
    const options = await aGateway();
    const owner = await startElsewhere(options);
    await owner.do("publish", { fields: { port: options.port, phase: "ready" } });
    const refused = await stopGateway(options);
    expect(refused).toMatchObject({ outcome: "refused", pids: [] });
    expect(refused.next).toContain(`nsenter -t ${owner.pid} -n gateway-lock stop --state-dir`);
    expect(await stopGateway({ ...options, force: true })).toMatchObject({ outcome: "stopped", pids: [owner.pid] });
  },
);

it("says once that no gateway runs, and never of a file that nothing runs there", async () => {
  const options = await aGateway();
  expect((await stopGateway({ ...options, pid: process.pid })).next).toMatch(/on the port: no gateway runs$/);
  writeFileSync(options.stateDir, "");
  expect(await stopGateway(options)).toMatchObject({
    outcome: "refused",
    next: expect.stringContaining("is not a directory"),
  });
});

it("names a foreign listener and leaves it alone, unless force repeats its pid", async () => {
  const options = await aGateway();
  const stranger = await startStranger(options.port);
  for (const wish of [{}, { force: true }, { pid: stranger.pid }, { force: true, pid: process.pid }]) {
    const report = await stopGateway({ ...options, ...wish, timeout: NOT_LONG });
    expect(report).toMatchObject({ outcome: "refused", exitCode: 1, pids: [], signal: null });
    expect(report.evidence.join() + report.next).toMatch(new RegExp(`pid ${stranger.pid} \\(.*inspect-stranger`));
  }
  expect(isAlive(stranger.pid)).toBe(true);
  const wanted = { ...options, force: true, pid: stranger.pid };
  expect(await stopGateway(wanted)).toMatchObject({ outcome: "stopped", pids: [stranger.pid], signal: "SIGTERM" });
  expect(isAlive(stranger.pid)).toBe(false);
});

it("ends nobody where somebody else listens than the lock's holder, until it is told which", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  await owner.do("publish", { fields: { port: options.port } });
  const stranger = await startStranger(options.port);
  for (const force of [false, true]) {
    const report = await stopGateway({ ...options, force });
    expect(report).toMatchObject({ outcome: "refused", pids: [] });
    expect(report.next).toContain(`stop --force --pid ${stranger.pid}`);
  }
  expect(await stopGateway({ ...options, force: true, pid: owner.pid })).toMatchObject({
    outcome: "stopped",
    pids: [owner.pid],
  });
  expect([owner.pid, stranger.pid].map(isAlive)).toEqual([false, true]);
});

it("never signals a live stranger that the record names, because its pid was used again", async () => {
  const options = await aGateway();
  const innocent = new TestProcess("sleep", ["300"]);
  const owner = await startHolder(options);
  for (const fields of [
    { pid: innocent.pid, startTime: startTimeOf(innocent.pid) - 1 }, // gone, and its number is another's
    { pid: innocent.pid, startTime: startTimeOf(innocent.pid) },
    { pid: innocent.pid, startTime: null },
  ]) {
    await owner.do("publish", { fields: { ...fields, port: options.port } });
    expect(await stopGateway({ ...options, timeout: NOT_LONG })).toMatchObject({ outcome: "refused", pids: [] });
  }
  // Force is for those who hold the lock.
  await owner.do("publish", { fields: { pid: innocent.pid, startTime: 1, port: options.port } });
  expect(await stopGateway({ ...options, force: true })).toMatchObject({ outcome: "stopped", pids: [owner.pid] });
  // The lock is free now, and the record is still there.
  expect(await stopGateway({ ...options, force: true, pid: innocent.pid })).toMatchObject({
    outcome: "refused",
    pids: [],
  });
  expect(await stopGateway({ ...options, force: true })).toMatchObject({ outcome: "none", pids: [] });
  expect(isAlive(innocent.pid)).toBe(true);
});

it("takes a zombie for gone", async () => {
  const options = await aGateway();
  // cat never waits for the child that it inherits from the shell.
  const argument = JSON.stringify(options);
  const script = `"$0" "$1" "$2" </dev/zero >/dev/null & echo "{\\"event\\":\\"child\\",\\"pid\\":$!}"; exec cat`;
  const parent = new TestProcess("sh", ["-c", script, process.execPath, fixturePath("gateway.mjs"), argument]);
  const { pid } = await parent.next("child");
  reap(pid);
  await vi.waitUntil(async () => (await inspectGateway(options)).health?.ok, { timeout: 15_000 });
  expect(await stopGateway(options)).toMatchObject({ outcome: "stopped", pids: [pid], signal: "SIGTERM" });
  expect(readFileSync(`/proc/${pid}/stat`, "utf8")).toMatch(/\) Z /);
  expect(await stopGateway(options)).toMatchObject({ outcome: "none" });
});

it("ends a child that has inherited the lock only with force, after its parent", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  await owner.do("publish", { fields: { port: options.port } });
  const child = (await owner.do("inherit")).pid as number;
  reap(child);
  const gentle = await stopGateway({ ...options, timeout: NOT_LONG });
  expect(gentle).toMatchObject({ outcome: "refused", pids: [owner.pid], signal: "SIGTERM" });
  expect(gentle.evidence.at(-1)).toContain(`pid ${child} is still there`);
  await owner.process.exited;
  // Its parent is gone: the record proves nothing any more.
  const alone = await stopGateway({ ...options, timeout: NOT_LONG });
  expect(alone).toMatchObject({ outcome: "refused", pids: [] });
  expect(alone.next).toMatch(/inherited.*stop --force/);
  expect(isAlive(child)).toBe(true);
  expect(await stopGateway({ ...options, force: true })).toMatchObject({ outcome: "stopped", pids: [child] });
  expect(isAlive(child)).toBe(false);
});

it("ends owner and heirs with one call with force", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  await owner.do("publish", { fields: { port: options.port } });
  const child = (await owner.do("inherit")).pid as number;
  reap(child);
  const report = await stopGateway({ ...options, force: true, timeout: NOT_LONG });
  expect(report).toMatchObject({ outcome: "stopped", signal: "SIGKILL", pids: [owner.pid, child] });
  expect([owner.pid, child].map(isAlive)).toEqual([false, false]);
});

it("is content when another gateway has started since, and says so", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  const standby = startFixture("gateway.mjs", { ...options, timeout: 60_000 });
  await until(() => readFileSync("/proc/locks", "utf8").includes(`-> FLOCK  ADVISORY  WRITE ${standby.pid} `));
  const report = await stopGateway({ ...options, force: true });
  await standby.next("serving");
  expect(report).toMatchObject({ outcome: "stopped", pids: [gateway.pid] });
  expect(isAlive(standby.pid)).toBe(true);
});

it("refuses to end the very process that asks, and the gateway of another state directory", async () => {
  const options = await aGateway();
  await acquire(options);
  const own = await stopGateway({ ...options, force: true });
  expect(own).toMatchObject({ outcome: "refused", pids: [], next: expect.stringContaining("this very process") });

  const other = await aGateway();
  const configPath = join(temporaryDirectory(), "my.json");
  const gateway = await startReady({ ...other, configPath });
  const elsewhere = { ...(await aGateway()), configPath };
  const report = await stopGateway({ ...elsewhere, force: true });
  expect(report).toMatchObject({ outcome: "refused", pids: [] });
  expect(report.next).toContain(other.stateDir);
  expect(isAlive(gateway.pid)).toBe(true);
  const asOther = await startReady({
    ...(await aGateway()),
    locks: [elsewhere.stateDir].filter((path) => mkdirSync(path) === undefined),
  });
  expect((await stopGateway({ ...elsewhere, force: true })).outcome).toBe("refused");
  expect(isAlive(asOther.pid)).toBe(true);
});

itWithStrace("compares the start time and says so where there are no handles for processes", async () => {
  const options = await aGateway();
  for (const [error, signal] of [
    ["ENOSYS", "SIGTERM"],
    ["EPERM", "SIGKILL"],
  ] as const) {
    const gateway = await startReady(options);
    if (signal === "SIGKILL") process.kill(gateway.pid, "SIGSTOP");
    const inject = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=pidfd_open", "-e", `inject=pidfd_open:error=${error}`];
    const argument = JSON.stringify({ verb: "stop", options: { ...options, force: true, timeout: NOT_LONG * 4 } });
    const stopper = new TestProcess("strace", [...inject, process.execPath, fixturePath("inspect-once.mjs"), argument]);
    const { report } = await stopper.next("report");
    expect(report).toMatchObject({ outcome: "stopped", pids: [gateway.pid], signal });
    expect(report.evidence.join()).toContain(
      `sent ${signal} to pid ${gateway.pid} by its number, right after comparing its start time`,
    );
    expect(await gateway.exited).toMatchObject({ signal });
  }
});

async function asAnother(verb: string, options: StopOptions) {
  return (await startFixture("inspect-once.mjs", { verb, options }, asOtherUser).next("report")).report;
}

itWithOtherUser("stops a user's own gateway for that user and for root, and nobody else's", async () => {
  const base = temporaryDirectory();
  const { chmodSync } = await import("node:fs");
  chmodSync(base, 0o777);
  for (const stopper of ["user", "root"]) {
    const options = { stateDir: join(base, stopper), port: await freePort() };
    const gateway = startFixture("gateway.mjs", options, asOtherUser);
    await gateway.next("serving");
    const report = stopper === "root" ? await stopGateway(options) : await asAnother("stop", options);
    expect(report).toMatchObject({ outcome: "stopped", pids: [gateway.pid], signal: "SIGTERM" });
  }
  const options = { stateDir: join(base, "of-root"), port: await freePort() };
  const gateway = await startReady(options);
  chmodSync(options.stateDir, 0o755);
  chmodSync(join(options.stateDir, "locks"), 0o755);
  for (const wish of [{}, { force: true }, { force: true, pid: gateway.pid }]) {
    const report = await asAnother("stop", { ...options, ...wish });
    expect(report).toMatchObject({ outcome: "refused", pids: [] });
    expect(report.next).toContain("root");
  }
  expect(isAlive(gateway.pid)).toBe(true);
});

it("says in words that a process is another user's, where the kernel refuses the signal", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  const inject = [
    "-f",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=pidfd_send_signal",
    "-e",
    "inject=pidfd_send_signal:error=EPERM",
  ];
  const argument = JSON.stringify({ verb: "stop", options });
  const stopper = new TestProcess("strace", [...inject, process.execPath, fixturePath("inspect-once.mjs"), argument]);
  const { report } = await stopper.next("report");
  expect(report).toMatchObject({ outcome: "refused", pids: [], signal: null });
  expect(report.next).toContain("another user's");
  expect(isAlive(gateway.pid)).toBe(true);
});

it("is ended by its signal, after what was sent was sent, and leaves no descriptor and no thread", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  process.kill(gateway.pid, "SIGSTOP");
  await stopGateway({ ...options, timeout: 0 });
  await startPool();
  const before = { descriptors: openDescriptors(), threads: threadsOf() };
  const controller = new AbortController();
  const stopping = stopGateway({ ...options, signal: controller.signal, onProgress: () => controller.abort("enough") });
  await expect(stopping).rejects.toBe("enough");
  await until(() => openDescriptors() === before.descriptors && threadsOf() === before.threads);
  process.kill(gateway.pid, "SIGCONT");
  expect(await gateway.exited).toMatchObject({ signal: "SIGTERM" });
});

it("refuses options that mean nothing", async () => {
  const options = await aGateway();
  const wrong = (change: object) => stopGateway({ ...options, ...change } as StopOptions);
  for (const pid of [0, -1, 1.5]) await expect(wrong({ pid })).rejects.toMatchObject({ code: "ERR_OUT_OF_RANGE" });
  await expect(wrong({ pid: "1" })).rejects.toMatchObject({ code: "ERR_INVALID_ARG_TYPE" });
  await expect(wrong({ force: 1 })).rejects.toMatchObject({ code: "ERR_INVALID_ARG_TYPE" });
  await expect(wrong({ froce: true })).rejects.toThrow("did you mean 'force'");
});

itWithOtherUser(
  "leaves a holder alone that runs as another user than the directory's owner, who may have passed it the lock",
  async () => {
    const options = await aGateway();
    mkdirSync(options.stateDir, { mode: 0o700 });
    chownSync(options.stateDir, OTHER_UID, OTHER_UID);
    const gateway = await startReady(options); // as root
    for (const force of [false, true]) {
      const report = await stopGateway({ ...options, force });
      expect(report).toMatchObject({ outcome: "refused", pids: [] });
      expect(report.next).toContain(`pid ${gateway.pid} runs as another user than the owner of ${options.stateDir}`);
    }
    expect(isAlive(gateway.pid)).toBe(true);
    expect(await stopGateway({ ...options, force: true, pid: gateway.pid })).toMatchObject({ outcome: "stopped" });
  },
);
