// A gateway goes through a thousand servers, and no rival gets its port or its locks, and no client finds the port closed.

import { createServer as createHttpServer } from "node:http";
import { createServer, type Socket } from "node:net";
import { constants, setPriority } from "node:os";
import { describe, expect, it } from "vitest";
import type { Gateway } from "../lib/gateway.ts";
import { type OwnerRecord, readOwner } from "../lib/lock/record.ts";
import { hasIPv6, hasPython, isLinux, itWhere } from "./support/capabilities.ts";
import { acquire, isPortFree } from "./support/gateways.ts";
import {
  ALL_REFUSED,
  bodyOf,
  connectionsOf,
  connectTo,
  Rival,
  refusalToConnect,
  stop,
  until,
} from "./support/listener-tools.ts";
import { showTimes } from "./support/measures.ts";
import { startFixture } from "./support/processes.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

const host = hasIPv6 ? "localhost" : "127.0.0.1";
const HOSTS = hasIPv6 ? ["127.0.0.1", "::1"] : ["127.0.0.1"];

describe("1,000 generations in one process", () => {
  const GENERATIONS = 1000;
  const MANY = 1000; // attempts of each kind, or the test has shown nothing
  const GAP = 5; // ms for which nobody serves, now and then
  const GAP_EVERY = 20;
  const CLIENTS = 3; // at once, on each host
  const VISITS = 3; // of clients, that each server has on each host

  for (const kind of ["net", "http"]) {
    itWhere(isLinux && hasPython, "no procfs or no python3")(
      `of node:${kind} servers, with rivals for the port and the locks, and clients, all the time`,
      async () => {
        const options = { stateDir: temporaryDirectory(), port: await freePort(), host };
        const gateway = startFixture("restart-gateway.mjs", {
          ...{ options, kind, generations: GENERATIONS, visits: VISITS, gap: GAP, gapEvery: GAP_EVERY },
        });
        const { port, lockPaths, owner } = await gateway.next("serving");
        gateway.send("descriptors");
        const { count: descriptors } = await gateway.next("descriptors");
        const elsewhere = { stateDir: temporaryDirectory(), port, host };
        const binding = new Rival();
        // It binds a hundred times as often as the others try anything, and would leave them little of the processors.
        setPriority(binding.pid, constants.priority.PRIORITY_BELOW_NORMAL);
        const locking = startFixture("restart-rival.mjs", {
          ...{ tries: [options, { ...options, port: 0 }, options, options, elsewhere], many: MANY },
          waits: [options, { stateDir: temporaryDirectory(), configPath: owner.configPath, port: 0 }],
          files: lockPaths,
        });
        await locking.next("trying");
        await binding.ask(`hammer ${port}`);
        const clients = startFixture("restart-clients.mjs", { port, hosts: HOSTS, atOnce: CLIENTS });
        await clients.next("connecting");
        const began = performance.now();

        gateway.send("run");
        await locking.next("many");
        gateway.send("enough");
        const done = await gateway.next("done");

        const seconds = (performance.now() - began) / 1000;
        for (const rival of [clients, locking]) rival.send("rest");
        const bound = await binding.rest();
        const visits = await clients.next("rest");
        const locked = await locking.next("rest");
        showTimes(
          `${done.generations} ${kind} servers in ${seconds.toFixed(1)} s: ${visits.attempts} connections ` +
            `(${visits.answered} answered, ${visits.cut} cut off, ${visits.refused} refused, slowest ${visits.slowest.toFixed(0)} ms), ` +
            `${bound.rounds * ALL_REFUSED.tried} binds, ${locked.attempts} acquisitions`,
        );

        expect(done).toMatchObject({ lost: false });
        expect(done.generations).toBeGreaterThanOrEqual(GENERATIONS);
        expect({ won: bound.won, errors: bound.errors }).toEqual({ won: [], errors: ALL_REFUSED.errors });
        expect({ won: locked.won, codes: locked.codes }).toEqual({
          won: [],
          codes: { ALREADY_LISTENING: locked.attempts },
        });
        const { attempts, answered, cut, refused, others, backwards, generations } = visits;
        expect({ refused, others, backwards }).toEqual({ refused: 0, others: {}, backwards: 0 });
        // A node:net server leaves its connections alone. One of node:http ends those that are idle when it is closed, and
        // from Node 26 also those that have not asked for anything yet.
        if (kind === "net") {
          expect({ answered, cut }).toEqual({ answered: attempts, cut: 0 });
          expect(generations).toBeGreaterThanOrEqual(GENERATIONS);
        }
        for (const many of [attempts, bound.rounds * ALL_REFUSED.tried, locked.attempts]) {
          expect(many).toBeGreaterThanOrEqual(MANY);
        }
        for (const path of lockPaths) {
          const { record, holders } = readOwner(path);
          expect(record).toMatchObject({ ownerId: owner.ownerId, pid: gateway.pid, phase: "ready" });
          expect(holders).toContain(gateway.pid);
        }
        await until(async () => {
          gateway.send("descriptors");
          return (await gateway.next("descriptors")).count <= descriptors;
        });
      },
    );
  }
});

describe("between two servers", () => {
  const QUEUED = 8; // clients, on each host

  /** Clients that have connected and asked, and what becomes of them: an answer, or how they ended. */
  async function queue({ port }: Gateway): Promise<Promise<string>[]> {
    const sockets: Socket[] = [];
    for (const host of HOSTS) for (let i = 0; i < QUEUED; i++) sockets.push(await connectTo({ port, host }));
    return sockets.map((socket) => {
      const outcome = new Promise<string>((resolve) => {
        socket.on("data", (data) => resolve(String(data))).on("close", () => resolve("ended"));
      });
      socket.write("question");
      return outcome;
    });
  }

  it("clients of every host wait, and the next server answers them", async () => {
    const gateway = await acquire({ stateDir: temporaryDirectory(), port: 0, host });
    const first = createServer((socket) => socket.end("first"));
    await gateway.listen(first);
    await stop(first);
    const outcomes = await queue(gateway);

    await gateway.listen(createServer((socket) => socket.once("data", (data) => socket.end(`answer to ${data}`))));

    expect(await Promise.all(outcomes)).toEqual(outcomes.map(() => "answer to question"));
  });

  it("gateway.close() ends the clients who wait, refuses others, and gives the port back", async () => {
    const gateway = await acquire({ stateDir: temporaryDirectory(), port: 0, host });
    const server = createServer((socket) => socket.end("served"));
    await gateway.listen(server);
    await stop(server);
    const outcomes = await queue(gateway);

    await gateway.close();

    expect(await Promise.all(outcomes)).toEqual(outcomes.map(() => "ended"));
    for (const host of HOSTS) {
      expect(await refusalToConnect(gateway.port, host)).toBe("ECONNREFUSED");
      expect(await isPortFree(gateway.port, host)).toBe("free");
    }
  });

  it("the record says so at once, and keeps what the user and the claim have said", async () => {
    const gateway = await acquire({ stateDir: temporaryDirectory(), port: 0, host, metadata: { generation: 0 } });
    const { pid, ownerId, createdAt, port } = gateway.owner;
    const expectRecords = (fields: Partial<OwnerRecord>) => {
      const expected = { pid, ownerId, createdAt, port, ...fields };
      expect(gateway.owner).toMatchObject(expected);
      for (const path of gateway.lockPaths) {
        expect(readOwner(path)).toMatchObject({ record: expected, torn: false, locked: true });
      }
    };
    for (let generation = 1; generation <= 3; generation++) {
      const before = { generation: generation - 1 };
      const server = createHttpServer(gateway.healthz);
      expectRecords({ phase: "listening", metadata: before });
      await gateway.listen(server);
      expectRecords({ phase: "listening", metadata: before });
      gateway.ready();
      expectRecords({ phase: "ready", metadata: before });
      for (const host of HOSTS) {
        expect(JSON.parse(await bodyOf(gateway.port, host))).toMatchObject({ phase: "ready", ownerId });
      }
      // A client that stays: the server's own 'close' event has to wait for it, the next server does not.
      const staying = await connectTo({ port: gateway.port, host: "127.0.0.1" });
      staying.write("GET / HTTP/1.1\r\nHost: a\r\n");
      await until(async () => (await connectionsOf(server)) > 0);
      server.close();
      expectRecords({ phase: "listening", metadata: before });
      gateway.update({ metadata: { generation } });
      expectRecords({ phase: "listening", metadata: { generation } });
    }
  });
});
