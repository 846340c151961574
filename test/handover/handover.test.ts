// Proves what both sides of a handover see of it: the successor has a complete gateway, the owner is told before and after, and if it comes to nothing, the
// owner goes on as before.

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { describe, expect, onTestFinished, vi } from "vitest";
import type { GatewayLockMessage } from "../../lib/diagnostics.ts";
import type { Gateway } from "../../lib/gateway.ts";
import { readOwner } from "../../lib/lock/record.ts";
import { superviseGateway } from "../../lib/supervisor/supervise.ts";
import { hasFlockCommand, hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { expectNothingLeft, lockFilesIn, refusalOf } from "../support/gateways.ts";
import { aborted, acquire, heirs, reached } from "../support/handovers.ts";
import { bodyOf, Rival, stop, until } from "../support/listener-tools.ts";
import { flockCommandGets } from "../support/locks.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux && hasFlockCommand, "needs procfs and flock(1)");
const itWithRivals = itWhere(isLinux && hasPython, "needs python3 on Linux");

const serving = (body: string): Server => createServer((_, response) => response.end(body));
const SOCKET = "locks/gateway.state.sock";

/** What happens to claims, in order. */
function story(): string[] {
  const told: string[] = [];
  for (const event of ["acquire", "refused", "takeover", "handover", "lost", "release"]) {
    const name = `gateway-lock:${event}`;
    const tell = (message: unknown) => told.push(`${event} ${(message as GatewayLockMessage).ownerId}`);
    subscribe(name, tell);
    onTestFinished(() => {
      unsubscribe(name, tell);
    });
  }
  return told;
}

async function served(gateway: Gateway, body: string, port?: number): Promise<Server> {
  const server = serving(body);
  await gateway.listen(server, port);
  if (port === undefined) gateway.ready();
  return server;
}

describe("a handover", () => {
  it("gives the successor a complete gateway, after the owner's last words", async () => {
    const told = story();
    const words: string[] = [];
    const options = await heirs({ metadata: { generation: 1 } });
    const onHandover = async () => {
      words.push(`last words, in phase ${readOwner(old.lockPaths[0] ?? "").record?.phase}`);
    };
    const old = await acquire({ ...options, handover: { onHandover } });
    const server = await served(old, "old");
    const closed = new Promise((resolve) => server.once("close", resolve));
    const mode = lstatSync(join(options.stateDir, SOCKET)).mode;
    expect(mode & 0o777).toBe(0o600);

    const successor = await acquire({ ...options, metadata: { generation: 2 } });

    expect(words).toEqual(["last words, in phase stopping"]);
    expect(await aborted(old.handedOver)).toBe(`the gateway has been handed over to pid ${process.pid}`);
    await closed;
    expect(old.lost.aborted).toBe(false);
    expect(successor).toMatchObject({ port: options.port, addresses: old.addresses, lockPaths: old.lockPaths });
    const { record, holders } = readOwner(successor.lockPaths[0] ?? "");
    expect(record).toMatchObject({ ownerId: successor.owner.ownerId, phase: "listening", metadata: { generation: 2 } });
    expect(holders).toEqual([process.pid]);
    expect(told).toEqual([
      `acquire ${old.owner.ownerId}`,
      `handover ${old.owner.ownerId}`,
      `takeover ${successor.owner.ownerId}`,
      `acquire ${successor.owner.ownerId}`,
    ]);

    await served(successor, "new");
    expect(await bodyOf(options.port)).toBe("new");
    successor.assertCurrent();
    await successor.close();
    expectNothingLeft(options.stateDir);
  });

  it("leaves the old gateway nothing to do, and nothing to delete", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const successor = await acquire(options);
    const files = readdirSync(join(options.stateDir, "locks"));

    await old.close();
    await old.close({ force: true });
    old.ready();

    expect(readdirSync(join(options.stateDir, "locks"))).toEqual(files);
    const over = `the gateway has been handed over to pid ${process.pid}`;
    await expect(old.listen(serving("old"))).rejects.toMatchObject({
      code: "HANDOFF_FAILED",
      message: expect.stringContaining(over),
    });
    expect(() => old.assertCurrent()).toThrow(over);
    expect(() => old.update({ metadata: {} })).toThrow(over);
    expect(readOwner(successor.lockPaths[0] ?? "").record?.ownerId).toBe(successor.owner.ownerId);
    successor.assertCurrent();
  });

  it("leaves lock files and record to the successor, though the owner exits or writes in the middle of it", async () => {
    const options = await heirs();
    const { stateDir, port } = options;
    const exiting = startFixture("handover-gateway.mjs", {
      options: { stateDir, port },
      stopAt: "owner sent",
      signal: "exit",
    });
    await exiting.next("acquired");
    const files = lockFilesIn(stateDir);
    const inodes = () => files.map((name) => lstatSync(join(stateDir, "locks", name)).ino);
    const before = inodes();
    const successor = await acquire(options);
    await exiting.exited;
    expect(lockFilesIn(stateDir)).toEqual(files);
    // All but the socket's, which is the successor's own.
    expect(inodes().slice(0, 2)).toEqual(before.slice(0, 2));

    const written = reached("owner", "confirmed", () => successor.update({ metadata: { late: true } }));
    const next = await acquire({ ...options, metadata: { generation: 3 } });
    await written;
    const { record } = readOwner(next.lockPaths[0] ?? "");
    expect(record).toMatchObject({ ownerId: next.owner.ownerId, metadata: { generation: 3 } });
  });

  it("deletes the files of locks that the successor has no use for, and no others", async () => {
    const [workspace, elsewhere] = [temporaryDirectory(), temporaryDirectory()];
    const options = await heirs();
    const old = await acquire({ ...options, locks: [workspace], configPath: join(elsewhere, "a.json") });
    expect(lockFilesIn(workspace)).toHaveLength(1);
    const successor = await acquire(options);
    expect(lockFilesIn(workspace)).toEqual([]);
    expect(lockFilesIn(elsewhere)).toEqual([]);
    expect(flockCommandGets(workspace)).toBe("granted");
    successor.assertCurrent();
    expect(old.lost.aborted).toBe(false);
    await successor.close();
    expectNothingLeft(options.stateDir);
  });

  itWithRivals("leaves a port to the child that has it, which goes on accepting there", async () => {
    const reserved = await freePort();
    const options = await heirs({ reserve: [reserved] });
    const old = await acquire({ ...options, handover: { onHandover: firstTimeRefused() } });
    const accept = `
import socket, sys
listener = socket.socket(fileno=3)
print('{"event": "accepting"}', flush=True)
while True:
    client, _ = listener.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nchild")
    client.close()
`;
    const child = new TestProcess("python3", ["-c", accept], {}, [old.claim(reserved)]);
    await child.next("accepting");
    expect(await bodyOf(reserved)).toBe("child");
    await refusalOf(options);
    expect(await bodyOf(reserved)).toBe("child");
    const successor = await acquire(options);
    expect(await bodyOf(reserved)).toBe("child");
    successor.ready();
    await successor.close();
    expect(await bodyOf(reserved)).toBe("child");
  });

  it("leaves clients of a reserved port waiting for its server, and no longer than until the successor is ready", async () => {
    const reserved = await freePort();
    const options = await heirs({ reserve: [reserved] });
    const old = await acquire(options);
    await stop(await served(old, "old", reserved)); // from now on clients are turned away
    await expect(bodyOf(reserved)).rejects.toMatchObject({ code: "ECONNRESET" });
    const early: Promise<string>[] = [];
    const written = reached("owner", "written", () => early.push(bodyOf(reserved)));
    const successor = await acquire(options);
    await written;
    await served(successor, "new", reserved);
    expect(await Promise.all(early)).toEqual(["new"]);
    const next = await acquire(options);
    next.ready();
    await expect(bodyOf(reserved)).rejects.toMatchObject({ code: "ECONNRESET" });
    await served(next, "later", reserved);
    expect(await bodyOf(reserved)).toBe("later");
  });

  it("goes to and fro forty times, and leaves no descriptor and no thread", async () => {
    const options = await heirs({ reserve: [await freePort()] });
    const threads = () => readdirSync("/proc/self/task").length;
    let gateway = await acquire(options);
    await served(gateway, "first");
    gateway = await acquire(options); // once, for what is opened only once
    await served(gateway, "second");
    const [descriptors, before] = [openDescriptors(), threads()];
    for (let time = 0; time < 40; time++) {
      gateway = await acquire(options);
      await served(gateway, String(time));
      expect(await bodyOf(options.port)).toBe(String(time));
    }
    await until(() => openDescriptors() === descriptors && threads() <= before);
    await gateway.close();
    expectNothingLeft(options.stateDir);
  });

  itWithRivals("has all the reserved ports, served or not, and as many descriptors as two messages take", async () => {
    const rival = new Rival();
    const reserve = new Set<number>();
    while (reserve.size < 140) reserve.add(await rival.unusedPort());
    const options = await heirs({ reserve: [...reserve] });
    const [first = 0, second = 0] = reserve;
    const old = await acquire(options);
    await served(old, "old");
    await served(old, "old reserved", first);
    expect(old.addresses.length).toBeGreaterThan(253);

    const successor = await acquire(options);

    expect(successor.addresses).toEqual(old.addresses);
    await served(successor, "new");
    await served(successor, "new reserved", first);
    await served(successor, "new second", second);
    expect(await bodyOf(first)).toBe("new reserved");
    expect(await bodyOf(second)).toBe("new second");
    for (const port of [options.port, first, second]) expect((await rival.attempt(port)).won).toEqual([]);
    const other = await refusalOf({ ...options, stateDir: temporaryDirectory(), handover: undefined });
    expect(other.code).toBe("ALREADY_LISTENING");
  });

  it("has its socket beside the lock files, however long that path is", async () => {
    const deep = join(temporaryDirectory(), ..."0123456789".split("").map((digit) => digit.repeat(60)));
    const lockDir = join(deep, "locks of all");
    const options = await heirs({ stateDir: join(deep, "state"), lockDir });
    const old = await acquire(options);
    const [name = ""] = readdirSync(lockDir).filter((file) => file.endsWith(".sock"));
    expect(name).toMatch(/^gateway\.state\.[0-9a-f]{8}\.sock$/);
    await acquire(options);
    await aborted(old.handedOver);
  });

  it("takes a config, a workspace and a port more than the owner had, and leaves what it does not want", async () => {
    const workspace = temporaryDirectory();
    const [one, two] = [await freePort(), await freePort()];
    const options = await heirs({ reserve: [one] });
    const old = await acquire(options);
    const successor = await acquire({ ...options, locks: [workspace], reserve: [two] });
    expect(flockCommandGets(workspace)).toBe("refused");
    expect(successor.addresses.map(({ port }) => port)).toEqual(expect.arrayContaining([options.port, two]));
    const taker = await acquire({ stateDir: temporaryDirectory(), port: one });
    expect(taker.port).toBe(one);
    await aborted(old.handedOver);
  });

  it("is between a worker thread and the process as between two processes", async () => {
    const options = await heirs();
    const worker = new Worker(
      `import { parentPort, workerData } from "node:worker_threads";
       import { acquireGateway } from "${new URL("../../dist/index.js", import.meta.url)}";
       const gateway = await acquireGateway(workerData);
       parentPort.postMessage("acquired");
       gateway.handedOver.addEventListener("abort", () => parentPort.postMessage("handed over"));
       parentPort.on("message", () => process.exit());`,
      { eval: true, workerData: options },
    );
    onTestFinished(async () => {
      await worker.terminate();
    });
    const messages: unknown[] = [];
    worker.on("message", (message) => messages.push(message));
    await until(() => messages.includes("acquired"));
    const successor = await acquire(options);
    await until(() => messages.includes("handed over"));
    await worker.terminate();
    successor.assertCurrent();
    expect(existsSync(join(options.stateDir, SOCKET))).toBe(true);
  });
});

/** Throws, when it is called for the first time. */
function firstTimeRefused(): () => void {
  let times = 0;
  return () => {
    if (++times === 1) throw new Error("not yet");
  };
}

describe("a handover that comes to nothing", () => {
  it("leaves lock files and record to the owner, though the successor has written its own and exits", async () => {
    const elsewhere = temporaryDirectory();
    // So that the successor's record, with its metadata, takes a block more.
    const stateDir = join(temporaryDirectory(), ...Array.from({ length: 7 }, () => "long".repeat(60)));
    const options = await heirs({ stateDir, configPath: join(elsewhere, "a.json") });
    const old = await acquire(options);
    await served(old, "old");
    const files = [...old.lockPaths, join(stateDir, SOCKET)];
    const inodes = () => files.slice(0, 2).map((path) => lstatSync(path).ino);
    const before = inodes();
    for (const signal of ["exit", "SIGKILL"]) {
      const resumed = reached("owner", "resumed");
      const successor = startFixture("handover-gateway.mjs", {
        options: { ...options, handover: undefined, metadata: { long: "x".repeat(2000) } },
        stopAt: "successor published",
        signal,
      });
      await successor.exited;
      await resumed;
      expect(inodes()).toEqual(before);
      const { record, torn } = readOwner(old.lockPaths[0] ?? "");
      expect(torn).toBe(false);
      expect(record).toMatchObject({ ownerId: old.owner.ownerId, phase: "ready" });
    }
    // By the owner's own socket, and not by what a dead one has left in its place; nobody has made it look for that.
    const successor = await acquire(options);
    await aborted(old.handedOver);
    expect(old.lost.aborted).toBe(false);
    await successor.close();
    expectNothingLeft(stateDir);
    expect(lockFilesIn(elsewhere)).toEqual([]);
  });

  it("because the successor can't begin although it owns, leaves nothing of that behind", async () => {
    const elsewhere = temporaryDirectory();
    const options = await heirs();
    const old = await acquire(options);
    await served(old, "old");
    const socket = join(options.stateDir, SOCKET);
    const inTheWay = reached("successor", "taken", () => {
      rmSync(socket);
      writeFileSync(socket, "mine");
    });
    const resumed = reached("owner", "resumed");
    const error = await refusalOf({ ...options, configPath: join(elsewhere, "b.json") });
    await inTheWay;
    await resumed;
    expect(error.message).toContain("its handover socket can't be made: EADDRINUSE");
    expect(lockFilesIn(elsewhere)).toEqual([]);
    expect(readOwner(old.lockPaths[0] ?? "").record).toMatchObject({ ownerId: old.owner.ownerId, phase: "ready" });
    expect(await bodyOf(options.port)).toBe("old");
    rmSync(socket);
    await until(() => existsSync(socket));
    await acquire(options);
  });

  it("is no time for the owner to be sure of its locks", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const told: unknown[] = [];
    const sent = reached("successor", "received", () => {
      try {
        old.assertCurrent();
      } catch (error) {
        told.push((error as Error).message);
      }
    });
    await acquire(options);
    await sent;
    expect(told).toEqual([expect.stringContaining("a successor may have it by now")]);
  });

  it("lets a standby go on waiting, and have what the owner gives up", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const closing = reached("successor", "received", () => void old.close());
    const standby = acquire({ ...options, timeout: Infinity });
    await closing;
    (await standby).assertCurrent();
    expect(old.handedOver.aborted).toBe(false);
  });

  it("lets nobody in before the application goes on", async () => {
    const options = await heirs();
    let goOn = () => {};
    const mayGoOn = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const old = await acquire({ ...options, handover: { onHandover: firstTimeRefused(), onResume: () => mayGoOn } });
    let isOpen = false;
    await old.listen(createServer((_, response) => response.end(isOpen ? "open" : "closed")));
    await refusalOf(options);
    const body = bodyOf(options.port);
    expect(await Promise.race([body, delay(100, "nobody")])).toBe("nobody");
    isOpen = true;
    goOn();
    expect(await body).toBe("open");
  });

  it("leaves the phase that the application has come to meanwhile", async () => {
    const options = await heirs();
    const ready = () => {
      old.ready();
      throw new Error("not yet");
    };
    const old: Gateway = await acquire({ ...options, handover: { onHandover: ready } });
    const resumed = reached("owner", "resumed");
    await refusalOf(options);
    await resumed;
    expect(readOwner(old.lockPaths[0] ?? "").record?.phase).toBe("ready");
  });

  it("because onHandover throws, leaves the owner as it was, and it can be asked again", async () => {
    const told = story();
    const words: string[] = [];
    const hooks = {
      onHandover: () => {
        words.push("last words");
        if (words.length === 1) throw new Error("the database is busy");
      },
      onResume: () => void words.push("go on"),
    };
    const options = await heirs();
    const old = await acquire({ ...options, handover: hooks });
    await served(old, "old");
    const resumed = reached("owner", "resumed");

    const error = await refusalOf(options);
    await resumed;

    expect(error).toMatchObject({
      code: "HANDOVER_FAILED",
      message: "the running gateway did not hand over: its onHandover has failed: the database is busy",
      retryable: true,
      exitCode: 75,
      owner: { pid: process.pid },
    });
    expect(words).toEqual(["last words", "go on"]);
    expect(await bodyOf(options.port)).toBe("old");
    expect(readOwner(old.lockPaths[0] ?? "").record).toMatchObject({ ownerId: old.owner.ownerId, phase: "ready" });
    old.update({ metadata: { still: "here" } });
    expect(told.slice(1)).toEqual([expect.stringMatching(/^refused /)]);
    const successor = await acquire(options);
    expect(words).toEqual(["last words", "go on", "last words"]);
    await served(successor, "new");
    expect(await bodyOf(options.port)).toBe("new");
  });

  it("again and again, keeps an owner from nothing: a lock file that is deleted meanwhile is back within a second", async () => {
    const options = await heirs();
    const old = await acquire(options);
    await served(old, "old");
    const [path = ""] = old.lockPaths;
    rmSync(path);
    const deleted = performance.now();
    while (!existsSync(path) && performance.now() < deleted + 1000) {
      // It goes when it has been given everything: the owner has stopped to look by then.
      const leaving = new AbortController();
      const resumed = reached("owner", "resumed");
      void reached("successor", "received", () => leaving.abort(new Error("it leaves")));
      await expect(acquire({ ...options, signal: leaving.signal })).rejects.toThrow("it leaves");
      await resumed;
    }
    expect(existsSync(path)).toBe(true);
    expect(old.lost.aborted).toBe(false);
  });

  it("while there are no descriptors left, leaves an owner that serves on", async () => {
    const options = await heirs({ host: ["127.0.0.1", "127.0.0.2"] });
    const argument = JSON.stringify({ options: { ...options, handover: undefined }, hook: "exhaust" });
    const command = ["-c", 'ulimit -n 100 && exec "$@"', "sh", process.execPath];
    const old = new TestProcess("/bin/sh", [...command, fixturePath("handover-gateway.mjs"), argument]);
    await old.next("acquired");
    expect((await refusalOf(options)).message).toMatch(/: its onHandover has failed: EMFILE/);
    await old.next("owner resumed");
    old.send("free");
    for (const host of options.host as string[]) expect(await bodyOf(options.port, host)).toBe(String(old.pid));
  });

  it("because onDrain throws, says so, and the owner serves on", async () => {
    const options = await heirs();
    const onDrain = () => {
      throw new Error("a client is dear to it");
    };
    const old = await acquire({ ...options, handover: { onDrain } });
    await served(old, "old");
    expect((await refusalOf(options)).message).toBe(
      "the running gateway did not hand over: its onDrain has failed: a client is dear to it",
    );
    expect(await bodyOf(options.port)).toBe("old");
  });

  it("keeps nobody from closing the gateway, though its server never says that it listens", async () => {
    const options = await heirs({ timeout: 10_000 });
    const old = await acquire(options);
    const server = Object.assign(serving("old"), { listen: () => server });
    const listening = old.listen(server).catch((error: unknown) => error);
    const asked = reached("owner", "asked");
    const successor = acquire(options);
    await asked;
    await old.close();
    expect(await listening).toMatchObject({ code: "HANDOFF_FAILED" });
    await served(await successor, "new");
    expect(await bodyOf(options.port)).toBe("new");
  });

  it("because a port that the successor wants is taken, tells it so", async () => {
    const taken = await freePort();
    await acquire({ stateDir: temporaryDirectory(), port: taken });
    const options = await heirs();
    const old = await acquire(options);
    const resumed = reached("owner", "resumed");
    const error = await refusalOf({ ...options, reserve: [taken] });
    await resumed;
    expect(error.code).toBe("HANDOVER_FAILED");
    expect(error.message).toContain(`another gateway instance is already listening on ws://127.0.0.1:${taken}`);
    old.assertCurrent();
    await old.close();
    expectNothingLeft(options.stateDir);
  });

  it("because the successor wants the port at another address, says what to do", async () => {
    const options = await heirs();
    await acquire(options);
    const resumed = reached("owner", "resumed");
    const { code, message } = await refusalOf({ ...options, host: "0.0.0.0" });
    await resumed;
    expect(code).toBe("HANDOVER_FAILED");
    expect(message).toMatch(/the running gateway has it at 127\.0\.0\.1, where it listens; give both the same/);
  });

  it("because the successor gives up, is noticed at once, and the owner's server serves on", async () => {
    const options = await heirs();
    let letGo = () => {};
    const lastWords = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const hooks = { onHandover: () => lastWords };
    const old = await acquire({ ...options, handover: hooks });
    const server = await served(old, "old");
    const controller = new AbortController();
    const [drained, resumed] = [reached("owner", "drained"), reached("owner", "resumed")];
    const attempt = refusal(options, controller.signal);
    await drained;
    controller.abort(new Error("changed my mind"));
    expect(await attempt).toBe("changed my mind");
    letGo();
    await resumed;
    expect(server.listening).toBe(true);
    expect(await bodyOf(options.port)).toBe("old");
    await stop(server);
    await served(old, "old, again");
    expect(await bodyOf(options.port)).toBe("old, again");
  });

  it("because the owner is closed in its last words, lets the successor in who waits", async () => {
    const options = await heirs();
    const old: Gateway = await acquire({ ...options, handover: { onHandover: () => old.close() } });
    const server = await served(old, "old");
    const closed = new Promise((resolve) => server.once("close", resolve));
    const successor = await acquire({ ...options, timeout: 10_000 });
    await closed;
    await served(successor, "new");
    expect(await bodyOf(options.port)).toBe("new");
    expect(old.handedOver.aborted).toBe(false);
  });

  it("keeps a server waiting that comes in the middle of it", async () => {
    const options = await heirs();
    const old: Gateway = await acquire({
      ...options,
      handover: {
        onHandover: () => {
          listening = old.listen(serving("old"));
          throw new Error("no");
        },
      },
    });
    let listening: Promise<void> | undefined;
    expect((await refusalOf(options)).message).toMatch(/: no$/);
    await listening;
    expect(await bodyOf(options.port)).toBe("old");

    const next = await acquire({ ...options, stateDir: temporaryDirectory(), port: await freePort() });
    const drained = reached("owner", "drained");
    const successor = acquire({ ...options, stateDir: next.owner.stateDir ?? "", port: next.port });
    await drained;
    const error = await next.listen(serving("next")).catch((refused: unknown) => refused);
    expect(error).toMatchObject({ code: "HANDOFF_FAILED", message: expect.stringContaining("handed over to pid") });
    await successor;
  });

  it("lets the application do in onResume what it likes: serve anew, or close the gateway", async () => {
    const options = await heirs();
    let server: Server;
    const old: Gateway = await acquire({
      ...options,
      handover: {
        onHandover: async () => {
          await stop(server);
          throw new Error("no");
        },
        onResume: async () => {
          if ((await refusalOf({ ...options, handover: undefined })).code !== "ALREADY_LISTENING") return;
          server = await served(old, "again");
        },
      },
    });
    server = await served(old, "old");
    const resumed = reached("owner", "resumed");
    await refusalOf(options);
    await resumed;
    expect(await bodyOf(options.port)).toBe("again");

    const other = await heirs();
    const fails = () => {
      throw new Error("no");
    };
    const closing: Gateway = await acquire({
      ...other,
      handover: { onHandover: fails, onResume: () => closing.close() },
    });
    const closed = reached("owner", "resumed");
    await refusalOf(other);
    await closed;
    expectNothingLeft(other.stateDir);
  });

  it("with a server that was closed in the last words, leaves the port to the next one", async () => {
    const options = await heirs();
    let server: Server;
    const hooks = {
      onHandover: async () => {
        await stop(server);
        throw new Error("no");
      },
    };
    const old = await acquire({ ...options, handover: hooks });
    server = await served(old, "old");
    const resumed = reached("owner", "resumed");
    await refusalOf(options);
    await resumed;
    expect(readOwner(old.lockPaths[0] ?? "").record?.phase).toBe("listening");
    await served(old, "another");
    expect(await bodyOf(options.port)).toBe("another");
  });

  async function refusal(options: Parameters<typeof acquire>[0], signal: AbortSignal): Promise<string> {
    return await acquire({ ...options, signal }).then(
      () => "acquired",
      (error: Error) => error.message,
    );
  }
});

describe("who asks for a handover", () => {
  it("just starts, where nobody has the gateway", async () => {
    const options = await heirs();
    expect((await acquire(options)).port).toBe(options.port);
  });

  it("is refused by an owner that does not offer it", async () => {
    const options = await heirs();
    const old = await acquire({ ...options, handover: undefined });
    expect(await refusalOf(options)).toMatchObject({
      code: "HANDOVER_FAILED",
      message:
        "the running gateway did not hand over: it does not offer that: it was started without `handover`, and has to be stopped first; or it is just starting or ending",
      cause: { message: expect.stringContaining(`pid ${process.pid} has it`) },
    });
    old.assertCurrent();
  });

  it("is refused as any duplicate, if it does not ask", async () => {
    const options = await heirs();
    await acquire(options);
    const error = await refusalOf({ ...options, handover: undefined });
    expect(error.code).toBe("ALREADY_LISTENING");
    expect((error.cause as Error).message).toContain(
      "it can be taken over by a process that is started with `handover`",
    );
  });

  it("is refused, before the owner hears of it, if it would listen elsewhere", async () => {
    const words: string[] = [];
    const options = await heirs();
    const old = await acquire({ ...options, handover: { onHandover: () => void words.push("last words") } });
    await served(old, "old");
    const port = await freePort();
    expect((await refusalOf({ ...options, port })).message).toBe(
      `the running gateway did not hand over: it listens on port ${options.port}, and this one would on ${port}, which would refuse its clients: give both the same, or stop the old one first`,
    );
    expect(words).toEqual([]);
    const resumed = reached("owner", "resumed");
    expect((await refusalOf({ ...options, host: "127.0.0.2" })).message).toContain(
      `it listens on 127.0.0.1 port ${options.port}, where this one would refuse its clients: give both the same`,
    );
    await resumed;
    expect(await bodyOf(options.port)).toBe("old");
  });

  it("is told whose config it is, where that belongs to another state directory", async () => {
    const options = await heirs();
    await acquire(options);
    const configPath = join(options.stateDir, "gateway.json");
    const error = await refusalOf({ ...options, stateDir: temporaryDirectory(), configPath });
    expect(error.message).toBe(
      `the running gateway did not hand over: it has the config ${configPath}, and another state directory`,
    );
  });

  it("waits, with a timeout, for an owner that does not offer it", async () => {
    const options = await heirs();
    const old = await acquire({ ...options, handover: undefined });
    const successor = acquire({ ...options, timeout: 10_000 });
    await new Promise(setImmediate);
    await old.close();
    expect((await successor).port).toBe(options.port);
  });

  it("comes too early for a successor that has not begun, and waits until it has", async () => {
    const options = await heirs();
    const words: string[] = [];
    // It does not let go until it is told to, and its successor waits for that for a second.
    const old = startFixture("handover-gateway.mjs", {
      options: { ...options, handover: undefined },
      stopAt: "owner confirmed",
      signal: "SIGSTOP",
    });
    await old.next("acquired");
    const confirmed = reached("successor", "confirmed");
    const second = acquire({ ...options, handover: { onHandover: () => void words.push("last words") } });
    const began = second.then(() => void words.push("begins"));
    await confirmed;
    const third = acquire(options);
    await began;
    await third;
    expect(words).toEqual(["begins", "last words"]);
    expect((await second).handedOver.aborted).toBe(true);
    old.child.kill("SIGCONT");
    await old.next("handed-over");
  });

  it("asks again, with a timeout, when another one was being served, whoever has it then", async () => {
    const options = await heirs();
    let letGo = () => {};
    const lastWords = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const first = await acquire({ ...options, handover: { onHandover: () => lastWords } });
    const drained = reached("owner", "drained");
    const second = acquire(options);
    await drained;
    const third = acquire({ ...options, timeout: 10_000 });
    await expect(acquire(options)).rejects.toThrow("it is being handed over to another successor already");
    letGo();
    await aborted(first.handedOver);
    await aborted((await second).handedOver);
    (await third).assertCurrent();
  });

  it("takes no lock of another gateway whose lock files somebody has just wiped", async () => {
    const [other, options] = [await heirs(), await heirs()];
    const victim = await acquire(other);
    const owner = await acquire(options);
    rmSync(join(other.stateDir, "locks"), { recursive: true });
    const resumed = reached("owner", "resumed");
    const error = await refusalOf({ ...options, configPath: join(other.stateDir, "gateway.json") });
    await resumed;
    expect(error.code).toBe("HANDOVER_FAILED");
    victim.assertCurrent();
    expect(victim.lost.aborted).toBe(false);
    owner.assertCurrent();
  });

  it("is one of several: each has it in turn, or is told that another one is being served", async () => {
    const options = await heirs();
    const first = startFixture("handover-gateway.mjs", { options: { ...options, handover: undefined } });
    await first.next("acquired");
    const all = Array.from({ length: 4 }, () =>
      startFixture("handover-gateway.mjs", { options: { ...options, handover: undefined, timeout: 15_000 } }),
    );
    await Promise.all(all.map((each) => each.next("acquired")));
    await first.next("handed-over");
    const { record, holders } = readOwner(join(options.stateDir, "locks/gateway.state.lock"));
    expect(holders).toEqual([record?.pid]);
    expect(all.filter(({ pid }) => pid === record?.pid)).toHaveLength(1);
  });
});

describe("a supervised successor", () => {
  it("asks an owner that does not hand over once, and then looks whether that is well", async () => {
    const options = await heirs();
    let times = 0;
    const refuse = () => {
      times++;
      throw new Error("never");
    };
    await acquire({ ...options, handover: { onHandover: refuse } });
    vi.stubEnv("GATEWAY_LOCK_SUPERVISOR", "pm2");
    onTestFinished(() => void vi.unstubAllEnvs());
    const start = superviseGateway({ ...options, retry: { interval: 20, limit: 200 }, health: { timeout: 20 } });
    await expect(start).rejects.toMatchObject({ code: "NOT_HEALTHY" });
    expect(times).toBe(1);
  });
});

describe("the socket", () => {
  it("goes with the lock files: by close(), and by process.exit()", async () => {
    const options = await heirs();
    const gateway = startFixture("handover-gateway.mjs", { options: { ...options, handover: undefined } });
    await gateway.next("acquired");
    expect(lockFilesIn(options.stateDir)).toContain("gateway.state.sock");
    gateway.send("exit");
    await gateway.exited;
    expect(lockFilesIn(options.stateDir)).toEqual([]);
  });

  it("is made again with the lock files, when somebody wipes them", async () => {
    const options = await heirs();
    const gateway = await acquire(options);
    rmSync(join(options.stateDir, "locks"), { recursive: true });
    await until(() => existsSync(join(options.stateDir, SOCKET)));
    await acquire(options);
    await aborted(gateway.handedOver);
  });

  it("of a dead owner is replaced", async () => {
    const options = await heirs();
    const dead = startFixture("handover-gateway.mjs", { options: { ...options, handover: undefined } });
    await dead.next("acquired");
    await dead.kill();
    expect(lockFilesIn(options.stateDir)).toContain("gateway.state.sock");
    const gateway = await acquire(options);
    await acquire(options);
    await aborted(gateway.handedOver);
  });

  it("is no other file: what is there stays, and the start is refused", async () => {
    const options = await heirs();
    mkdirSync(join(options.stateDir, "locks"), { mode: 0o700 });
    const path = join(options.stateDir, SOCKET);
    writeFileSync(path, "mine");
    const error = await refusalOf(options);
    expect(error.code).toBe("LOCK_FAILED");
    expect(error.message).toContain(`${path}: its handover socket can't be made: EADDRINUSE`);
    expectNothingLeft(options.stateDir, ["gateway.state.sock"]);
    rmSync(path);
    await acquire(options);
  });
});
