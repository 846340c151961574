// A claim lives from acquire to close or to the end of its process, and everything it held is free in the right order.

import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createServer, request as httpRequest, type IncomingMessage } from "node:http";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { describe, expect, it, onTestFinished } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import type { Gateway } from "../lib/gateway.ts";
import { bindExclusive } from "../lib/listener/claim.ts";
import { readOwner } from "../lib/lock/record.ts";
import type { GatewayOptions } from "../lib/options.ts";
import { hasStrace, itWhere } from "./support/capabilities.ts";
import { acquire, holdWithFlock, isPortFree, lockFilesIn, refusalOf } from "./support/gateways.ts";
import { fixturePath, startFixture, startGateway, TestProcess } from "./support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "./support/temporary.ts";

const TAKEOVER = 1000; // ms, from the owner's end to the waiter's claim
const PATIENCE = 200; // ms that a patient close gives its clients

function phaseOf({ lockPaths }: Gateway): string | null | undefined {
  const phases = lockPaths.map((path) => readOwner(path).record?.phase);
  expect(new Set(phases).size).toBe(1);
  return phases[0];
}

function answerOf(port: number, path = "/", host = "127.0.0.1"): Promise<{ response: IncomingMessage; body: string }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ port, host, path, agent: false }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text) => {
        body += text;
      });
      response.on("end", () => resolve({ response, body }));
    });
    request.on("error", reject).end();
  });
}

/** A gateway with a server that has WebSocket clients who never leave. */
async function crowded(options: Partial<GatewayOptions> = {}) {
  const stateDir = temporaryDirectory();
  const gateway = await acquire({ stateDir, port: await freePort(), ...options });
  const server = createServer((_, response) => response.end("served"));
  new WebSocketServer({ server });
  await gateway.listen(server);
  const clients: WebSocket[] = [];
  for (let i = 0; i < 3; i++) {
    const client = new WebSocket(`ws://127.0.0.1:${gateway.port}`);
    client.on("error", () => {});
    onTestFinished(() => client.terminate());
    await once(client, "open");
    clients.push(client);
  }
  return { gateway, server, clients, stateDir };
}

describe("phases", () => {
  it("go from listening to ready, back to listening when the user closes the server, and stopping", async () => {
    const { gateway, server, clients } = await crowded();
    expect(phaseOf(gateway)).toBe("listening");
    gateway.ready();
    expect(phaseOf(gateway)).toBe("ready");
    expect(gateway.owner.phase).toBe("ready");

    for (const client of clients) client.terminate();
    await new Promise((resolve) => server.close(resolve));
    expect(phaseOf(gateway)).toBe("listening");
    gateway.assertCurrent();
    expect(await refusalOf({ stateDir: gateway.owner.stateDir ?? "", port: gateway.port })).toMatchObject({
      code: "ALREADY_LISTENING",
    });

    const next = createServer((_, response) => response.end("next"));
    await gateway.listen(next);
    expect((await answerOf(gateway.port)).body).toBe("next");

    const client = new WebSocket(`ws://127.0.0.1:${gateway.port}`);
    client.on("error", () => {});
    next.on("upgrade", (_, socket) => onTestFinished(() => void socket.destroy()));
    await once(next, "upgrade");
    const closing = gateway.close({ timeout: PATIENCE });
    expect(phaseOf(gateway)).toBe("stopping");
    gateway.ready();
    expect(phaseOf(gateway)).toBe("stopping");
    await closing;
  });

  it("are starting while the lock is held and the port is not yet", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const first = await acquire({ stateDir: temporaryDirectory(), port });
    // A waiter that gets the lock tries a refused bind again for a moment: it holds the lock, but not the port.
    const holder = await holdWithFlock(stateDir);
    const waiting = acquire({ stateDir, port, timeout: TAKEOVER });
    waiting.catch(() => {});
    await holder.kill();
    const lockPath = join(stateDir, "locks", "gateway.state.lock");
    await expect
      .poll(() => readOwner(lockPath), { interval: 1, timeout: TAKEOVER })
      .toMatchObject({ record: { phase: "starting", pid: process.pid, port }, locked: true });
    await first.close();
    const gateway = await waiting;
    expect(phaseOf(gateway)).toBe("listening");
  });

  it("are kept when the user's fields change", async () => {
    const gateway = await acquire({ stateDir: temporaryDirectory(), port: 0, metadata: { role: "primary" } });
    gateway.ready();
    const { ownerId, createdAt } = gateway.owner;
    gateway.update({ metadata: { role: "standby", nested: { list: [1, null] } } });
    for (const path of gateway.lockPaths) {
      expect(readOwner(path).record).toMatchObject({
        phase: "ready",
        ownerId,
        createdAt,
        metadata: { role: "standby", nested: { list: [1, null] } },
      });
    }
    expect(() => gateway.update({ metadata: { big: "x".repeat(2048) } })).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARG_VALUE" }),
    );
    await gateway.close();
    expect(() => gateway.update({ metadata: {} })).toThrow(expect.objectContaining({ code: "LOCK_LOST" }));
  });
});

describe("close", () => {
  it("closes the server first, with port and locks still held", async () => {
    const { gateway, server, clients } = await crowded();
    let atClose: unknown;
    server.once("close", () => {
      let rival: unknown = "got the port";
      try {
        bindExclusive({ port: gateway.port }).close();
      } catch (error) {
        rival = (error as NodeJS.ErrnoException).code;
      }
      atClose = { rival, files: gateway.lockPaths.map((path) => existsSync(path)) };
    });
    for (const client of clients) client.close();
    await gateway.close();
    expect(atClose).toEqual({ rival: "ALREADY_LISTENING", files: [true, true] });
    expect(await isPortFree(gateway.port)).toBe("free");
    expect(gateway.lockPaths.filter((path) => existsSync(path))).toEqual([]);
  });

  itWhere(hasStrace, "there is no strace")("frees the port before it deletes a lock file", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const trace = join(temporaryDirectory(), "trace");
    const gateway = new TestProcess("strace", [
      ...["-D", "-f", "-qq", "-yy", "-e", "trace=close,unlink", "-e", "signal=none", "-o", trace, process.execPath],
      ...[fixturePath("gateway.mjs"), JSON.stringify({ stateDir, port })],
    ]);
    await gateway.next("serving");
    gateway.send("close");
    await gateway.next("done");
    const calls = readFileSync(trace, "utf8").split("\n");
    const closes = calls.flatMap((call, at) => (/ close\(\d+<TCP/.test(call) && call.includes(`:${port}`) ? [at] : []));
    const unlinks = calls.flatMap((call, at) => (call.includes(" unlink(") && call.includes(stateDir) ? [at] : []));
    expect(closes.length).toBeGreaterThanOrEqual(2);
    expect(unlinks).toHaveLength(2);
    expect(Math.max(...closes)).toBeLessThan(Math.min(...unlinks));
  });

  it("keeps rivals off and refuses clients while it waits for the last connection", async () => {
    const { gateway, clients, stateDir } = await crowded();
    const closing = gateway.close();
    await expect(answerOf(gateway.port)).rejects.toMatchObject({
      code: expect.stringMatching(/^ECONN(REFUSED|RESET)$/),
    });
    await expect(answerOf(gateway.port)).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(await refusalOf({ stateDir: temporaryDirectory(), port: gateway.port })).toMatchObject({
      code: "ALREADY_LISTENING",
    });
    expect(await refusalOf({ stateDir, port: await freePort() })).toMatchObject({
      code: "ALREADY_RUNNING",
      message: `gateway already running (pid ${process.pid}); lock timeout after 0ms`,
    });
    expect(lockFilesIn(stateDir)).toHaveLength(2);
    for (const client of clients) client.close();
    await closing;
    expect(lockFilesIn(stateDir)).toEqual([]);
  });

  it("may be called again, during and after", async () => {
    const gateway = await acquire({ stateDir: temporaryDirectory(), port: 0 });
    const before = openDescriptors();
    await Promise.all([gateway.close(), gateway.close()]);
    const after = openDescriptors();
    expect(after).toBeLessThan(before);
    await gateway.close({ force: true });
    await gateway[Symbol.asyncDispose]();
    expect(openDescriptors()).toBe(after);
    await expect(gateway.listen(createServer())).rejects.toMatchObject({ code: "HANDOFF_FAILED" });
    expect(() => gateway.assertCurrent()).toThrow(expect.objectContaining({ code: "LOCK_LOST" }));
  });

  it("with a timeout ends the clients that never leave after it, and not before", async () => {
    const { gateway, clients } = await crowded();
    const gone = Promise.all(clients.map((client) => once(client, "close")));
    const began = performance.now();
    await gateway.close({ timeout: PATIENCE });
    expect(performance.now() - began).toBeGreaterThanOrEqual(PATIENCE - 1);
    await gone;
  });

  it("with force ends them at once, even when an earlier close is patient", async () => {
    const { gateway, clients } = await crowded();
    const gone = Promise.all(clients.map((client) => once(client, "close")));
    const patient = gateway.close();
    expect(await Promise.race([patient.then(() => "closed"), answerOf(gateway.port).catch(() => "waits")])).toBe(
      "waits",
    );
    await gateway.close({ force: true });
    await patient;
    await gone;
    expect(await isPortFree(gateway.port)).toBe("free");
  });

  it("comes at the end of an await using block", async () => {
    const stateDir = temporaryDirectory();
    let port: number;
    {
      await using gateway = await acquire({ stateDir, port: 0 });
      port = gateway.port;
      expect(lockFilesIn(stateDir)).toHaveLength(2);
    }
    expect(lockFilesIn(stateDir)).toEqual([]);
    expect(await isPortFree(port)).toBe("free");
  });
});

describe("the end of the process", () => {
  it.each([
    ["exit", "process.exit()", 0],
    ["throw", "an uncaught exception", 1],
  ])("by %s (%s) deletes the lock files", async (command, _, code) => {
    const stateDir = temporaryDirectory();
    const gateway = startGateway({ stateDir, port: await freePort() });
    await gateway.next("serving");
    expect(lockFilesIn(stateDir)).toHaveLength(2);
    gateway.send(command);
    expect(await gateway.exited).toMatchObject({ code });
    expect(lockFilesIn(stateDir)).toEqual([]);
  });

  it("comes by itself while a claim is held, which then deletes its lock files", async () => {
    const stateDir = temporaryDirectory();
    const gateway = startFixture("gateway-contender.mjs");
    await gateway.next("loaded");
    gateway.send(JSON.stringify({ command: "acquire", options: { stateDir, port: await freePort() } }));
    await gateway.next("acquired");
    gateway.send(JSON.stringify({ command: "idle" }));
    expect(await gateway.exited).toEqual({ code: 0, signal: null });
    expect(lockFilesIn(stateDir)).toEqual([]);
  });

  it("by SIGKILL leaves the lock files, and the next gateway reclaims them", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const owner = startGateway({ stateDir, port });
    await owner.next("serving");
    await owner.kill();
    expect(lockFilesIn(stateDir)).toHaveLength(2);
    const [lockPath = ""] = lockFilesIn(stateDir).map((file) => join(stateDir, "locks", file));
    expect(readOwner(lockPath)).toMatchObject({ record: { pid: owner.pid }, holders: [] });
    const gateway = await acquire({ stateDir, port });
    expect(readOwner(lockPath)).toMatchObject({ record: { pid: process.pid }, locked: true, holders: [process.pid] });
    await gateway.close();
    expect(lockFilesIn(stateDir)).toEqual([]);
  });

  it("leaves neither lock nor port to a child process that lives on", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const parent = startFixture("gateway-parent.mjs", { stateDir, port });
    const { child } = await parent.next("parent");
    onTestFinished(() => {
      process.kill(child, "SIGKILL");
    });
    await parent.kill();
    const gateway = await acquire({ stateDir, port });
    expect(gateway.port).toBe(port);
    expect(readFileSync(`/proc/${child}/comm`, "utf8")).toBe("sleep\n");
  });
});

describe("a wait", () => {
  it.each([
    ["closes", (owner: TestProcess) => owner.send("close")],
    ["is killed", (owner: TestProcess) => void owner.kill()],
  ])("ends with the claim when the owner %s", async (_, end) => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const owner = startGateway({ stateDir, port });
    await owner.next("serving");
    const waiting = acquire({ stateDir, port, timeout: Infinity });
    // The waiter has been refused at least once when this one has.
    await refusalOf({ stateDir, port });
    const ended = performance.now();
    end(owner);
    const gateway = await waiting;
    expect(performance.now() - ended).toBeLessThan(TAKEOVER);
    expect(gateway.owner).toMatchObject({ pid: process.pid, port });
  });

  it("ends at the timeout with what the owner does then", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    await acquire({ stateDir, port });
    const began = performance.now();
    expect(await refusalOf({ stateDir, port, timeout: PATIENCE })).toMatchObject({ code: "ALREADY_LISTENING" });
    expect(performance.now() - began).toBeGreaterThanOrEqual(PATIENCE - 1);
  });

  it("ends with the signal's reason", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    await acquire({ stateDir, port });
    const controller = new AbortController();
    const waiting = acquire({ stateDir, port, timeout: Infinity, signal: controller.signal });
    waiting.catch(() => {});
    await refusalOf({ stateDir, port });
    controller.abort("a reason of the user's");
    await expect(waiting).rejects.toBe("a reason of the user's");
  });

  it("keeps the event loop alive", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const owner = await acquire({ stateDir, port });
    const waiter = startFixture("gateway-contender.mjs");
    await waiter.next("loaded");
    waiter.send(JSON.stringify({ command: "acquire", options: { stateDir, port, timeout: 10_000 } }));
    waiter.send(JSON.stringify({ command: "idle" }));
    await waiter.next("idle");
    await refusalOf({ stateDir, port, timeout: PATIENCE });
    await owner.close();
    expect(await waiter.next("acquired", "refused")).toMatchObject({ event: "acquired", owner: { pid: waiter.pid } });
    expect(await waiter.exited).toMatchObject({ code: 0 });
  });
});

describe("one process", () => {
  it("may have two gateways on different directories and ports", async () => {
    const first = await acquire({ stateDir: temporaryDirectory(), port: await freePort() });
    const second = await acquire({ stateDir: temporaryDirectory(), port: await freePort() });
    expect(second.owner.ownerId).not.toBe(first.owner.ownerId);
    await first.close();
    second.assertCurrent();
    expect(lockFilesIn(second.owner.stateDir ?? "")).toHaveLength(2);
  });

  it("is refused a directory that it has, like anybody else, with its own pid", async () => {
    const stateDir = temporaryDirectory();
    const gateway = await acquire({ stateDir, port: await freePort() });
    expect(await refusalOf({ stateDir, port: await freePort() })).toMatchObject({
      code: "ALREADY_LISTENING",
      port: gateway.port,
      owner: { pid: process.pid },
      listener: { pid: process.pid },
    });
    gateway.assertCurrent();
  });

  it("frees lock and port of a worker thread that is terminated", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(fixturePath("gateway-worker.mjs"), { workerData: { stateDir, port } });
      onTestFinished(async () => void (await worker.terminate()));
      const [answer] = await once(worker, "message");
      expect(answer).toEqual({ event: "acquired", pid: process.pid, port });
      expect(await refusalOf({ stateDir, port })).toMatchObject({ code: "ALREADY_LISTENING" });
      await worker.terminate();
    }
    const gateway = await acquire({ stateDir, port });
    await gateway.close();
  });

  it("deletes the lock files of a worker thread that closes", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const worker = new Worker(fixturePath("gateway-worker.mjs"), { workerData: { stateDir, port } });
    onTestFinished(async () => void (await worker.terminate()));
    await once(worker, "message");
    worker.postMessage("close");
    expect(await once(worker, "message")).toEqual([{ event: "closed" }]);
    expect(lockFilesIn(stateDir)).toEqual([]);
    expect(await isPortFree(port)).toBe("free");
  });
});

describe("healthz", () => {
  const external = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .find(({ internal, family }) => !internal && family === "IPv4")?.address;

  it("says the phase to everybody, and who answers to loopback peers", async () => {
    const gateway = await acquire({ stateDir: temporaryDirectory(), port: await freePort() });
    await gateway.listen(createServer(gateway.healthz));
    const { pid, ownerId } = gateway.owner;
    for (const phase of ["listening", "ready"]) {
      if (phase === "ready") gateway.ready();
      const { response, body } = await answerOf(gateway.port, "/healthz");
      expect(response).toMatchObject({ statusCode: 200, headers: { "content-type": "application/json" } });
      expect(JSON.parse(body)).toEqual({ ok: true, status: "live", phase, pid, ownerId });
      expect(body).toMatch(/^\{"ok":true,"status":"live","phase":/);
    }
  });

  itWhere(external !== undefined, "this host has no address but loopback")(
    "keeps pid and ownerId from peers that are not on loopback",
    async () => {
      const gateway = await acquire({ stateDir: temporaryDirectory(), port: await freePort(), host: "0.0.0.0" });
      await gateway.listen(createServer(gateway.healthz));
      const { body } = await answerOf(gateway.port, "/healthz", external);
      expect(JSON.parse(body)).toEqual({ ok: true, status: "live", phase: "listening" });
    },
  );
});
