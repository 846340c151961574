// The bound socket goes to a real server and back: any kind of server, many in a row, and never lets the port go.

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { Agent, createServer, get, type Server } from "node:http";
import {
  connect as connectHttp2,
  createServer as createHttp2Server,
  createSecureServer as createSecureHttp2Server,
} from "node:http2";
import { createServer as createHttpsServer, get as getHttps } from "node:https";
import { connect, createServer as createNetServer, Server as NetServer, type Socket } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import type { Gateway } from "../../lib/gateway.ts";
import { readOwner } from "../../lib/lock/record.ts";
import { hasIPv6, hasPython, itWhere } from "../support/capabilities.ts";
import {
  ALL_REFUSED,
  bodyOf,
  bound,
  claim,
  connectionsOf,
  connectTo,
  hasOpenssl,
  openSockets,
  Rival,
  refusalOf,
  refusalToConnect,
  selfSigned,
  stop,
  until,
} from "../support/listener-tools.ts";
import { startFixture, startGateway } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const itOnTwoHosts = itWhere(hasIPv6, "no IPv6");
const HOSTS = ["127.0.0.1", "::1"];

function addressOf(gateway: Gateway) {
  return { address: "127.0.0.1", family: "IPv4", port: gateway.port };
}

itOnTwoHosts("serves node:http", async () => {
  const gateway = await claim({ port: 0, host: "localhost" });
  const server = createServer((_, response) => response.end("http"));

  await gateway.listen(server);

  expect(server.address()).toEqual(addressOf(gateway));
  for (const host of HOSTS) expect(await bodyOf(gateway.port, host)).toBe("http");
});

itWhere(hasOpenssl && hasIPv6, "no openssl or no IPv6")("serves node:https", async () => {
  const gateway = await claim({ port: 0, host: "localhost", scheme: "https" });
  const server = createHttpsServer(selfSigned(), (_, response) => response.end("https"));

  await gateway.listen(server);

  expect(server.address()).toEqual(addressOf(gateway));
  for (const host of HOSTS) {
    const request = getHttps({ port: gateway.port, host, rejectUnauthorized: false, agent: false });
    const [response] = await once(request, "response");
    const [body] = await once(response, "data");
    expect(String(body)).toBe("https");
  }
});

for (const secure of [false, true]) {
  itWhere(hasIPv6 && (!secure || hasOpenssl), "no IPv6 or no openssl")(
    `serves node:http2, ${secure ? "over TLS" : "in the clear"}`,
    async () => {
      const gateway = await claim({ port: 0, host: "localhost" });
      const server = secure ? createSecureHttp2Server(selfSigned()) : createHttp2Server();
      server.on("stream", (stream) => {
        stream.respond({ ":status": 200 });
        stream.end("h2");
      });

      await gateway.listen(server);

      expect(server.address()).toEqual(addressOf(gateway));
      for (const host of HOSTS) {
        const shown = host.includes(":") ? `[${host}]` : host;
        const session = connectHttp2(`${secure ? "https" : "http"}://${shown}:${gateway.port}`, {
          rejectUnauthorized: false,
        });
        const stream = session.request({ ":path": "/" });
        const [body] = await once(stream, "data");
        expect(String(body)).toBe("h2");
        const closed = once(session, "close");
        session.close();
        await closed;
      }
      await gateway.close();
    },
  );
}

itOnTwoHosts("serves node:net", async () => {
  const gateway = await claim({ port: 0, host: "localhost" });
  const server = createNetServer((socket) => socket.end("net"));

  await gateway.listen(server);

  expect(server.address()).toEqual(addressOf(gateway));
  for (const host of HOSTS) {
    const [data] = await once(await connectTo({ port: gateway.port, host }), "data");
    expect(String(data)).toBe("net");
  }
});

for (const secure of [false, true]) {
  itWhere(hasIPv6 && (!secure || hasOpenssl), "no IPv6 or no openssl")(
    `serves a WebSocketServer on ${secure ? "https" : "http"}`,
    async () => {
      const gateway = await claim({ port: 0, host: "localhost" });
      const server = secure ? createHttpsServer(selfSigned()) : createServer();
      new WebSocketServer({ server }).on("connection", (socket) => socket.on("message", (data) => socket.send(data)));

      await gateway.listen(server);

      for (const host of ["127.0.0.1", "[::1]"]) {
        const client = new WebSocket(`${secure ? "wss" : "ws"}://${host}:${gateway.port}`, {
          rejectUnauthorized: false,
        });
        await once(client, "open");
        client.send("hello");
        const [data] = await once(client, "message");
        expect(String(data)).toBe("hello");
        const closed = once(client, "close");
        client.close();
        await closed;
      }
    },
  );
}

itOnTwoHosts("a bindExclusive listener serves just the same", async () => {
  const listener = bound({ port: await freePort(), host: "localhost" });
  const server = createServer((_, response) => response.end("bound"));

  await listener.listen(server);

  expect(server.address()).toEqual({ address: "127.0.0.1", family: "IPv4", port: listener.port });
  for (const host of HOSTS) expect(await bodyOf(listener.port, host)).toBe("bound");
  await stop(server);
});

itOnTwoHosts("connections made before listen() wait, and are served", async () => {
  const gateway = await claim({ port: 0, host: "localhost" });
  const early = await Promise.all([...HOSTS, ...HOSTS].map((host) => connectTo({ port: gateway.port, host })));
  for (const socket of early) socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  const answers = Promise.all(early.map(async (socket) => String((await once(socket, "data"))[0]).split("\r\n")[0]));

  await gateway.listen(createServer((_, response) => response.end("late")));

  expect(await answers).toEqual(early.map(() => "HTTP/1.1 200 OK"));
});

// Several hosts, one server

itOnTwoHosts("getConnections counts the connections of every host, and counts them down again", async () => {
  const gateway = await claim({ port: 0, host: "localhost" });
  const server = createNetServer((socket) => socket.resume());
  await gateway.listen(server);
  const clients = await Promise.all([...HOSTS, ...HOSTS].map((host) => connectTo({ port: gateway.port, host })));

  await until(async () => (await connectionsOf(server)) === clients.length);

  for (const [index, client] of clients.entries()) {
    client.destroy();
    await until(async () => (await connectionsOf(server)) === clients.length - 1 - index);
  }
});

itOnTwoHosts(
  "maxConnections holds for all hosts together, and a drop is reported, whichever host it meets",
  async () => {
    const gateway = await claim({ port: 0, host: "localhost" });
    const server = createNetServer((socket) => socket.resume());
    await gateway.listen(server);
    for (const [first, second] of [HOSTS, [...HOSTS].reverse()]) {
      server.maxConnections = 1;
      const one = await connectTo({ port: gateway.port, host: first ?? "" });
      await until(async () => (await connectionsOf(server)) === 1);
      const dropped = once(server, "drop");
      const two = await connectTo({ port: gateway.port, host: second ?? "" });
      const closed = once(two.resume(), "close");

      const [details] = await dropped;

      const seen = second === "::1" ? { remoteAddress: "::1", remoteFamily: "IPv6" } : { remoteFamily: "IPv4" };
      expect(details).toMatchObject({ ...seen, localPort: gateway.port, remotePort: expect.any(Number) });
      await closed;
      expect(await connectionsOf(server)).toBe(1);
      server.maxConnections = 2;
      const three = await connectTo({ port: gateway.port, host: second ?? "" });
      await until(async () => (await connectionsOf(server)) === 2);
      one.destroy();
      three.destroy();
      await until(async () => (await connectionsOf(server)) === 0);
    }
  },
);

itOnTwoHosts("server.close() waits for fed connections, and refuses newcomers of every host at once", async () => {
  const listener = bound({ port: 0, host: "localhost" });
  const server = createNetServer((socket) => socket.resume());
  await listener.listen(server);
  const fed = await connectTo({ port: listener.port, host: "::1" });
  await until(async () => (await connectionsOf(server)) === 1);
  let closed = false;
  server.close(() => {
    closed = true;
  });
  const newcomers: Socket[] = [];
  server.on("connection", (socket) => newcomers.push(socket));

  for (const host of HOSTS) await connectTo({ port: listener.port, host });
  // A round trip over the connection that still is there: whatever was accepted before is known now.
  await new Promise<void>((resolve) => fed.write("x", () => resolve()));
  await new Promise(setImmediate);
  expect({ closed, newcomers: newcomers.length }).toEqual({ closed: false, newcomers: 0 });

  const ended = once(server, "close");
  fed.destroy();
  await ended;
  expect(newcomers).toEqual([]);
});

itOnTwoHosts("gateway.close() refuses clients of every host at once, and waits for fed connections", async () => {
  const gateway = await claim({ port: 0, host: "localhost" });
  const server = createNetServer((socket) => socket.resume());
  await gateway.listen(server);
  const fed = await connectTo({ port: gateway.port, host: "::1" });
  await until(async () => (await connectionsOf(server)) === 1);
  let closed = false;
  const closing = gateway.close().then(() => {
    closed = true;
  });

  for (const host of HOSTS) await until(async () => (await refusalToConnect(gateway.port, host)) === "ECONNREFUSED");
  expect({ closed, phase: gateway.owner.phase }).toEqual({ closed: false, phase: "stopping" });

  fed.destroy();
  await closing;
});

itOnTwoHosts("close({ timeout }) and close({ force }) end fed and upgraded connections", async () => {
  const SOON = 50; // ms
  for (const options of [{ timeout: SOON }, { force: true }]) {
    const gateway = await claim({ port: 0, host: "localhost" });
    const server = createServer();
    new WebSocketServer({ server });
    await gateway.listen(server);
    const clients = ["127.0.0.1", "[::1]"].map((host) => new WebSocket(`ws://${host}:${gateway.port}`));
    await Promise.all(clients.map((client) => once(client, "open")));
    const closed = clients.map((client) =>
      once(
        client.on("error", () => {}),
        "close",
      ),
    );

    await gateway.close(options);

    await Promise.all(closed);
    expect(server.listening).toEqual(false);
  }
});

itOnTwoHosts("header and keep-alive timeouts apply to fed connections", async () => {
  const SHORT = 100; // ms
  const gateway = await claim({ port: 0, host: "localhost" });
  const server = createServer(
    { headersTimeout: SHORT, keepAliveTimeout: SHORT, connectionsCheckingInterval: SHORT },
    (_, response) => response.end("served"),
  );
  await gateway.listen(server);

  for (const host of HOSTS) {
    const slow = await connectTo({ port: gateway.port, host });
    slow.write("GET / HTTP/1.1\r\nHost:");
    const [answer] = await once(slow, "data");
    expect(String(answer)).toContain("408 Request Timeout");

    const idle = await connectTo({ port: gateway.port, host });
    const ended = once(idle, "end");
    idle.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    idle.resume();
    await ended;
  }
});

itOnTwoHosts("closeAllConnections and closeIdleConnections end fed connections too", async () => {
  for (const end of ["closeAllConnections", "closeIdleConnections"] as const) {
    const gateway = await claim({ port: 0, host: "localhost" });
    const server = createServer((_, response) => response.end("served"));
    await gateway.listen(server);
    const agent = new Agent({ keepAlive: true });
    onTestFinished(() => agent.destroy());
    const sockets: Socket[] = [];
    for (const host of HOSTS) {
      const request = get({ port: gateway.port, host, agent });
      const [response] = await once(request, "response");
      const free = once(request.socket as Socket, "free").catch(() => {});
      response.resume();
      await free;
      sockets.push(request.socket as Socket);
    }
    const closed = sockets.map((socket) => once(socket, "close"));

    server[end]();

    await Promise.all(closed);
    await until(async () => (await connectionsOf(server)) === 0);
  }
});

itOnTwoHosts("pauseOnConnect and allowHalfOpen hold on every host", async () => {
  const gateway = await claim({ port: 0, host: "localhost" });
  const server = createNetServer({ pauseOnConnect: true, allowHalfOpen: true });
  await gateway.listen(server);
  for (const host of HOSTS) {
    const accepted = once(server, "connection");
    const client = await connectTo({ port: gateway.port, host });
    client.end("question");
    const [socket] = (await accepted) as [Socket];
    expect({ host, paused: socket.isPaused(), allowHalfOpen: socket.allowHalfOpen }).toEqual({
      host,
      paused: true,
      allowHalfOpen: true,
    });
    const ended = once(socket, "end");
    const answer = once(client, "data");
    const [question] = await once(socket.resume(), "data");
    await ended;
    socket.end(`${question} and answer`);
    expect(String((await answer)[0])).toBe("question and answer");
  }
});

const { BlockList } = await import("node:net");
const blocked = new BlockList();
blocked.addAddress("127.0.0.1");
blocked.addAddress("::1", "ipv6");
const serversTakeBlockLists =
  "blockList" in (createNetServer({ blockList: blocked } as object) as NetServer & { blockList?: unknown });

itWhere(hasIPv6 && serversTakeBlockLists, "no IPv6, or a Node whose servers take no blockList", { of: "runtime" })(
  "a server's blockList keeps clients of every host out",
  async () => {
    const gateway = await claim({ port: 0, host: "localhost" });
    const server = createNetServer({ blockList: blocked } as object, (socket) => socket.end("let in"));
    await gateway.listen(server);

    for (const host of HOSTS) {
      const client = await connectTo({ port: gateway.port, host });
      let received = "";
      client.on("data", (data) => {
        received += data;
      });
      await once(client, "close");
      expect({ host, received }).toEqual({ host, received: "" });
    }
  },
);

// Refused hand-offs

it("refuses a second server on a served port, which goes on being served by the first", async () => {
  const gateway = await claim({ port: 0 });
  const first = createServer((_, response) => response.end("first"));
  const second = createServer((_, response) => response.end("second"));
  const [one, two] = await Promise.allSettled([gateway.listen(first), gateway.listen(second)]);
  expect([one?.status, two?.status]).toEqual(["fulfilled", "rejected"]);

  const error = await refusalOf(() => gateway.listen(second));

  expect(error).toMatchObject({ code: "HANDOFF_FAILED", retryable: false, exitCode: 1, port: gateway.port });
  expect(error.message).toContain("failed to hand the gateway socket to the server: ");
  expect(second.listening).toEqual(false);
  expect(await bodyOf(gateway.port)).toBe("first");
});

it("refuses any server once it is closed or closing, and a port that is not its own", async () => {
  const gateway = await claim({ port: 0 });
  const elsewhere = await refusalOf(() => gateway.listen(createServer(), gateway.port === 1 ? 2 : 1));
  expect(elsewhere).toMatchObject({ code: "HANDOFF_FAILED" });

  const closing = gateway.close();
  expect(await refusalOf(() => gateway.listen(createServer()))).toMatchObject({ code: "HANDOFF_FAILED" });
  await closing;
  expect(await refusalOf(() => gateway.listen(createServer()))).toMatchObject({ code: "HANDOFF_FAILED" });

  const listener = bound({ port: 0 });
  listener.close();
  expect(await refusalOf(() => listener.listen(createServer()))).toMatchObject({ code: "HANDOFF_FAILED" });
});

it("refuses a server that already listens, and leaves it listening where it was", async () => {
  const gateway = await claim({ port: 0 });
  const server = createServer((_, response) => response.end("elsewhere")).listen(0, "127.0.0.1");
  onTestFinished(() => stop(server));
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const { close } = server;

  expect(await refusalOf(() => gateway.listen(server))).toMatchObject({ code: "HANDOFF_FAILED" });

  expect(server.address()).toMatchObject({ port });
  expect(server.close).toBe(close);
  expect(await bodyOf(port)).toBe("elsewhere");
});

it("refuses what is no server with a TypeError", async () => {
  const gateway = await claim({ port: 0 });
  for (const value of [undefined, null, {}, 18789, () => {}, new WebSocketServer({ noServer: true })]) {
    await expect(gateway.listen(value as unknown as Server)).rejects.toMatchObject({
      name: "TypeError",
      code: "ERR_INVALID_ARG_TYPE",
    });
  }
});

class ThrowingServer extends NetServer {
  override listen(): this {
    throw new Error("not today");
  }
}
class FailingServer extends NetServer {
  override listen(): this {
    process.nextTick(() => this.emit("error", new Error("not today")));
    return this;
  }
}
/** As a runtime that takes no descriptors: it listens on a port of its own choice. */
class StrayingServer extends NetServer {
  override listen(...args: unknown[]): this {
    const port = typeof args[0] === "object" && args[0] !== null && "fd" in args[0] ? 0 : args[0];
    return super.listen(port as number, "127.0.0.1");
  }
}

for (const [name, create, reason] of [
  ["throws", () => new ThrowingServer(), "not today"],
  ["reports an error", () => new FailingServer(), "not today"],
  ["listens elsewhere", () => new StrayingServer(), "instead of 127.0.0.1 port"],
] as const) {
  it(`a server whose listen() ${name} costs nothing: the claim stays, and the next one serves`, async () => {
    const gateway = await claim({ port: 0 });
    const before = openDescriptors();
    const server = create();
    const { close } = server;

    const error = await refusalOf(() => gateway.listen(server));

    expect(error).toMatchObject({ code: "HANDOFF_FAILED", message: expect.stringContaining(reason) });
    expect(server.listening).toEqual(false);
    expect(server.close).toBe(close);
    expect(server.listenerCount("error") + server.listenerCount("listening")).toBe(0);
    expect(openDescriptors()).toBe(before);
    expect(gateway.owner.phase).toBe("listening");
    await gateway.listen(createServer((_, response) => response.end("next")));
    expect(await bodyOf(gateway.port)).toBe("next");
  });
}

// Generations

it("leaves the server's close as it was, its own or its class's, once it is stopped", async () => {
  const gateway = await claim({ port: 0 });
  const plain = createServer();
  await gateway.listen(plain);
  await stop(plain);
  expect(Object.hasOwn(plain, "close")).toEqual(false);
  expect(plain.listenerCount("connection")).toBe(createServer().listenerCount("connection"));

  const owned = createServer();
  let calls = 0;
  const close: Server["close"] = (callback) => {
    calls++;
    return Reflect.apply(createServer().close, owned, [callback]);
  };
  owned.close = close;
  await gateway.listen(owned);
  await stop(owned);
  expect(owned.close).toBe(close);
  expect(calls).toBe(1);
});

it("the same server can have the port again after it was closed", async () => {
  const gateway = await claim({ port: 0 });
  const server = createServer((_, response) => response.end("again"));
  for (let generation = 0; generation < 3; generation++) {
    await gateway.listen(server);
    gateway.ready();
    expect(await bodyOf(gateway.port)).toBe("again");
    await stop(server);
    expect(gateway.owner.phase).toBe("listening");
    expect(readOwner(gateway.lockPaths[0] ?? "").record).toMatchObject({ phase: "listening" });
  }
});

it("a successor serves while connections of the server before it go on, and close() waits for both", async () => {
  const gateway = await claim({ port: 0 });
  const first = createNetServer((socket) => socket.pipe(socket));
  await gateway.listen(first);
  const old = await connectTo({ port: gateway.port, host: "127.0.0.1" });
  await until(async () => (await connectionsOf(first)) === 1);
  first.close();
  await gateway.listen(createServer((_, response) => response.end("successor")));
  gateway.ready();

  expect(await bodyOf(gateway.port)).toBe("successor");
  old.write("still here");
  expect(String((await once(old, "data"))[0])).toBe("still here");
  const firstClosed = once(first, "close");
  let closed = false;
  const closing = gateway.close().then(() => {
    closed = true;
  });
  await until(async () => (await refusalToConnect(gateway.port, "127.0.0.1")) === "ECONNREFUSED");
  expect(closed).toEqual(false);
  old.destroy();
  await firstClosed;
  await closing;
});

it("the old server's late close does not change the phase that its successor is in", async () => {
  const gateway = await claim({ port: 0 });
  const first = createNetServer((socket) => socket.resume());
  await gateway.listen(first);
  const old = await connectTo({ port: gateway.port, host: "127.0.0.1" });
  await until(async () => (await connectionsOf(first)) === 1);
  first.close();
  await gateway.listen(createServer());
  gateway.ready();
  const closed = once(first, "close");

  old.destroy();
  await closed;

  expect(gateway.owner.phase).toBe("ready");
});

const GENERATIONS = 50;

itWhere(hasPython && hasIPv6, "no python3 or no IPv6")(
  `${GENERATIONS} servers in a row: no client is refused, no rival gets in, no descriptor is left`,
  async () => {
    const rival = new Rival();
    const gateway = await claim({ port: await freePort(), host: ["127.0.0.1", "127.0.0.2"] });
    const kept = openSockets().size;
    await rival.ask(`hammer ${gateway.port}`);
    const refused: string[] = [];
    const served = new Set<string>();
    let running = true;
    const ask = (host: string) =>
      new Promise<void>((resolve) => {
        const socket = connect({ port: gateway.port, host });
        socket.on("connect", () => socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        socket.on("data", (data) => served.add(`${host} ${String(data).split("\r\n\r\n")[1]}`));
        // A server that is closed may reset whoever has not been answered yet. Nobody may find the port closed.
        socket.on("error", (error: NodeJS.ErrnoException) => {
          if (error.code !== "ECONNRESET" && error.code !== "EPIPE") refused.push(`${error}`);
        });
        socket.on("close", () => resolve());
      });
    const client = async (host: string) => {
      while (running) await ask(host);
    };
    const clients = Promise.all(["127.0.0.1", "127.0.0.2"].map(client));

    for (let generation = 0; generation < GENERATIONS; generation++) {
      const server = createServer((_, response) => response.end(`${generation}`));
      await gateway.listen(server);
      await until(() => served.has(`127.0.0.1 ${generation}`) && served.has(`127.0.0.2 ${generation}`));
      server.close();
    }
    await gateway.listen(createServer((_, response) => response.end("last")));
    running = false;
    await clients;
    const { won, errors, rounds } = await rival.rest();

    expect(refused).toEqual([]);
    expect({ won, errors }).toEqual({ won: [], errors: ALL_REFUSED.errors });
    expect(rounds).toBeGreaterThan(0);
    const ofTheLastServer = 2;
    await until(() => openSockets().size <= kept + ofTheLastServer);
    expect(openSockets().size).toBe(kept + ofTheLastServer);
  },
);

// Processes

it("a held claim keeps no process alive, and leaves no lock file behind when it ends", async () => {
  for (const serve of ["nobody", "unref'd server"]) {
    const stateDir = temporaryDirectory();
    const port = await freePort();
    const idle = startFixture("listener-idle.mjs", { serve, options: { stateDir, port, host: "localhost" } });
    const { lockPaths } = await idle.next("acquired");

    expect(await idle.exited).toEqual({ code: 0, signal: null });
    expect(lockPaths.map((path: string) => readOwner(path).record)).toEqual(lockPaths.map(() => null));
    expect(bound({ port, host: "localhost" }).port).toBe(port);
  }
});

it("child processes that outlive a killed gateway keep neither its port nor its lock", async () => {
  const stateDir = temporaryDirectory();
  const port = await freePort();
  const parent = startFixture("listener-parent.mjs", { stateDir, port, host: ["127.0.0.1", "127.0.0.2"] });
  const { children } = await parent.next("serving");
  onTestFinished(() => {
    for (const pid of children) process.kill(pid, "SIGKILL");
  });
  await parent.kill("SIGKILL");

  const successor = startGateway({ stateDir, port, host: ["127.0.0.1", "127.0.0.2"] });

  expect(await successor.next("serving", "refused")).toMatchObject({ event: "serving" });
  expect(await bodyOf(port)).toBe(`pid ${successor.pid}`);
  expect(children).toHaveLength(3);
  for (const pid of children) expect(spawnSync("kill", ["-0", String(pid)]).status).toBe(0);
});

it("of cluster workers exactly one is the gateway, and it serves", async () => {
  const WORKERS = 4;
  const options = { stateDir: temporaryDirectory(), port: await freePort(), host: ["127.0.0.1", "127.0.0.2"] };
  const cluster = startFixture("listener-cluster.mjs", { workers: WORKERS, options });

  const { results } = await cluster.next("results");

  expect(results).toHaveLength(WORKERS);
  const winners = results.filter(({ code }: { code: string }) => code === "acquired");
  expect(winners).toHaveLength(1);
  const losers = results.filter(({ code }: { code: string }) => code !== "acquired");
  for (const { code } of losers) expect(["ALREADY_LISTENING", "ALREADY_RUNNING"]).toContain(code);
  for (const host of options.host) expect(await bodyOf(options.port, host)).toBe(`pid ${winners[0].pid}`);
});
