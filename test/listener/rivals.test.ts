// Nobody else can listen on a claimed port, with whatever flags, at any moment of a gateway's life; nor can we on theirs.

import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { expect } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import type { Gateway } from "../../lib/gateway.ts";
import { hasIPv6, hasPython, itWhere } from "../support/capabilities.ts";
import {
  ALL_REFUSED,
  bodyOf,
  bound,
  claim,
  lingeringClient,
  Rival,
  refusalOf,
  refusalToConnect,
  stop,
  until,
} from "../support/listener-tools.ts";
import { startGateway, TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const itWithRivals = itWhere(hasPython, "no python3");
const itWithRivalsOnBoth = itWhere(hasPython && hasIPv6, "no python3 or no IPv6");

function webSocketServer() {
  const server = createHttpServer((_, response) => response.end("served"));
  new WebSocketServer({ server });
  return server;
}

itWithRivals("the control: on a free port a rival gets every address, with every combination of flags", async () => {
  const rival = new Rival();
  const { tried, won } = await rival.attempt(await rival.unusedPort());

  expect(tried).toBe(24);
  expect(won).toHaveLength(hasIPv6 ? 24 : 8);
});

itWithRivalsOnBoth("the control: without the guard, rivals get the other loopback", async () => {
  const rival = new Rival();
  const gateway = await claim({ port: await rival.unusedPort(), loopbackGuard: false });

  const { won } = await rival.attempt(gateway.port);

  expect([...new Set(won.map((variant) => variant.split(" ")[0]))]).toEqual(["::1", "::"]);
});

itWithRivals(
  "no rival listens while nobody has been handed the port, while it is served, and after a restart",
  async () => {
    const rival = new Rival();
    const gateway = await claim({ port: await rival.unusedPort() });

    expect(await rival.attempt(gateway.port)).toEqual(ALL_REFUSED);

    for (let generation = 0; generation < 2; generation++) {
      const server = webSocketServer();
      await gateway.listen(server);
      expect(await bodyOf(gateway.port)).toBe("served");
      expect(await rival.attempt(gateway.port)).toEqual(ALL_REFUSED);
      await stop(server);
      expect(await rival.attempt(gateway.port)).toEqual(ALL_REFUSED);
    }

    await gateway.close();
    expect((await rival.attempt(gateway.port)).won).not.toEqual([]);
  },
);

itWithRivals("no rival listens on a port that the kernel chose", async () => {
  const rival = new Rival();
  const gateway = await claim({ port: 0 });
  const server = webSocketServer();

  expect(await rival.attempt(gateway.port)).toEqual(ALL_REFUSED);
  await gateway.listen(server);
  expect(await rival.attempt(gateway.port)).toEqual(ALL_REFUSED);
});

for (const port of ["asked for", "chosen by the kernel"]) {
  itWithRivals(`no rival listens while close() waits for a WebSocket client, on a port ${port}`, async () => {
    const rival = new Rival();
    const gateway = await claim({ port: port === "asked for" ? await rival.unusedPort() : 0 });
    await gateway.listen(webSocketServer());
    const client = new WebSocket(`ws://127.0.0.1:${gateway.port}`);
    await once(client, "open");

    let closed = false;
    const closing = gateway.close().then(() => {
      closed = true;
    });
    await until(async () => (await refusalToConnect(gateway.port, "127.0.0.1")) !== null);

    expect(await rival.attempt(gateway.port)).toEqual(ALL_REFUSED);
    expect(closed).toEqual(false);
    client.terminate();
    await closing;
    expect((await rival.attempt(gateway.port)).won).not.toEqual([]);
  });
}

itWithRivalsOnBoth(
  "no rival listens on a guard that had to get past a predecessor, all through the gateway's life",
  async () => {
    const rival = new Rival();
    const port = await rival.unusedPort();
    const predecessor = startGateway({ stateDir: temporaryDirectory(), port, host: "::1" });
    await predecessor.next("serving");
    const client = await lingeringClient(port, "::1", true);
    const gone = once(client, "end");
    await predecessor.kill("SIGKILL");
    await gone;
    expect(await rival.ask(`try ::1 ${port} strict`)).toMatchObject({ error: "EADDRINUSE" });
    expect(await rival.ask(`try ::1 ${port} addr`)).toMatchObject({ error: null });

    const gateway = await claim({ port });
    expect(await rival.attempt(port)).toEqual(ALL_REFUSED);
    const server = webSocketServer();
    await gateway.listen(server);
    expect(await rival.attempt(port)).toEqual(ALL_REFUSED);
    await stop(server);
    expect(await rival.attempt(port)).toEqual(ALL_REFUSED);
  },
);

for (const host of ["::", "localhost"]) {
  itWithRivalsOnBoth(`no rival takes any part of host ${host}`, async () => {
    const gateway = await claim({ port: await freePort(), host });
    await gateway.listen(webSocketServer());

    expect(await new Rival().attempt(gateway.port)).toEqual(ALL_REFUSED);
  });
}

itWithRivalsOnBoth("no rival takes host 0.0.0.0, specific or not, nor by a dual-stack socket", async () => {
  const rival = new Rival();
  const gateway = await claim({ port: await rival.unusedPort(), host: "0.0.0.0" });
  await gateway.listen(webSocketServer());

  for (const address of ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::", "::ffff:127.0.0.1"]) {
    for (const flags of ["strict", "addr", "port", "addr+port"]) {
      const answer = await rival.ask(`try ${address} ${gateway.port} ${flags}`);
      expect({ address, flags, ...answer }).toMatchObject({ address, flags, error: "EADDRINUSE" });
    }
  }
});

// inet_csk_get_port(): the port's bucket remembers the last SO_REUSEPORT socket, and one that matches it is let in
// unchecked; two IPv6 wildcards match, whatever their IPV6_V6ONLY. No guard is promised for 0.0.0.0.
itWithRivalsOnBoth(
  "even a rival that tricks its way to a dual-stack socket gets no IPv4 client of 0.0.0.0",
  async () => {
    const rival = new Rival();
    const gateway = await claim({ port: await rival.unusedPort(), host: "0.0.0.0" });
    await gateway.listen(webSocketServer());

    await rival.ask(`bind :: ${gateway.port} port/v6only`);
    await rival.ask(`bind :: ${gateway.port} port`);
    await rival.ask("listen");

    for (let request = 0; request < 20; request++) expect(await bodyOf(gateway.port)).toBe("served");
  },
);

itWithRivalsOnBoth("no rival listens that has first bound neighbouring addresses with SO_REUSEPORT", async () => {
  const rival = new Rival();
  const gateway = await claim({ port: await rival.unusedPort() });
  await gateway.listen(webSocketServer());
  for (const address of ["127.0.0.2", "::ffff:127.0.0.3"]) {
    for (const flags of ["port", "addr+port"]) {
      const answer = await rival.ask(`bind ${address} ${gateway.port} ${flags}`);
      expect({ address, flags, ...answer }).toMatchObject({ address, flags, error: null });
      expect(await rival.attempt(gateway.port)).toEqual(ALL_REFUSED);
      expect(await rival.ask(`try ::ffff:127.0.0.1 ${gateway.port} ${flags}`)).toMatchObject({ error: "EADDRINUSE" });
    }
  }
});

for (const flags of ["addr", "addr+port"]) {
  for (const host of ["127.0.0.1", "0.0.0.0", "::1", "::"]) {
    itWithRivalsOnBoth(
      `a rival that was bound first to ${host} with ${flags} never comes to listen beside us`,
      async () => {
        const rival = new Rival();
        const port = await rival.unusedPort();
        expect(await rival.ask(`bind ${host} ${port} ${flags}`)).toMatchObject({ error: null });

        let gateway: Gateway | null = null;
        const refused = await refusalOf(async () => {
          gateway = await claim({ port });
        }).catch(() => null);

        if (gateway === null) {
          expect(refused).toMatchObject({ code: "ALREADY_LISTENING", listener: { pid: rival.pid } });
          expect(await rival.ask("listen")).toMatchObject({ error: null });
        } else {
          expect(await rival.ask("listen")).toMatchObject({ error: "EADDRINUSE" });
        }
      },
    );
  }
}

for (const flags of ["strict", "addr", "port", "addr+port"]) {
  for (const host of ["127.0.0.1", "0.0.0.0", "::1", "::1/v6only", "::", "::/v6only"]) {
    itWithRivalsOnBoth(`refuses to start where a rival listens on ${host} with ${flags}, and names it`, async () => {
      const rival = new Rival();
      const port = await rival.unusedPort();
      const [address = "", v6only] = host.split("/");
      const how = v6only === undefined ? flags : `${flags}/${v6only}`;
      expect(await rival.ask(`bind ${address} ${port} ${how}`)).toMatchObject({ error: null });
      expect(await rival.ask("listen")).toMatchObject({ error: null });
      const before = openDescriptors();

      const error = await refusalOf(() => claim({ port }));

      const met = address === "::1" || v6only !== undefined ? "::1" : "127.0.0.1";
      const url = met === "::1" ? `ws://[::1]:${port}` : `ws://127.0.0.1:${port}`;
      expect(error).toMatchObject({
        code: "ALREADY_LISTENING",
        message: `another gateway instance is already listening on ${url}`,
        host: met,
        port,
        url,
        retryable: true,
        exitCode: 75,
        listener: { pid: rival.pid, command: expect.stringContaining("listener-rival.py") },
        cause: { code: "EADDRINUSE" },
      });
      expect(openDescriptors()).toBe(before);
      await rival.kill();
      expect((await claim({ port })).port).toBe(port);
    });
  }
}

itWithRivals("a stock http.server and a gateway keep each other off, whoever is first", async () => {
  const port = await freePort();
  const stateDir = temporaryDirectory();
  const startStranger = () =>
    new TestProcess("python3", ["-u", "-m", "http.server", "--bind", "127.0.0.1", String(port)], { cwd: stateDir });
  const stranger = startStranger();
  await stranger.next("text");

  const refused = await startGateway({ stateDir, port }).next("refused", "acquired");

  expect(refused).toMatchObject({
    event: "refused",
    code: "ALREADY_LISTENING",
    message: `another gateway instance is already listening on ws://127.0.0.1:${port}`,
    listener: { pid: stranger.pid, command: expect.stringContaining("http.server") },
    cause: { code: "EADDRINUSE" },
  });
  await stranger.kill();

  const gateway = startGateway({ stateDir, port });
  await gateway.next("serving");
  const late = startStranger();
  expect(await late.exited).toMatchObject({ code: 1 });
  expect(late.stderr).toContain("Address already in use");
});

itWithRivals(
  "of a gateway and a rival that hammers the port from before its start, one has it and never both",
  async () => {
    const ROUNDS = 20;
    const rival = new Rival();
    const port = await rival.unusedPort();
    await rival.ask(`hammer ${port}`);
    for (let round = 0; round < ROUNDS; round++) {
      const before = openDescriptors();
      try {
        const listener = bound({ port });
        expect(listener.port).toBe(port);
        listener.close();
      } catch (error) {
        expect(error).toMatchObject({ code: "ALREADY_LISTENING" });
      }
      expect(openDescriptors()).toBe(before);
    }
    const { rounds } = await rival.rest();
    expect(rounds).toBeGreaterThan(0);

    const gateway = await claim({ port });
    await rival.ask(`hammer ${port}`);
    await gateway.listen(webSocketServer());
    for (let request = 0; request < ROUNDS; request++) expect(await bodyOf(port)).toBe("served");
    const { won, errors } = await rival.rest();
    expect({ won, errors }).toMatchObject({ won: [], errors: ALL_REFUSED.errors });
  },
);
