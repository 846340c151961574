// What happens to a claim is told on its channels, once, in order and with the facts, and costs nothing where nobody listens.

import { channel, subscribe, unsubscribe } from "node:diagnostics_channel";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, expectTypeOf, it, onTestFinished } from "vitest";
import { acquireGateway } from "../lib/acquire.ts";
import { Chronicle } from "../lib/diagnostics.ts";
import type { Gateway } from "../lib/gateway.ts";
import type { GatewayLockChannel, GatewayLockEvent, GatewayLockMessage } from "../lib/index.ts";
import { bindExclusive } from "../lib/listener/claim.ts";
import { readOwner } from "../lib/lock/record.ts";
import type { GatewayOptions } from "../lib/options.ts";
import { hasFlockCommand, isLinux, itWhere } from "./support/capabilities.ts";
import { acquire, expectNothingLeft, holdWithFlock, listenOn, lockFilesIn, refusalOf } from "./support/gateways.ts";
import { flockCommandGets } from "./support/locks.ts";
import { showTimes } from "./support/measures.ts";
import { startFixture, startGateway } from "./support/processes.ts";
import { hashedLock, STATE_LOCK } from "./support/resources.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

const itWithFlock = itWhere(isLinux && hasFlockCommand, "there is no flock(1)");
const itWithProc = itWhere(isLinux && hasFlockCommand, "there is no flock(1), or no procfs");

const HOLD = 60; // ms for which a claim or a wait lasts, so that its beginning can't be mistaken for its end
const EARLY = 2; // ms by which a timer may fire before its time
const PATIENCE = { timeout: 15_000, interval: 1 }; // ms; only reached when something is wrong

const EVENTS = ["acquire", "refused", "wait", "takeover", "handover", "lost", "release"] as const;

interface Told {
  readonly event: GatewayLockEvent;
  readonly message: GatewayLockMessage;
  /** When its subscriber was called. */
  readonly at: number;
}

/** All that is told until the test ends. */
function listen(): Told[] {
  const told: Told[] = [];
  for (const event of EVENTS) {
    on(event, (message) => told.push({ event, message, at: performance.now() }));
  }
  return told;
}

function on(event: GatewayLockEvent, action: (message: GatewayLockMessage) => void): () => void {
  const name: GatewayLockChannel = `gateway-lock:${event}`;
  const subscriber = (message: unknown) => action(message as GatewayLockMessage);
  subscribe(name, subscriber);
  const stop = () => void unsubscribe(name, subscriber);
  onTestFinished(stop);
  return stop;
}

function eventsOf(told: readonly Told[]): string[] {
  return told.map(({ event }) => event);
}

function only(told: readonly Told[], event: GatewayLockEvent): Told {
  const [first, ...further] = told.filter((one) => one.event === event);
  expect(further, `more than one '${event}'`).toEqual([]);
  if (first === undefined) throw new Error(`no '${event}'`);
  return first;
}

/** What must be in every message of one claim or attempt. */
function facts(options: { stateDir: string; port: number; host?: string }): object {
  const { stateDir, port, host = "127.0.0.1" } = options;
  return {
    lockPaths: [join(stateDir, "locks", STATE_LOCK), join(stateDir, "locks", hashedLock("gateway.json"))],
    host,
    port,
    pid: process.pid,
    ownerId: expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/),
    durationMs: expect.any(Number),
  };
}

/** The message says how much time has passed between two moments that lie within these bounds. */
function expectDuration({ message, at }: Told, from: { earliest: number }, lasted: { atLeast: number }): void {
  expect(message.durationMs).toBeLessThanOrEqual(at - from.earliest);
  expect(message.durationMs).toBeGreaterThanOrEqual(lasted.atLeast);
}

function getsPort(port: number): boolean {
  try {
    bindExclusive({ port }).close();
    return true;
  } catch {
    return false;
  }
}

/** The files below `directory` that this process has open: in a turn of the loop, those that it has or waits for. */
function openBelow(directory: string): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(directory) ? [path] : [];
    } catch {
      return []; // readdir's own, closed by now
    }
  });
}

describe("a claim", () => {
  itWithFlock(
    "is told when it is complete, and its release when everything is free, with how long it was held",
    async () => {
      const options = { stateDir: temporaryDirectory(), port: await freePort() };
      const told = listen();
      const seen: object[] = [];
      on("acquire", ({ lockPaths, port, ownerId }) => {
        const records = lockPaths.map((path) => readOwner(path).record);
        const ours = records.every((record) => record?.ownerId === ownerId && record.phase === "listening");
        seen.push({ ours, lock: flockCommandGets(options.stateDir), port: getsPort(port) });
      });
      on("release", ({ lockPaths, port }) => {
        const files = lockPaths.filter((path) => existsSync(path));
        seen.push({ files, lock: flockCommandGets(options.stateDir), port: getsPort(port) });
      });
      const called = performance.now();
      const gateway = await acquire(options);
      const resolved = performance.now();

      expect(eventsOf(told)).toEqual(["acquire"]);
      expect(only(told, "acquire").message).toEqual(facts(options));
      expect(only(told, "acquire").message).toMatchObject({
        lockPaths: gateway.lockPaths,
        ownerId: gateway.owner.ownerId,
      });
      expectDuration(only(told, "acquire"), { earliest: called }, { atLeast: 0.01 });

      await new Promise((resolve) => setTimeout(resolve, HOLD));
      const closed = performance.now();
      await Promise.all([gateway.close(), gateway.close({ force: true })]);
      await gateway.close();
      await gateway[Symbol.asyncDispose]();

      expect(eventsOf(told)).toEqual(["acquire", "release"]);
      const { ownerId } = gateway.owner;
      expect(only(told, "release").message).toEqual({ ...facts(options), ownerId });
      expectDuration(only(told, "release"), { earliest: only(told, "acquire").at }, { atLeast: closed - resolved });
      expect(seen).toEqual([
        { ours: true, lock: "refused", port: false },
        { files: [], lock: "granted", port: true },
      ]);
    },
  );

  it("is told with the port that the kernel chose, and with the first host as a literal", async () => {
    for (const [host, literal] of [
      ["localhost", "127.0.0.1"],
      [["127.0.0.2", "127.0.0.1"], "127.0.0.2"],
    ] as const) {
      const stateDir = temporaryDirectory();
      const told = listen();
      const gateway = await acquire({ stateDir, port: 0, host });
      await gateway.close();

      expect(gateway.port).toBeGreaterThan(0);
      const expected = facts({ stateDir, port: gateway.port, host: literal });
      expect(told.map(({ event, message }) => ({ event, message }))).toEqual([
        { event: "acquire", message: expected },
        { event: "release", message: expected },
      ]);
    }
  });

  it("that is lost is told once, also to a subscriber that looks again, who learns it at once", async () => {
    const told = listen();
    const gateway = await acquire({ stateDir: temporaryDirectory(), port: 0 });
    const thrown: unknown[] = [];
    on("lost", () => {
      try {
        gateway.assertCurrent();
      } catch (error) {
        thrown.push(error);
      }
    });
    renameSync(gateway.owner.stateDir ?? "", `${gateway.owner.stateDir}-moved`);
    onTestFinished(() => rmSync(`${gateway.owner.stateDir}-moved`, { recursive: true }));
    expect(() => gateway.assertCurrent()).toThrow(expect.objectContaining({ code: "LOCK_LOST" }));
    expect(eventsOf(told)).toEqual(["acquire", "lost"]);
    expect(thrown).toEqual([gateway.lost.reason]);
  });

  it("that is lost is told once, with LOCK_LOST and since when it was held, and its release after that", async () => {
    const parent = temporaryDirectory();
    const configPath = join(parent, "etc", "config.json");
    const told = listen();
    const gateway = await acquire({ stateDir: join(parent, "state"), configPath, port: 0 });
    const resolved = performance.now();
    const aborted = new Promise((resolve) => gateway.lost.addEventListener("abort", () => resolve(eventsOf(told))));
    await new Promise((resolve) => setTimeout(resolve, HOLD));
    const taken = performance.now();
    unlinkSync(gateway.lockPaths[1] ?? "");

    expect(await aborted).toEqual(["acquire", "lost"]);

    for (const again of [1, 2]) expect(() => gateway.assertCurrent(), `${again}`).toThrow("was lost");
    await gateway.close();
    await gateway.close();
    expect(eventsOf(told)).toEqual(["acquire", "lost", "release"]);
    const [acquired, lost, released] = told.map(({ message }) => message);
    expect(lost).toEqual({ ...acquired, durationMs: lost?.durationMs, error: gateway.lost.reason });
    expect(lost?.error).toBe(gateway.lost.reason);
    expect(lost?.error).toMatchObject({ name: "GatewayLockError", code: "LOCK_LOST", lockPath: gateway.lockPaths[1] });
    expect(released).toEqual({ ...acquired, durationMs: released?.durationMs });
    expectDuration(only(told, "lost"), { earliest: only(told, "acquire").at }, { atLeast: taken - resolved });
    expectDuration(only(told, "release"), { earliest: only(told, "acquire").at }, { atLeast: lost?.durationMs ?? NaN });
  });
});

describe("a refusal", () => {
  /** Refused, and told once, with the very error and after everything was let go. */
  async function refusalTold(options: GatewayOptions & { stateDir: string }): Promise<GatewayLockMessage> {
    const told = listen();
    const open: string[][] = [];
    on("refused", () => open.push(isLinux ? openBelow(options.stateDir) : []));
    const called = performance.now();
    const error = await refusalOf(options);

    expect(eventsOf(told)).toEqual(["refused"]);
    expect(open).toEqual([[]]);
    const { message } = only(told, "refused");
    expect(message.error).toBe(error);
    expectDuration(only(told, "refused"), { earliest: called }, { atLeast: 0.01 });
    return message;
  }

  it("as a duplicate of a gateway that listens", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    const owner = startGateway(options);
    const { owner: record } = await owner.next("acquired");
    const wanted = { ...options, port: await freePort() };

    const message = await refusalTold(wanted);

    expect(message).toEqual({ ...facts(wanted), error: expect.objectContaining({ code: "ALREADY_LISTENING" }) });
    expect(message.error).toMatchObject({ port: options.port, owner: { ownerId: record.ownerId, pid: owner.pid } });
    expect(message.ownerId).not.toBe(record.ownerId);
  });

  itWithFlock("as a duplicate of somebody who only has the lock", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    await holdWithFlock(options.stateDir);

    const message = await refusalTold(options);

    expect(message).toEqual({ ...facts(options), error: expect.objectContaining({ code: "ALREADY_RUNNING" }) });
  });

  it("by a port that somebody else has", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    await listenOn(options.port);

    const message = await refusalTold(options);

    expect(message).toEqual({ ...facts(options), error: expect.objectContaining({ code: "ALREADY_LISTENING" }) });
    expectNothingLeft(options.stateDir);
  });

  it("by an address that this host does not have, with port 0 as asked for", async () => {
    const host = "192.0.2.1"; // of no host: RFC 5737
    const options = { stateDir: temporaryDirectory(), port: 0, host };

    const message = await refusalTold(options);

    expect(message).toEqual({ ...facts(options), error: expect.objectContaining({ code: "BIND_FAILED" }) });
  });

  it("by a lock file that can't be used", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    mkdirSync(join(options.stateDir, "locks"), { mode: 0o700 });
    symlinkSync("elsewhere", join(options.stateDir, "locks", STATE_LOCK));

    const message = await refusalTold(options);

    expect(message).toEqual({ ...facts(options), error: expect.objectContaining({ code: "LOCK_FAILED" }) });
  });

  it("of bad options is told to nobody: they are the program's mistake", async () => {
    const stateDir = temporaryDirectory();
    const told = listen();
    const bad: object[] = [
      {},
      { stateDir: 42 },
      { stateDir, port: 65_536 },
      { stateDir, prot: 18_789 },
      { stateDir, timeout: -1 },
      { stateDir, signal: {} },
      { stateDir, metadata: { big: "x".repeat(2048) } },
    ];
    for (const options of bad) {
      await expect(acquireGateway(options as GatewayOptions)).rejects.toMatchObject({ code: /^ERR_/ });
    }
    expect(told).toEqual([]);
  });

  it("by a signal that has aborted before is told with its reason", async () => {
    const told = listen();
    const reason = "not today";
    const signal = AbortSignal.abort(reason);

    await expect(acquireGateway({ stateDir: temporaryDirectory(), signal })).rejects.toBe(reason);

    expect(eventsOf(told)).toEqual(["refused"]);
    expect(only(told, "refused").message).toMatchObject({ error: reason, lockPaths: [], port: 18_789 });
  });
});

describe("a wait", () => {
  itWithFlock("that succeeds is told as wait, takeover, acquire: one story, whose ownerId the record has", async () => {
    const stateDir = temporaryDirectory();
    const owner = startGateway({ stateDir, port: await freePort() });
    await owner.next("serving");
    const told = listen();
    const called = performance.now();
    const waiting = acquire({ stateDir, port: 0, timeout: Number.POSITIVE_INFINITY });
    await expect.poll(() => eventsOf(told), PATIENCE).toEqual(["wait"]);
    await new Promise((resolve) => setTimeout(resolve, HOLD));
    const left = performance.now();
    owner.send("close");
    const gateway = await waiting;
    const resolved = performance.now();
    const closed = performance.now();
    await gateway.close();

    expect(eventsOf(told)).toEqual(["wait", "takeover", "acquire", "release"]);
    const { ownerId } = gateway.owner;
    const expected = facts({ stateDir, port: gateway.port });
    expect(told.map(({ message }) => message)).toEqual([
      { ...expected, ownerId, port: 0 }, // not chosen yet
      { ...expected, ownerId },
      { ...expected, ownerId },
      { ...expected, ownerId },
    ]);
    expectDuration(only(told, "wait"), { earliest: called }, { atLeast: 0.01 });
    expect(only(told, "wait").message.durationMs).toBeLessThanOrEqual(left - called - HOLD + EARLY);
    expectDuration(only(told, "takeover"), { earliest: called }, { atLeast: HOLD - EARLY });
    expectDuration(only(told, "acquire"), { earliest: called }, { atLeast: only(told, "takeover").message.durationMs });
    expectDuration(only(told, "release"), { earliest: only(told, "acquire").at }, { atLeast: closed - resolved });
  });

  itWithProc("for two locks, one after the other, is one wait", async () => {
    const stateDir = temporaryDirectory();
    const configLock = join(stateDir, "locks", hashedLock("gateway.json"));
    mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
    writeFileSync(configLock, "", { mode: 0o600 });
    const [first, second] = [await holdWithFlock(stateDir), await holdWithFlock(configLock)];
    const told = listen();
    const waiting = acquire({ stateDir, port: 0, timeout: Number.POSITIVE_INFINITY });
    await expect.poll(() => openBelow(stateDir), PATIENCE).toEqual([stateDir]);
    await first.kill();
    await expect.poll(() => openBelow(stateDir), PATIENCE).toEqual([configLock]);
    expect(eventsOf(told)).toEqual(["wait"]);
    await second.kill();
    await waiting;

    expect(eventsOf(told)).toEqual(["wait", "takeover", "acquire"]);
  });

  itWithFlock("that times out is told as wait and refused, with how long it took", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort(), timeout: HOLD };
    await holdWithFlock(options.stateDir);
    const told = listen();
    const called = performance.now();

    const error = await refusalOf(options);

    expect(eventsOf(told)).toEqual(["wait", "refused"]);
    const [waited, refused] = told.map(({ message }) => message);
    expect(waited).toEqual(facts(options));
    expect(refused).toEqual({ ...waited, durationMs: refused?.durationMs, error });
    expect(refused?.error).toBe(error);
    expect(error.code).toBe("ALREADY_RUNNING");
    expectDuration(only(told, "refused"), { earliest: called }, { atLeast: HOLD - EARLY });
  });

  itWithFlock(
    "that is aborted is told as wait and refused, with the signal's own reason, whatever that is",
    async () => {
      for (const reason of [new Error("shutting down"), "shutting down", 0, null]) {
        const options = { stateDir: temporaryDirectory(), port: await freePort(), timeout: Number.POSITIVE_INFINITY };
        await holdWithFlock(options.stateDir);
        const told = listen();
        const controller = new AbortController();
        const waiting = acquireGateway({ ...options, signal: controller.signal }).catch((error: unknown) => ({
          error,
        }));
        await expect.poll(() => eventsOf(told), PATIENCE).toEqual(["wait"]);
        controller.abort(reason);

        expect(await waiting).toEqual({ error: reason });

        expect(eventsOf(told)).toEqual(["wait", "refused"]);
        const [waited, refused] = told.map(({ message }) => message);
        expect(refused).toEqual({ ...waited, durationMs: refused?.durationMs, error: reason });
        expect(refused?.error).toBe(reason);
      }
    },
  );
});

it("acquisitions side by side have a story each, and only one of the claims is held at a time", async () => {
  const AT_ONCE = 8;
  const options = { stateDir: temporaryDirectory(), port: await freePort(), timeout: Number.POSITIVE_INFINITY };
  const told = listen();
  const owners = await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      const gateway = await acquire(options);
      await gateway.close();
      return gateway.owner.ownerId;
    }),
  );

  const stories = owners.map((owner) => eventsOf(told.filter(({ message }) => message.ownerId === owner)));
  expect(new Set(owners).size).toBe(AT_ONCE);
  expect(stories.flat()).toHaveLength(told.length);
  const waited = stories.filter((story) => story.length > 2);
  expect(waited).toEqual(waited.map(() => ["wait", "takeover", "acquire", "release"]));
  expect(waited.length).toBeGreaterThanOrEqual(AT_ONCE - 1);
  const held = eventsOf(told).filter((event) => event === "acquire" || event === "release");
  expect(held).toEqual(owners.flatMap(() => ["acquire", "release"]));
});

describe("a subscriber that throws", () => {
  it("breaks neither acquire nor refusal nor close, and the other subscribers are told; Node reports it", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    const child = startFixture("diagnostics-throwing.mjs", { options, catches: true });

    const { events, code, body, uncaught } = await child.next("done");

    expect(events).toEqual(["acquire", "refused", "release"]);
    expect({ code, body }).toEqual({ code: "ALREADY_LISTENING", body: "served" });
    expect(uncaught).toEqual(["thrown at acquire", "thrown at refused", "thrown at release"]);
    expect(await child.exited).toEqual({ code: 0, signal: null });
    expectNothingLeft(options.stateDir);
  });

  it("ends a process that catches nothing, and the lock files are deleted", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    const child = startFixture("diagnostics-throwing.mjs", { options, catches: false });

    expect(await child.exited).toEqual({ code: 1, signal: null });

    expect(child.stderr).toContain("thrown at acquire");
    expect(lockFilesIn(options.stateDir)).toEqual([]);
  });
});

it("an abort in the moment in which the wait is told ends it", async () => {
  const stateDir = temporaryDirectory();
  const owner = await acquire({ stateDir, port: 0 });
  const controller = new AbortController();
  const reason = new Error("changed my mind");
  on("wait", () => controller.abort(reason));
  const waiting = acquireGateway({ stateDir, port: 0, timeout: Infinity, signal: controller.signal });
  await expect(waiting).rejects.toBe(reason);
  owner.assertCurrent();
});

describe("where nobody listens", () => {
  /** How often each channel is published to from now on, whoever listens. */
  function countPublished(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const event of EVENTS) {
      const target = channel(`gateway-lock:${event}`);
      target.publish = (message) => {
        counts[event] = (counts[event] ?? 0) + 1;
        Object.getPrototypeOf(target).publish.call(target, message);
      };
      onTestFinished(() => void Reflect.deleteProperty(target, "publish"));
    }
    return counts;
  }

  /** A claim that is waited for, then refuses a duplicate, is lost and closed. */
  async function everything(): Promise<void> {
    const parent = temporaryDirectory();
    const options = {
      stateDir: join(parent, "state"),
      configPath: join(parent, "etc", "c.json"),
      port: await freePort(),
    };
    const first = await acquire(options);
    const waiting = acquire({ ...options, timeout: Number.POSITIVE_INFINITY });
    await first.close();
    const second = await waiting;
    await refusalOf(options);
    unlinkSync(second.lockPaths[1] ?? "");
    expect(() => second.assertCurrent()).toThrow();
    await second.close();
  }

  it("nothing is published, before the first subscriber and after the last", async () => {
    const counts = countPublished();
    await everything();
    expect(counts).toEqual({});

    const stops = EVENTS.map((event) => on(event, () => {}));
    await everything();
    const once = { acquire: 2, wait: 1, takeover: 1, refused: 1, lost: 1, release: 2 };
    expect(counts).toEqual(once);

    for (const stop of stops) stop();
    await everything();
    expect(counts).toEqual(once);
  });

  it("no message is built, and telling takes no thousandth of an acquisition", async () => {
    const ROUNDS = 25;
    const TELLS = 10_000;
    const TELLS_PER_CLAIM = 4; // wait, takeover, acquire, release
    const chronicle = new Chronicle("7f4b9a0e-53a9-4a6e-9d2b-6d3c0c1f2a11", "127.0.0.1", 18_789);
    let looks = 0;
    Object.defineProperty(chronicle, "lockPaths", { get: () => [`${looks++}`] });
    const cycles: number[] = [];
    const tells: number[] = [];
    const error = new Error("refused");
    for (let round = 0; round < ROUNDS; round++) {
      const options = { stateDir: temporaryDirectory(), port: await freePort() };
      const began = performance.now();
      await (await acquireGateway(options)).close();
      const acquired = performance.now();
      for (let tell = 0; tell < TELLS; tell++) chronicle.tell("refused", error);
      cycles.push(acquired - began);
      tells.push((performance.now() - acquired) / TELLS);
    }
    const [cycle, tell] = [median(cycles), median(tells)];
    showTimes(`acquire and close: ${cycle.toFixed(3)} ms; telling nobody: ${(tell * 1e6).toFixed(1)} ns`);

    expect(looks).toBe(0);
    expect((tell * TELLS_PER_CLAIM) / cycle).toBeLessThan(1 / 1000);

    on("refused", () => {});
    chronicle.tell("refused", error);
    expect(looks).toBe(1);
  });

  function median(values: readonly number[]): number {
    return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
  }
});

it("has its types in the package: events, channels, messages", () => {
  expectTypeOf<GatewayLockEvent>().toEqualTypeOf<(typeof EVENTS)[number]>();
  expectTypeOf<GatewayLockChannel>().toEqualTypeOf<
    | "gateway-lock:acquire"
    | "gateway-lock:refused"
    | "gateway-lock:wait"
    | "gateway-lock:takeover"
    | "gateway-lock:handover"
    | "gateway-lock:lost"
    | "gateway-lock:release"
  >();
  expectTypeOf<GatewayLockMessage>().toEqualTypeOf<{
    readonly lockPaths: readonly string[];
    readonly host: string;
    readonly port: number;
    readonly pid: number;
    readonly ownerId: string;
    readonly durationMs: number;
    readonly error?: unknown;
  }>();
  expectTypeOf<Gateway["owner"]["ownerId"]>().toEqualTypeOf<GatewayLockMessage["ownerId"] | null>();
});
