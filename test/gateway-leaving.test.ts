// Proves that a gateway leaves nothing behind, however and whenever its process ends, and that closing harms nobody who comes after.

import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { readOwner } from "../lib/lock/record.ts";
import { hasFlockCommand, itWhere } from "./support/capabilities.ts";
import {
  acquire,
  expectNothingLeft,
  holdWithFlock,
  isPortFree,
  listenOn,
  lockFilesIn,
  refusalOf,
} from "./support/gateways.ts";
import { bodyOf } from "./support/listener-tools.ts";
import { flockCommandGets } from "./support/locks.ts";
import { startFixture, type TestProcess } from "./support/processes.ts";
import { serves, startServing, startStandby, startWaiting, tell } from "./support/standbys.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

const STATE_LOCK = "gateway.state.lock";
const ENDED = 1000; // ms, from the reason to end to the end
const QUIET = 200; // ms in which nothing happens
const CLIENTS = 3;

const itWithFlock = itWhere(hasFlockCommand, "there is no flock(1)");

/** Clients of `port` who never leave by themselves; resolves when all have been left. */
async function stayingClients(port: number): Promise<{ left: Promise<unknown> }> {
  const closes: Promise<void>[] = [];
  for (let i = 0; i < CLIENTS; i++) {
    const client = new WebSocket(`ws://127.0.0.1:${port}`);
    client.on("error", () => {});
    onTestFinished(() => client.terminate());
    closes.push(new Promise((resolve) => client.once("close", () => resolve())));
    await new Promise((resolve) => client.once("open", resolve));
  }
  return { left: Promise.all(closes) };
}

async function expectAllGone(stateDir: string, port: number): Promise<void> {
  expectNothingLeft(stateDir);
  expect(await isPortFree(port)).toBe("free");
}

/** How it ends and how soon. */
async function endOf(process: TestProcess) {
  const began = performance.now();
  const { code, signal } = await process.exited;
  return { code, signal, inTime: performance.now() - began < ENDED };
}

describe("close() in a handler of SIGTERM lets the process end by itself", () => {
  it.each([
    ["nobody is connected", 0, {}],
    ["clients who never leave get a timeout", CLIENTS, { timeout: 50 }],
    ["clients who never leave are forced", CLIENTS, { force: true }],
  ])("when %s", async (_, clients, closing) => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const daemon = startFixture("leaving-daemon.mjs", { options: { stateDir, port }, closings: [closing] });
    await daemon.next("serving");
    const left = clients > 0 ? (await stayingClients(port)).left : null;
    process.kill(daemon.pid, "SIGTERM");
    await daemon.next("closed");
    expect(await endOf(daemon)).toEqual({ code: 0, signal: null, inTime: true });
    await left;
    await expectAllGone(stateDir, port);
  });

  it("when a second one forces what the first one waits for, and then the next gateway is there", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const daemon = startFixture("leaving-daemon.mjs", { options: { stateDir, port }, closings: [{}, { force: true }] });
    await daemon.next("serving");
    await stayingClients(port);
    const standby = await startWaiting({ stateDir, port });
    process.kill(daemon.pid, "SIGTERM");
    await expect.poll(() => readOwner(join(stateDir, "locks", STATE_LOCK)).record?.phase).toBe("stopping");
    process.kill(daemon.pid, "SIGTERM");
    await daemon.next("closed");
    expect(await endOf(daemon)).toEqual({ code: 0, signal: null, inTime: true });
    await serves(standby);
    expect(await bodyOf(port)).toBe(`pid ${standby.pid}`);
    expect(lockFilesIn(stateDir)).toHaveLength(2);
  });

  it("when it still waited for its claim", async () => {
    const [shared, stateDir, port] = [temporaryDirectory(), temporaryDirectory(), await freePort()];
    const configPath = join(shared, "config.json");
    const owner = await acquire({ stateDir: temporaryDirectory(), configPath, port: 0 });
    const daemon = startFixture("leaving-daemon.mjs", { options: { stateDir, configPath, port } });
    await daemon.next("waiting");
    process.kill(daemon.pid, "SIGTERM");
    await daemon.next("aborted");
    expect(await endOf(daemon)).toEqual({ code: 0, signal: null, inTime: true });
    await expectAllGone(stateDir, port);
    owner.assertCurrent();
  });
});

describe("a process that ends without close() leaves nothing", () => {
  it.each(["throws", "callback", "rejects"])("when its start-up fails before it listens (%s)", async (fails) => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const daemon = startFixture("leaving-daemon.mjs", { options: { stateDir, port }, fails });
    await daemon.next("acquired");
    expect(await endOf(daemon)).toEqual({ code: 1, signal: null, inTime: true });
    expect(daemon.stderr).toContain("at the start");
    await expectAllGone(stateDir, port);
  });

  const ENDS: [how: string, command: string, code: number][] = [
    ["process.exit()", "exit", 0],
    ["an exception", "throw", 1],
    ["a rejection that nobody handles", "reject", 1],
  ];

  it.each(ENDS)("when it serves and ends by %s", async (_, end, code) => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const owner = await startServing({ stateDir, port });
    tell(owner, end);
    expect(await endOf(owner)).toEqual({ code, signal: null, inTime: true });
    await expectAllGone(stateDir, port);
  });

  it.each(ENDS)("when it waits and ends by %s", async (_, end, code) => {
    const configPath = join(temporaryDirectory(), "config.json");
    const owner = await acquire({ stateDir: temporaryDirectory(), configPath, port: 0 });
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const standby = await startWaiting({ stateDir, configPath, port });
    tell(standby, end);
    expect(await endOf(standby)).toEqual({ code, signal: null, inTime: true });
    await expectAllGone(stateDir, port);
    owner.assertCurrent();
    await owner.close();
    expect(lockFilesIn(dirname(configPath))).toEqual([]);
    await acquire({ stateDir, configPath, port });
  });

  for (const [how, end, code] of ENDS) {
    itWithFlock(`when it has the locks, tries for the port, and ends by ${how}`, async () => {
      const [stateDir, port] = [temporaryDirectory(), await freePort()];
      await listenOn(port);
      const holder = await holdWithFlock(stateDir);
      const standby = await startWaiting({ stateDir, port });
      await holder.kill();
      const lockPath = join(stateDir, "locks", STATE_LOCK);
      await expect
        .poll(() => readOwner(lockPath).record, { interval: 1 })
        .toMatchObject({ phase: "starting", pid: standby.pid });
      tell(standby, end);
      expect(await endOf(standby)).toEqual({ code, signal: null, inTime: true });
      expectNothingLeft(stateDir);
    });
  }
});

describe("close()", () => {
  it("lets in who waits in the same process, and called again does no harm to it", async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    const first = await acquire(options);
    const unrelated = await acquire({ stateDir: temporaryDirectory(), port: 0 });
    const waiting = acquire({ ...options, timeout: Infinity });
    await unrelated.close();
    expect(await Promise.race([waiting, delay(QUIET, "still waits")])).toBe("still waits");

    const closing = first.close();
    const second = await waiting;
    await Promise.all([closing, first.close(), first.close({ force: true }), first[Symbol.asyncDispose]()]);

    second.assertCurrent();
    expect(second.lockPaths.map((path) => readOwner(path).record?.ownerId)).toEqual([
      second.owner.ownerId,
      second.owner.ownerId,
    ]);
    expect(await isPortFree(options.port)).toBe("EADDRINUSE");
    expect(flockCommandGets(options.stateDir)).toBe("refused");
  });

  it("comes at the end of an await using block that throws, and the exception goes on", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const block = async () => {
      await using gateway = await acquire({ stateDir, port });
      gateway.assertCurrent();
      throw new Error("in the block");
    };
    await expect(block()).rejects.toThrow("in the block");
    await expectAllGone(stateDir, port);
  });
});

it("a wait without end keeps a process alive that has nothing else to do", async () => {
  const [stateDir, port] = [temporaryDirectory(), await freePort()];
  const owner = await acquire({ stateDir, port });
  const standby = startStandby();
  tell(standby, "acquire", { options: { stateDir, port } });
  tell(standby, "idle");
  await standby.next("waiting");
  expect(await Promise.race([standby.exited, delay(QUIET, "alive")])).toBe("alive");
  await owner.close();
  await serves(standby);
  expect(await bodyOf(port)).toBe(`pid ${standby.pid}`);
});

describe("the host's exit listeners", () => {
  it.each(["exit", "throw"])("run with everything still held, after a %s", async (way) => {
    const [config, mine, theirs] = [temporaryDirectory(), temporaryDirectory(), temporaryDirectory()];
    const [configPath, go] = [join(config, "gateway.json"), join(theirs, "go")];
    const options = { stateDir: mine, configPath, port: await freePort() };
    const owner = startFixture("leaving-slowly.mjs", { options, way, go });
    await owner.next("leaving");

    // The config is what a rival with another state directory could take: no directory of its own is locked.
    expect(await refusalOf({ stateDir: join(theirs, "state"), configPath, port: 0 })).toMatchObject({
      owner: { pid: owner.pid },
    });
    expect(lockFilesIn(config)).toHaveLength(1);
    writeFileSync(go, "");
    await owner.exited;

    await expectAllGone(mine, options.port);
    expect(lockFilesIn(config)).toEqual([]);
  });
});
