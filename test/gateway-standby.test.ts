// Proves that a standby takes over whenever the owner goes, by the same rules as any starter, and that a wait which ends early leaves nothing.

import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { acquireGateway } from "../lib/acquire.ts";
import { readOwner } from "../lib/lock/record.ts";
import type { GatewayOptions } from "../lib/options.ts";
import { hasFlockCommand, isLinux, itWhere } from "./support/capabilities.ts";
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
import { bodyOf } from "./support/listener-tools.ts";
import { flockCommandGets } from "./support/locks.ts";
import { median, overlapsIn } from "./support/measures.ts";
import { startFixture, startGateway, type TestProcess } from "./support/processes.ts";
import { hasOpen, now, serves, startServing, startStandby, startWaiting, tell, threads } from "./support/standbys.ts";
import { freePort, openDescriptors, temporaryDirectory } from "./support/temporary.ts";

const TAKEOVER = 1000; // ms, from the owner's end to the standby's answer
const PATIENCE = 1000; // ms, for which a refused bind is tried again after a wait
const SLACK = 500; // ms, of a busy machine
const CANCELLED = 10; // ms, from a signal to the rejection
const STATE_LOCK = "gateway.state.lock";
const CROWD = 60_000; // ms, for tests that start many processes

const itWithFlock = itWhere(hasFlockCommand, "there is no flock(1)");

/** Clients of `port` who never leave by themselves. */
async function stayingClients(port: number): Promise<void> {
  for (let i = 0; i < 3; i++) {
    const client = new WebSocket(`ws://127.0.0.1:${port}`);
    client.on("error", () => {});
    onTestFinished(() => client.terminate());
    await new Promise((resolve) => client.once("open", resolve));
  }
}

describe("a standby takes over", () => {
  it.each([
    ["is killed", (owner: TestProcess) => void owner.kill()],
    ["closes", (owner: TestProcess) => owner.send("force")],
    ["calls process.exit()", (owner: TestProcess) => owner.send("exit")],
    ["throws", (owner: TestProcess) => owner.send("throw")],
  ])("when a healthy owner %s while clients are connected to it", async (_, end) => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const owner = startGateway({ stateDir, port });
    await owner.next("serving");
    await stayingClients(port);
    const standby = await startWaiting({ stateDir, port });
    expect(await bodyOf(port)).toBe(`pid ${owner.pid}`);

    const began = performance.now();
    end(owner);

    await serves(standby);
    expect(await bodyOf(port)).toBe(`pid ${standby.pid}`);
    expect(performance.now() - began).toBeLessThan(TAKEOVER);
  });

  it.each<[string, string, (parent: string) => [owner: object, standby: object]]>([
    ["the state directory", "kill", (p) => [{ stateDir: join(p, "one") }, { stateDir: join(p, "one") }]],
    [
      "only the config",
      "close",
      (p) => [
        { stateDir: join(p, "one"), configPath: join(p, "etc", "c.json") },
        { stateDir: join(p, "two"), configPath: join(p, "etc", "c.json") },
      ],
    ],
    [
      "a file in locks",
      "kill",
      (p) => [
        { stateDir: join(p, "one"), locks: [join(p, "file")] },
        { stateDir: join(p, "two"), locks: [join(p, "file")] },
      ],
    ],
    [
      "a directory that the owner has in locks",
      "close",
      (p) => [{ stateDir: join(p, "one"), locks: [join(p, "two")] }, { stateDir: join(p, "two") }],
    ],
  ])("from the owner of %s, by %s, though it wants another port", async (_, end, optionsIn) => {
    const parent = temporaryDirectory();
    mkdirSync(join(parent, "two"), { mode: 0o700 });
    writeFileSync(join(parent, "file"), "");
    const [first, second] = optionsIn(parent);
    const owner = await startServing({ ...first, port: await freePort() });
    const port = await freePort();
    const standby = await startWaiting({ ...second, port });

    tell(owner, end);

    await serves(standby);
    expect(await bodyOf(port)).toBe(`pid ${standby.pid}`);
  });

  for (const [order, stateFirst] of [
    ["the state directory and then the config", true],
    ["the config and then the state directory, which it could have had before", false],
  ] as const) {
    itWhere(isLinux && hasFlockCommand, "needs Linux and flock(1)")(
      `from two owners, of ${order}, and has nothing meanwhile`,
      async () => {
        const [stateDir, configPath] = [temporaryDirectory(), join(temporaryDirectory(), "config.json")];
        const [configOwner, stateOwner, port] = [startStandby(), startStandby(), await freePort()];
        const own = { stateDir: temporaryDirectory(), configPath, port: await freePort() };
        tell(configOwner, "acquire", { options: own });
        const [, configLock] = (await serves(configOwner)).lockPaths;
        const takeState = async () => {
          tell(stateOwner, "acquire", { options: { stateDir, port: await freePort() } });
          await serves(stateOwner);
        };
        if (stateFirst) await takeState();
        const standby = await startWaiting({ stateDir, configPath, port });
        if (!stateFirst) await takeState();
        const [first, next, last] = stateFirst
          ? [stateOwner, configLock, configOwner]
          : [configOwner, stateDir, stateOwner];

        await first.kill();

        await expect.poll(() => hasOpen(standby.pid, next), { timeout: TAKEOVER, interval: 1 }).toEqual(true);
        expect(flockCommandGets(stateFirst ? stateDir : configLock)).toBe("granted");
        await last.kill();
        await serves(standby);
        expect(await bodyOf(port)).toBe(`pid ${standby.pid}`);
      },
    );
  }

  it(
    "in 100 rounds when two share both resources with the owner, and each has what the other wants second",
    async () => {
      const ROUNDS = 100;
      const [x, y] = [temporaryDirectory(), temporaryDirectory()];
      const options = { stateDir: temporaryDirectory(), locks: [x, y], port: await freePort() };
      const wishes = [
        { stateDir: x, locks: [y], port: await freePort() },
        { stateDir: y, locks: [x], port: await freePort() },
      ];
      const standbys = wishes.map(startStandby);
      const intervals: [number, number][] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const owner = await acquireGateway(options);
        const from = now();
        for (const [index, standby] of standbys.entries()) {
          tell(standby, "turn", { options: wishes[index], hold: round % 3, leave: "close" });
          await standby.next("waiting");
        }
        intervals.push([from, now()]);
        await owner.close();
        const left = await Promise.all(standbys.map((standby) => standby.next("left")));
        intervals.push(...left.map(({ from, until }): [number, number] => [from, until]));
        await Promise.all(standbys.map((standby) => standby.next("closed")));
      }
      expect(intervals).toHaveLength(3 * ROUNDS);
      expect(overlapsIn(intervals)).toEqual([]);
    },
    CROWD,
  );

  it(
    "once each among 32, one after the other, however the one before left",
    async () => {
      const STANDBYS = 32;
      const WAYS = ["close", "kill", "exit", "throw"];
      const [stateDir, port] = [temporaryDirectory(), await freePort()];
      const owner = startGateway({ stateDir, port });
      await owner.next("serving");
      const standbys = Array.from({ length: STANDBYS }, startStandby);
      standbys.forEach((standby, index) => {
        tell(standby, "turn", { options: { stateDir, port }, hold: 2, leave: WAYS[index % WAYS.length] });
      });
      await Promise.all(standbys.map((standby) => standby.next("waiting")));

      await owner.kill();

      const turns = await Promise.all(standbys.map((standby) => standby.next("left")));
      expect(overlapsIn(turns.map(({ from, until }) => [from, until]))).toEqual([]);
      await Promise.all(standbys.map((standby) => standby.kill()));
      expect(flockCommandGets(stateDir)).toBe("granted");
    },
    CROWD,
  );
});

describe("a standby that can't prepare itself", () => {
  it("takes over all the same", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    const owner = startGateway(options);
    await owner.next("serving");
    const library = join(import.meta.dirname, "../dist/index.js");
    const standby = startFixture("standby-elsewhere.mjs", { ...options, library, starved: true });
    await standby.next("starved");
    await owner.kill();
    expect(await standby.next("serving")).toMatchObject({ startTime: startTimeOf(standby.pid) });
  });

  it("takes over though what is in its package was removed while it was waiting", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort(), handover: true };
    const owner = startGateway({ ...options, handover: false });
    await owner.next("serving");
    const root = join(import.meta.dirname, "..");
    const installed = temporaryDirectory();
    for (const part of ["dist", "prebuilds", "package.json"])
      cpSync(join(root, part), join(installed, part), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(installed, "node_modules"));
    const library = join(installed, "dist/index.js");
    const standby = startFixture("standby-elsewhere.mjs", { ...options, library });
    await standby.next("waiting");
    rmSync(join(installed, "dist"), { recursive: true });
    await owner.kill();
    await standby.next("serving");
  });
});

describe("a finite wait", () => {
  it("ends with what the owner does at its end: it listened at first, and is stopping now", async () => {
    const TIMEOUT = 300; // ms
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const owner = startGateway({ stateDir, port });
    const [lockPath = ""] = (await owner.next("acquired")).lockPaths;
    await owner.next("serving");
    await stayingClients(port);
    const began = performance.now();
    const refusal = refusalOf({ stateDir, port, timeout: TIMEOUT });
    owner.send("close");
    await expect.poll(() => readOwner(lockPath).record?.phase, { interval: 1 }).toBe("stopping");
    expect(await refusal).toMatchObject({
      code: "ALREADY_RUNNING",
      message: `gateway already running (pid ${owner.pid}); lock timeout after ${TIMEOUT}ms`,
    });
    expect(performance.now() - began).toBeGreaterThanOrEqual(TIMEOUT - 1);
  });
});

describe("after a waited lock", () => {
  /** A standby in this process, and somebody who has its lock. */
  async function waiting() {
    const [stateDir, port, descriptors] = [temporaryDirectory(), await freePort(), openDescriptors()];
    const holder = await holdWithFlock(stateDir);
    const controller = new AbortController();
    const options = { stateDir, port, timeout: Infinity, signal: controller.signal };
    return { stateDir, port, holder, options, descriptors, controller, lockPath: join(stateDir, "locks", STATE_LOCK) };
  }

  function leave(lockPath: string, record: Buffer): void {
    mkdirSync(join(lockPath, ".."), { mode: 0o700, recursive: true });
    writeFileSync(lockPath, record, { mode: 0o600 });
  }

  itWithFlock("a live gateway that holds no lock and listens is found: refused, but not at once", async () => {
    const { stateDir, port, holder, options, lockPath } = await waiting();
    const other = await freePort();
    await listenOn(other);
    const descriptors = openDescriptors();
    const refusal = refusalOf(options);
    const record = recordOf({ pid: process.pid, startTime: startTimeOf(process.pid), port: other });
    leave(lockPath, record);
    const freed = performance.now();
    await holder.kill();

    expect(await refusal).toMatchObject({
      code: "ALREADY_LISTENING",
      message: `another gateway instance is already listening on ws://127.0.0.1:${other}`,
      lockPath,
      owner: { pid: process.pid, port: other },
    });
    const ms = performance.now() - freed;
    expect(ms).toBeGreaterThanOrEqual(PATIENCE - 1);
    expect(ms).toBeLessThan(PATIENCE + SLACK);
    expect(readFileSync(lockPath).equals(record)).toEqual(true);
    expectNothingLeft(stateDir, [STATE_LOCK]);
    expect(await isPortFree(port)).toBe("free");
    expect(openDescriptors()).toBeLessThanOrEqual(descriptors);
  });

  itWithFlock("a dead owner's record is reclaimed at once, whoever has the port in it", async () => {
    const { port, holder, options, lockPath } = await waiting();
    const other = await freePort();
    await listenOn(other);
    const claim = acquire(options);
    leave(lockPath, recordOf({ pid: await deadPid(), port: other }));
    const freed = performance.now();
    await holder.kill();
    expect(await claim).toMatchObject({ port, owner: { pid: process.pid } });
    expect(performance.now() - freed).toBeLessThan(PATIENCE);
    expect(readOwner(lockPath).record?.pid).toBe(process.pid);
  });

  itWithFlock("a stranger on the port is tried again for a second, and then everything is let go", async () => {
    const { stateDir, port, holder, options, lockPath } = await waiting();
    await listenOn(port);
    const descriptors = openDescriptors();
    const refusal = refusalOf(options);
    const freed = performance.now();
    await holder.kill();
    await expect.poll(() => readOwner(lockPath).record?.phase, { interval: 1 }).toBe("starting");
    expect(await refusalOf({ stateDir, port: await freePort() })).toMatchObject({ retryable: true, exitCode: 75 });

    expect(await refusal).toMatchObject({
      code: "ALREADY_LISTENING",
      message: `another gateway instance is already listening on ws://127.0.0.1:${port}`,
      cause: { code: "EADDRINUSE" },
      listener: { pid: process.pid },
    });
    const ms = performance.now() - freed;
    expect(ms).toBeGreaterThanOrEqual(PATIENCE - 1);
    expect(ms).toBeLessThan(PATIENCE + SLACK);
    expectNothingLeft(stateDir);
    expect(openDescriptors()).toBeLessThanOrEqual(descriptors);
  });

  itWithFlock("a port that is given up 200 ms later is had", async () => {
    const LATER = 200; // ms
    const { port, holder, options, lockPath } = await waiting();
    const stranger = await listenOn(port);
    const claim = acquire(options);
    await holder.kill();
    await expect.poll(() => readOwner(lockPath).record?.phase, { interval: 1 }).toBe("starting");
    await delay(LATER);
    stranger.close();
    const freed = performance.now();
    expect(await claim).toMatchObject({ port });
    expect(performance.now() - freed).toBeLessThan(SLACK);
  });

  itWithFlock("a signal ends the trying", async () => {
    const { stateDir, port, holder, options, controller, lockPath } = await waiting();
    await listenOn(port);
    const descriptors = openDescriptors();
    const claim = acquireGateway(options);
    claim.catch(() => {});
    await holder.kill();
    await expect.poll(() => readOwner(lockPath).record?.phase, { interval: 1 }).toBe("starting");
    const reason = new Error("enough");
    controller.abort(reason);
    await expect(claim).rejects.toBe(reason);
    expectNothingLeft(stateDir);
    expect(openDescriptors()).toBeLessThanOrEqual(descriptors);
  });
});

describe("a signal", () => {
  const MOMENTS: [string, () => Promise<unknown>][] = [
    ["with the call", async () => {}],
    ["in the next turn", () => new Promise(setImmediate)],
    ["later", () => delay(5)],
  ];

  itWhere(isLinux && hasFlockCommand, "needs Linux and flock(1)")(
    "ends a wait within 10 ms, whenever it comes, and leaves no thread, descriptor, lock or file",
    async () => {
      const ROUNDS = 20;
      const configPath = join(temporaryDirectory(), "config.json");
      const owner = await acquire({ stateDir: temporaryDirectory(), configPath, port: 0 });
      const [stateDir, port] = [temporaryDirectory(), await freePort()];
      const ms: number[] = [];
      let [threadsBefore, descriptorsBefore] = [0, 0];
      for (let round = 0; round < ROUNDS; round++) {
        for (const [, moment] of MOMENTS) {
          const controller = new AbortController();
          const options = { stateDir, configPath, port, timeout: Infinity, signal: controller.signal };
          const claim = acquireGateway(options);
          claim.catch(() => {});
          await moment();
          expect(lockFilesIn(stateDir)).toEqual([]);
          const reason = new Error("enough");
          const began = performance.now();
          controller.abort(reason);
          await expect(claim).rejects.toBe(reason);
          ms.push(performance.now() - began);
        }
        if (round === 0) [threadsBefore, descriptorsBefore] = [threads(), openDescriptors()];
      }
      if (process.env.GATEWAY_LOCK_SHOW_TIMES) console.log({ cancelled: median(ms), worst: Math.max(...ms) });
      expect(median(ms)).toBeLessThan(CANCELLED);
      expect(openDescriptors()).toBe(descriptorsBefore);
      // At most: the last thread of the first round may have been on its way out when it was counted.
      await expect.poll(threads).toBeLessThanOrEqual(threadsBefore);
      expectNothingLeft(stateDir);
      owner.assertCurrent();
      await owner.close();
      const next = await acquire({ stateDir, configPath, port });
      expect(next.port).toBe(port);
    },
  );

  it("that comes when the owner leaves either ends the wait, with everything free, or comes too late", async () => {
    const ROUNDS = 100;
    const [STEPS, STEP] = [20, 0.02]; // ms
    const options: GatewayOptions = { stateDir: temporaryDirectory(), port: await freePort() };
    const outcomes = { acquired: 0, rejected: 0 };
    for (let round = 0; round < ROUNDS; round++) {
      const owner = await acquireGateway(options);
      const controller = new AbortController();
      const claim = acquireGateway({ ...options, timeout: Infinity, signal: controller.signal });
      claim.catch(() => {});
      await new Promise(setImmediate);
      await owner.close();
      const until = performance.now() + (round % STEPS) * STEP;
      while (performance.now() < until) {} // the thread wakes meanwhile, or is about to
      if (round % 2 === 0) await new Promise(setImmediate);
      controller.abort(new Error("enough"));
      const gateway = await claim.catch(() => null);
      outcomes[gateway === null ? "rejected" : "acquired"]++;
      await gateway?.close();
      // Refused if anything of the one that was rejected were still held.
      await (await acquireGateway(options)).close();
    }
    if (process.env.GATEWAY_LOCK_SHOW_TIMES) console.log(outcomes);
  });
});
