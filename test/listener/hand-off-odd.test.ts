// Servers that are closed at odd moments and in odd ways never wedge the gateway, and are noticed.

import { createServer, type Server } from "node:http";
import { performance } from "node:perf_hooks";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { canUnshareNet, hasIPv6, isLinux, itWhere } from "../support/capabilities.ts";
import {
  bodyOf,
  claim,
  connectionsOf,
  connectTo,
  lingeringClient,
  refusalOf,
  refusalToConnect,
  until,
} from "../support/listener-tools.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const HOSTS = hasIPv6 ? ["127.0.0.1", "::1"] : ["127.0.0.1"];
const itOnTwoHosts = itWhere(hasIPv6, "no IPv6");

function serverThatSays(text: string): Server {
  return createServer((_, response) => response.end(text));
}

/** A server that keeps a connection upgraded until the client leaves. */
function upgradingServer(): Server {
  return createServer().on("upgrade", (_, socket) => {
    socket.on("error", () => {});
    socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    socket.resume();
  });
}

const CLOSED_AT_ODD_MOMENTS: Record<string, (server: Server) => void> = {
  "in the same tick": (server) => void server.close(),
  "in a microtask": (server) => queueMicrotask(() => server.close()),
  "in the next tick": (server) => process.nextTick(() => server.close()),
  "in its listening handler": (server) => void server.once("listening", () => server.close()),
};

for (const [moment, close] of Object.entries(CLOSED_AT_ODD_MOMENTS)) {
  it(`a server that is closed ${moment} is no hand-off, and the claim stays usable`, async () => {
    const port = await freePort();
    const gateway = await claim({ host: HOSTS, port });
    const server = serverThatSays("never");
    if (moment === "in its listening handler") close(server);

    const handOff = refusalOf(() => gateway.listen(server));
    if (moment !== "in its listening handler") close(server);

    expect(await handOff).toMatchObject({ code: "HANDOFF_FAILED" });
    expect((await handOff).message).toContain("the server was closed meanwhile");
    await gateway.listen(serverThatSays("next"));
    for (const host of HOSTS) expect(await bodyOf(port, host)).toBe("next");
    await gateway.close();
    expect(await refusalToConnect(port, "127.0.0.1")).toBe("ECONNREFUSED");
  });
}

itOnTwoHosts("a close() that somebody kept from before the hand-off is noticed like any other", async () => {
  const port = await freePort();
  const gateway = await claim({ host: HOSTS, port });
  const server = serverThatSays("old");
  const kept = promisify(server.close).bind(server);
  await gateway.listen(server);
  gateway.ready();
  const client = await connectTo({ port, host: "127.0.0.1" }); // so that the close takes its time
  await until(async () => (await connectionsOf(server)) === 1);

  const closed = kept();

  expect(gateway.owner.phase).toBe("listening");
  await gateway.listen(serverThatSays("new"));
  for (const host of HOSTS) expect(await bodyOf(port, host)).toBe("new");
  client.destroy();
  await closed;
});

it("a server whose close() takes its time does not keep the event loop busy", async () => {
  const DELAY = 300; // ms
  const gateway = await claim({ port: await freePort() });
  const server = serverThatSays("served");
  const { close } = server;
  server.close = (callback) => {
    setTimeout(() => Reflect.apply(close, server, [callback]), DELAY);
    return server;
  };
  await gateway.listen(server);

  const before = { loop: performance.eventLoopUtilization(), cpu: process.cpuUsage() };
  await gateway.close();

  const { user, system } = process.cpuUsage(before.cpu);
  expect((user + system) / 1000, "ms of CPU").toBeLessThan(DELAY / 2);
  expect(server.listening).toBe(false);
});

it("a close() that throws is told, after everything was let go", async () => {
  const stateDir = temporaryDirectory();
  const port = await freePort();
  const gateway = await acquireGateway({ stateDir, port });
  const server = serverThatSays("served");
  await gateway.listen(server);
  const { close } = server;
  server.close = () => {
    throw new Error("as told");
  };

  await expect(gateway.close()).rejects.toThrow("as told");

  server.close = close;
  server.close();
  await (await claim({ stateDir, port })).close();
});

it("a server that serves another gateway by now is left alone, and so are its clients", async () => {
  const server = upgradingServer();
  const [port, elsewhere] = [await freePort(), await freePort()];
  const [first, second] = [await claim({ port }), await claim({ port: elsewhere })];
  await first.listen(server);
  const old = await lingeringClient(port, "127.0.0.1", true);
  server.close();
  await second.listen(server);
  const client = await lingeringClient(elsewhere, "127.0.0.1", true);
  let ended = false;
  client.once("end", () => {
    ended = true;
  });

  await first.close({ force: true });

  expect(await refusalToConnect(elsewhere, "127.0.0.1")).toBe(null);
  expect({ ended, listening: server.listening, phase: second.owner.phase }).toEqual({
    ended: false,
    listening: true,
    phase: "listening",
  });
  old.destroy();
  await second.close({ force: true });
  client.destroy();
});

for (const options of [{ timeout: 20 }, { force: true }]) {
  it(`a server that never closes is given up with ${JSON.stringify(options)}`, async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const gateway = await acquireGateway({ stateDir, port });
    const server = upgradingServer();
    const { close } = server;
    server.close = () => server;
    await gateway.listen(server);
    const client = await lingeringClient(port, "127.0.0.1", true);
    await gateway.close(options);
    await (await claim({ stateDir, port })).close();
    client.destroy();
    Reflect.apply(close, server, []);
  });
}

it("a server whose close() closes the gateway is closed once", async () => {
  const gateway = await claim({ port: await freePort() });
  const server = serverThatSays("served");
  const { close } = server;
  let calls = 0;
  server.close = (callback) => {
    calls++;
    void gateway.close();
    return Reflect.apply(close, server, [callback]);
  };
  await gateway.listen(server);
  await gateway.close();
  expect({ calls, listening: server.listening }).toEqual({ calls: 1, listening: false });
});

it("a gateway that is closed during a hand-off serves nobody afterwards, even if the server's close() takes its time", async () => {
  const DELAY = 200; // ms
  const port = await freePort();
  const gateway = await claim({ host: HOSTS, port });
  const server = serverThatSays("served");
  const { close } = server;
  server.close = (callback) => {
    setTimeout(() => Reflect.apply(close, server, [callback]), DELAY);
    return server;
  };

  const handOff = refusalOf(() => gateway.listen(server));
  const closing = gateway.close();

  expect(await handOff).toMatchObject({ code: "HANDOFF_FAILED" });
  for (const host of HOSTS) expect(await refusalToConnect(port, host)).toBe("ECONNREFUSED");
  await closing;
});

it("a server without listeners, of which somebody removed all, does not keep the gateway from closing", async () => {
  const port = await freePort();
  for (const force of [false, true]) {
    const gateway = await claim({ port });
    const server = serverThatSays("served");
    await gateway.listen(server);
    server.removeAllListeners();
    await gateway.close({ force });
    expect(await refusalToConnect(port, "127.0.0.1")).toBe("ECONNREFUSED");
  }
});

it("one server restarted many times around a lasting connection collects no listeners", async () => {
  const RESTARTS = 20;
  const port = await freePort();
  const gateway = await claim({ port });
  const server = upgradingServer();
  const before = ["connection", "close"].map((event) => server.listenerCount(event));
  await gateway.listen(server);
  const client = await lingeringClient(port, "127.0.0.1", true);
  const warnings: Error[] = [];
  const warn = (warning: Error) => warnings.push(warning);
  process.on("warning", warn);

  for (let restart = 0; restart < RESTARTS; restart++) {
    server.close();
    await gateway.listen(server);
  }

  const kept = ["connection", "close"].map((event) => server.listenerCount(event));
  expect(kept.map((count, index) => count - (before[index] ?? 0))).toEqual([1, 0]);
  await gateway.close({ force: true });
  client.destroy();
  process.off("warning", warn);
  expect(warnings).toEqual([]);
  expect(["connection", "close"].map((event) => server.listenerCount(event))).toEqual(before);
});

it("an IPv4 address in IPv6's clothes is that IPv4 address", async () => {
  const port = await freePort();
  const gateway = await claim({ host: "::ffff:127.0.0.1", port });
  await gateway.listen(serverThatSays("served"));
  expect(gateway.host).toBe("127.0.0.1");
  expect(await bodyOf(port)).toBe("served");
});

itOnTwoHosts("a limit of no connections means the same for every host", async () => {
  const port = await freePort();
  const gateway = await claim({ host: HOSTS, port });
  const server = serverThatSays("served");
  server.maxConnections = 0;
  await gateway.listen(server);

  const answers = await Promise.all(HOSTS.map((host) => bodyOf(port, host).catch(() => "dropped")));

  expect(new Set(answers).size).toBe(1);
});

itWhere(hasIPv6 && canUnshareNet, "no IPv6, or no network namespaces")(
  "a link-local host is served, by its interface's name and by its number",
  async () => {
    for (const zone of ["lo", "1"]) {
      const options = { stateDir: temporaryDirectory(), host: ["127.0.0.1", `fe80::5%${zone}`], port: 18789 };
      const script = 'ip link set lo up && ip addr add fe80::5/64 dev lo nodad && exec "$@"';
      const fixture = [process.execPath, fixturePath("listener-claim.mjs"), JSON.stringify(options)];
      const args = ["--user", "--map-root-user", "--net", "sh", "-c", script, "sh", ...fixture];
      const claimed = await new TestProcess("unshare", args).next("claimed", "refused");
      expect(claimed).toMatchObject({ event: "claimed", body: "served" });
      expect(claimed.addresses).toHaveLength(3);
    }
  },
);

itWhere(isLinux, "needs procfs")(
  "a worker that is terminated while it hands its port over takes every copy of it along",
  async () => {
    const options = { stateDir: temporaryDirectory(), port: await freePort() };
    const { sockets, refused } = await startFixture("listener-workers.mjs", { options, rounds: 120 }).next("done");
    expect(sockets).toEqual([]);
    expect(refused).toBe(0);
  },
  60_000,
);
