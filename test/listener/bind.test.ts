// A bound port is ours alone, all of it or nothing, and free again at once: for a successor of a killed gateway too.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { expect, it, onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { bindExclusive } from "../../lib/listener/claim.ts";
import { hasIPv6, hasPython, hasStrace, isRoot, itWhere } from "../support/capabilities.ts";
import {
  ALL_REFUSED,
  bodyOf,
  bound,
  claim,
  connectTo,
  lingeringClient,
  openSockets,
  Rival,
  refusalOf,
  refusalToConnect,
  startSink,
  until,
} from "../support/listener-tools.ts";
import { fixturePath, startFixture, startGateway, TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const NO_PYTHON = "no python3";
const IPV6_AND_PYTHON = "no IPv6 or no python3";

it("refuses a port that this very process listens on, and says so in every field", async () => {
  const port = await freePort();
  bound({ port });

  const error = await refusalOf(() => bindExclusive({ port }));

  expect(error).toMatchObject({
    name: "GatewayLockError",
    code: "ALREADY_LISTENING",
    message: `another gateway instance is already listening on ws://127.0.0.1:${port}`,
    retryable: true,
    exitCode: 75,
    host: "127.0.0.1",
    port,
    url: `ws://127.0.0.1:${port}`,
    listener: { pid: process.pid, command: expect.stringContaining("node") },
    cause: { code: "EADDRINUSE", errno: expect.any(Number) },
  });
});

it("refuses a port that a stock Node server has", async () => {
  const port = await freePort();
  const server = createServer().listen({ port, host: "127.0.0.1", exclusive: true });
  onTestFinished(() => {
    server.close();
  });
  await once(server, "listening");

  const error = await refusalOf(() => bindExclusive({ port }));

  expect(error).toMatchObject({ code: "ALREADY_LISTENING", listener: { pid: process.pid } });
});

itWhere(hasPython, NO_PYTHON)("names a python http.server that has the port", async () => {
  const port = await freePort();
  const stranger = new TestProcess("python3", ["-u", "-m", "http.server", "--bind", "127.0.0.1", String(port)], {
    cwd: temporaryDirectory(),
  });
  await stranger.next("text");

  const expected = {
    code: "ALREADY_LISTENING",
    message: `another gateway instance is already listening on ws://127.0.0.1:${port}`,
    listener: { pid: stranger.pid, command: expect.stringContaining("http.server") },
    cause: { code: "EADDRINUSE", message: expect.stringContaining(`pid ${stranger.pid}`) },
  };
  expect(await refusalOf(() => bindExclusive({ port }))).toMatchObject(expected);
  expect(await refusalOf(() => claim({ port }))).toMatchObject(expected);
});

itWhere(hasIPv6, "no IPv6")("over several hosts it is all or nothing, whichever of them is taken", async () => {
  const port = await freePort();
  const hosts = ["127.0.0.1", "127.0.0.2", "::1"];
  for (const taken of hosts) {
    const holder = bindExclusive({ port, host: taken });
    const before = openDescriptors();

    const error = await refusalOf(() => bindExclusive({ port, host: hosts }));

    const shown = taken === "::1" ? "[::1]" : taken;
    expect(error).toMatchObject({ code: "ALREADY_LISTENING", host: taken, url: `ws://${shown}:${port}` });
    expect(openDescriptors()).toBe(before);
    const others = bindExclusive({ port, host: hosts.filter((host) => host !== taken) });
    others.close();
    holder.close();
  }
});

itWhere(hasIPv6, "no IPv6")("a gateway that is refused because of its guard leaves the port itself free", async () => {
  const port = await freePort();
  bound({ port, host: "::1" });
  const before = openDescriptors();

  const error = await refusalOf(() => claim({ port }));

  expect(error).toMatchObject({ code: "ALREADY_LISTENING", host: "::1", url: `ws://[::1]:${port}` });
  expect(openDescriptors()).toBe(before);
  expect(bound({ port }).address).toBe("127.0.0.1");
});

itWhere(hasIPv6, "no IPv6")(
  "no child process inherits a socket, whatever way it was bound or handed over",
  async () => {
    const before = openSockets();
    const gateway = await claim({ port: 0, host: ["127.0.0.1", "127.0.0.2"] });
    await gateway.listen(createHttpServer());
    bound({ port: 0, host: "localhost" });

    const ours = [...openSockets()].filter(([name]) => !before.has(name));

    const kept = 3; // two listeners and a guard
    const handedOver = 2;
    const boundAlone = 2;
    expect(ours).toHaveLength(kept + handedOver + boundAlone);
    expect(ours.filter(([, { inherited }]) => inherited)).toEqual([]);
  },
);

it("close() frees the port at once, closes every descriptor, and may be called twice", async () => {
  const port = await freePort();
  const before = openDescriptors();
  const listener = bindExclusive({ port });
  expect(listener.fd).toBeGreaterThan(2);

  listener.close();
  listener.close();

  expect(listener.fd).toBeNull();
  expect(openDescriptors()).toBe(before);
  const next = bindExclusive({ port });
  next.close();
});

it("a connection that waits in the queue is accepted by the kernel before any server is there", async () => {
  const listener = bound({ port: 0 });

  expect(await refusalToConnect(listener.port, "127.0.0.1")).toBeNull();
});

const FIRST_UNPRIVILEGED_PORT = Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8"));

itWhere(isRoot && FIRST_UNPRIVILEGED_PORT > 1, "needs root, and ports that only root may bind")(
  "says which right is missing for a privileged port",
  async () => {
    const port = FIRST_UNPRIVILEGED_PORT - 1;
    const nobody = startFixture("listener-unprivileged.mjs", { port, uid: 65534 });

    const refused = await nobody.next("refused", "bound");

    expect(refused).toMatchObject({ event: "refused", code: "BIND_FAILED", retryable: false, exitCode: 1, port });
    expect(refused.cause).toMatchObject({ code: "EACCES" });
    expect(refused.message).toMatch(
      new RegExp(`^failed to bind gateway socket on ws://127\\.0\\.0\\.1:${port}: EACCES`),
    );
    expect(refused.message).toContain("CAP_NET_BIND_SERVICE");
  },
);

itWhere(hasPython, NO_PYTHON)("says when the port is the local end of somebody's connection", async () => {
  const rival = new Rival();
  const port = await rival.unusedPort();
  expect(await rival.ask(`outgoing ${port} ${await startSink()}`)).toMatchObject({ error: null });

  const error = await refusalOf(() => bindExclusive({ port }));

  expect(error).toMatchObject({ code: "ALREADY_LISTENING", listener: { pid: rival.pid } });
  expect(error.cause).toMatchObject({
    code: "EADDRINUSE",
    message: expect.stringContaining("uses the port as the local end of a connection"),
  });
});

it("says so too when the kernel gave the port to one of this process's own connections", async () => {
  const client = await connectTo({ port: await startSink(), host: "127.0.0.1" });

  const error = await refusalOf(() => bindExclusive({ port: client.localPort ?? 0 }));

  expect(error).toMatchObject({ code: "ALREADY_LISTENING", listener: { pid: process.pid } });
  expect(error.cause).toMatchObject({ message: expect.stringContaining("ip_local_port_range") });
});

// The sixty-second trap. What a killed gateway leaves on its port, the kernel keeps for a minute (TCP_TIMEWAIT_LEN).

const RESTARTS = 20;
/** From spawn to the first answer. ms */
const RESTART_DEADLINE = 1000;

itWhere(hasPython, NO_PYTHON)(
  `a gateway killed under its clients is followed by one that answers within a second, ${RESTARTS} times in a row`,
  async () => {
    const stateDir = temporaryDirectory();
    const naive = new Rival();
    const port = await naive.unusedPort();
    let gateway = startGateway({ stateDir, port });
    await gateway.next("serving");
    const tooLate: number[] = [];

    for (let restart = 0; restart < RESTARTS; restart++) {
      await lingeringClient(port, "127.0.0.1", false);
      await lingeringClient(port, "127.0.0.1", true);
      const polite = new WebSocket(`ws://127.0.0.1:${port}`).on("error", () => {});
      await once(polite, "open");
      const closed = once(polite, "close");
      await gateway.kill("SIGKILL");
      await closed;
      // The control: here the plain strict bind is shut out.
      expect(await naive.ask(`try 127.0.0.1 ${port} strict`)).toMatchObject({ error: "EADDRINUSE" });

      const started = performance.now();
      gateway = startGateway({ stateDir, port });
      await gateway.next("serving");
      expect(await bodyOf(port)).toBe(`pid ${gateway.pid}`);
      const took = performance.now() - started;
      if (took > RESTART_DEADLINE) tooLate.push(took);
    }

    expect(tooLate).toEqual([]);
  },
);

itWhere(hasPython, NO_PYTHON)("the control: after a listener that never set SO_REUSEADDR, nobody gets in", async () => {
  const naive = new Rival();
  const port = await naive.unusedPort();
  await naive.ask(`bind 127.0.0.1 ${port} strict`);
  expect(await naive.ask("listen")).toMatchObject({ error: null });
  const client = await connectTo({ port, host: "127.0.0.1", allowHalfOpen: true });
  await naive.ask("accept");
  const ended = once(client.resume(), "end");
  await naive.kill("SIGKILL");
  await ended;

  const successor = new Rival();
  expect(await successor.ask(`try 127.0.0.1 ${port} strict`)).toMatchObject({ error: "EADDRINUSE" });
  expect(await successor.ask(`try 127.0.0.1 ${port} addr`)).toMatchObject({ error: "EADDRINUSE" });
  const error = await refusalOf(() => bindExclusive({ port }));
  expect(error).toMatchObject({ code: "ALREADY_LISTENING", cause: { code: "EADDRINUSE" } });
});

itWhere(hasIPv6 && hasPython, IPV6_AND_PYTHON)(
  "a guard gets past what a predecessor left there, and keeps every rival off all the same",
  async () => {
    const rival = new Rival();
    const port = await rival.unusedPort();
    for (const [served, guarded] of [
      ["::1", "127.0.0.1"],
      ["127.0.0.1", "::1"],
    ] as const) {
      // What listens there now is guarded next.
      const predecessor = startGateway({ stateDir: temporaryDirectory(), port, host: served });
      await predecessor.next("serving");
      const half = await lingeringClient(port, served, true);
      const gone = once(half, "end");
      await predecessor.kill("SIGKILL");
      await gone;
      expect(await rival.ask(`try ${served} ${port} strict`)).toMatchObject({ error: "EADDRINUSE" });

      const gateway = await claim({ port, host: guarded });

      expect(gateway.addresses).toMatchObject([
        { address: guarded, role: "listen" },
        { address: served, role: "guard" },
      ]);
      expect(await refusalToConnect(port, served)).toBe("ECONNREFUSED");
      expect(await rival.attempt(port)).toEqual(ALL_REFUSED);
      await gateway.close();
    }
  },
);

itWhere(hasPython, NO_PYTHON)("a gateway that was closed in peace leaves nothing that shuts out the next", async () => {
  const stateDir = temporaryDirectory();
  const naive = new Rival();
  const port = await naive.unusedPort();
  for (let restart = 0; restart < 3; restart++) {
    const gateway = startGateway({ stateDir, port });
    await gateway.next("serving");
    const client = await lingeringClient(port, "127.0.0.1", true);
    const ended = once(client, "close");
    gateway.send("force");
    await gateway.next("done");
    client.end();
    await ended;
    expect(await naive.ask(`try 127.0.0.1 ${port} strict`)).toMatchObject({ error: "EADDRINUSE" });
    await gateway.kill();
  }

  expect(bound({ port }).port).toBe(port);
});

itWhere(hasStrace && hasPython, "no strace or no python3")(
  "a client that connects in the very moment the port opens does not shut out the successor either",
  async () => {
    const stateDir = temporaryDirectory();
    const naive = new Rival();
    const port = await naive.unusedPort();
    const SLOW = 200_000; // µs that every setsockopt(2) takes longer
    const slow = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=setsockopt", "-e", "signal=none"];
    const delay = ["-e", `inject=setsockopt:delay_enter=${SLOW}`];
    const gateway = new TestProcess("strace", [
      ...slow,
      ...delay,
      process.execPath,
      fixturePath("gateway.mjs"),
      JSON.stringify({ stateDir, port, loopbackGuard: false }),
    ]);
    await until(async () => (await refusalToConnect(port, "127.0.0.1")) === null);
    const early = await lingeringClient(port, "127.0.0.1", false);
    const ended = once(early, "end");
    await gateway.kill("SIGKILL"); // with -D, the process that was started is the gateway
    await ended;
    expect(await naive.ask(`try 127.0.0.1 ${port} strict`)).toMatchObject({ error: "EADDRINUSE" });

    expect(bound({ port }).port).toBe(port);
  },
);

itWhere(hasPython, NO_PYTHON)(
  "is had by exactly one of two that take it in the same instant, with dead connections on it, each time",
  async () => {
    const rival = new Rival();
    const gateway = await claim({ port: await rival.unusedPort(), loopbackGuard: false });
    await gateway.listen(createHttpServer((_, response) => response.end()));
    await lingeringClient(gateway.port, "127.0.0.1", false);
    await gateway.close({ force: true });
    expect(await rival.ask(`try 127.0.0.1 ${gateway.port} strict`)).toMatchObject({ error: "EADDRINUSE" });
    // Each of the two announces itself before it looks, so that both can be refused: three times in 20,000, if a guard did not try again.
    const ROUNDS = 10_000;
    for (const call of ["guard", "listen"]) {
      const argument = JSON.stringify({ port: gateway.port, call, rounds: ROUNDS });
      const racers = new TestProcess(process.execPath, [fixturePath("listener-collisions.mjs"), argument]);
      expect(await racers.next("raced")).toMatchObject({ winners: [0, ROUNDS, 0] });
    }
  },
);
