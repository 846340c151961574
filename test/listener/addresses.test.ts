// Which addresses a claim listens on, which it keeps others off, and what it says where the host lacks one.

import { createServer } from "node:http";
import { createServer as createNetServer } from "node:net";
import { expect, it } from "vitest";
import { overlaps } from "../../lib/listener/addresses.ts";
import { hasIPv6, itWhere } from "../support/capabilities.ts";
import {
  bodyOf,
  bound,
  canTurnIPv6Off,
  claim,
  connectionsOf,
  refusalOf,
  refusalToConnect,
  WITHOUT_IPV6,
} from "../support/listener-tools.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

interface Layout {
  readonly host: string | string[];
  /** What must be bound, in order; for the claim of a gateway the guard too. */
  readonly listen: string[];
  readonly guard: string[];
  /** Where clients must be served, and where they must be refused. */
  readonly served: string[];
  readonly refused: string[];
}

const layouts: Layout[] = [
  { host: "127.0.0.1", listen: ["127.0.0.1"], guard: ["::1"], served: ["127.0.0.1"], refused: ["::1"] },
  { host: "::1", listen: ["::1"], guard: ["127.0.0.1"], served: ["::1"], refused: ["127.0.0.1"] },
  { host: "0:0:0:0:0:0:0:1", listen: ["::1"], guard: ["127.0.0.1"], served: ["::1"], refused: ["127.0.0.1"] },
  { host: "127.0.0.2", listen: ["127.0.0.2"], guard: ["::1"], served: ["127.0.0.2"], refused: ["127.0.0.1", "::1"] },
  { host: "0.0.0.0", listen: ["0.0.0.0"], guard: [], served: ["127.0.0.1", "127.0.0.2"], refused: ["::1"] },
  { host: "::", listen: ["::"], guard: [], served: ["127.0.0.1", "127.0.0.2", "::1"], refused: [] },
  { host: "localhost", listen: ["127.0.0.1", "::1"], guard: [], served: ["127.0.0.1", "::1"], refused: ["127.0.0.2"] },
  {
    host: ["localhost", "127.0.0.1", "::1", "127.0.0.1"],
    listen: ["127.0.0.1", "::1"],
    guard: [],
    served: ["127.0.0.1", "::1"],
    refused: [],
  },
  {
    host: ["::1", "127.0.0.2"],
    listen: ["::1", "127.0.0.2"],
    guard: ["127.0.0.1"],
    served: ["::1", "127.0.0.2"],
    refused: ["127.0.0.1"],
  },
  {
    host: ["127.0.0.1", "127.0.0.2"],
    listen: ["127.0.0.1", "127.0.0.2"],
    guard: ["::1"],
    served: ["127.0.0.1", "127.0.0.2"],
    refused: ["::1"],
  },
  {
    host: ["127.0.0.1", "0.0.0.0"],
    listen: ["0.0.0.0"],
    guard: [],
    served: ["127.0.0.1", "127.0.0.2"],
    refused: ["::1"],
  },
  { host: ["::1", "::"], listen: ["::"], guard: [], served: ["127.0.0.1", "::1"], refused: [] },
  { host: ["0.0.0.0", "::"], listen: ["0.0.0.0", "::"], guard: [], served: ["127.0.0.1", "::1"], refused: [] },
];

for (const { host, listen, guard, served, refused } of layouts) {
  const name = JSON.stringify(host);

  itWhere(hasIPv6, "no IPv6")(`bindExclusive with host ${name} listens on ${listen.join(" and ")}`, async () => {
    const port = await freePort();

    const listener = bound({ host, port });

    const listening = listen.map((address) => ({ address, port, role: "listen" }));
    expect(listener.addresses).toMatchObject(listening);
    expect(listener.addresses).toHaveLength(listen.length);
    expect(listener).toMatchObject({ address: listen[0], port, skipped: [] });
    for (const address of served) expect(await refusalToConnect(port, address)).toBeNull();
    for (const address of refused) expect(await refusalToConnect(port, address)).toBe("ECONNREFUSED");
    listener.close();
    for (const address of served) expect(await refusalToConnect(port, address)).toBe("ECONNREFUSED");
  });

  itWhere(hasIPv6, "no IPv6")(
    `a gateway with host ${name} serves it, and guards ${guard.join() || "nothing"}`,
    async () => {
      const port = await freePort();
      const gateway = await claim({ host, port });
      await gateway.listen(createServer((_, response) => response.end("served")));

      expect(gateway.addresses).toEqual([
        ...listen.map((address) => ({ address, family: familyOf(address), port, role: "listen" })),
        ...guard.map((address) => ({ address, family: familyOf(address), port, role: "guard" })),
      ]);
      expect(gateway).toMatchObject({ host: listen[0], port, skipped: [] });
      for (const address of served) expect(await bodyOf(port, address)).toBe("served");
      for (const address of refused) expect(await refusalToConnect(port, address)).toBe("ECONNREFUSED");
    },
  );

  itWhere(hasIPv6, "no IPv6")(`with host ${name}, port 0 is the same number on every host and guard`, async () => {
    const gateway = await claim({ host, port: 0 });

    const ports = new Set(gateway.addresses.map(({ port }) => port));
    expect([...ports]).toEqual([gateway.port]);
    expect(gateway.port).toBeGreaterThan(0);
    expect(gateway.addresses).toHaveLength(listen.length + guard.length);
    expect(gateway.owner).toMatchObject({ port: gateway.port, url: gateway.url });
    expect([...new Set(bound({ host, port: 0 }).addresses.map(({ port }) => port))]).toHaveLength(1);
  });
}

function familyOf(address: string): "IPv4" | "IPv6" {
  return address.includes(":") ? "IPv6" : "IPv4";
}

itWhere(hasIPv6, "no IPv6")(
  "an IPv6 wildcard keeps serving every IPv4 address when an IPv4 loopback is named too",
  async () => {
    const port = await freePort();

    bound({ host: ["::", "127.0.0.1"], port });

    for (const address of ["127.0.0.1", "127.0.0.2", "::1"]) expect(await refusalToConnect(port, address)).toBeNull();
  },
);

itWhere(hasIPv6, "no IPv6")("shows wildcards as loopback in the URL, and IPv6 in brackets", async () => {
  const urls: string[] = [];
  for (const host of ["0.0.0.0", "::1", "::", "localhost"]) {
    const gateway = await claim({ host, port: 0, scheme: "wss" });
    urls.push(gateway.url.replace(`:${gateway.port}`, ":PORT"));
  }

  expect(urls).toEqual(["wss://127.0.0.1:PORT", "wss://[::1]:PORT", "wss://[::1]:PORT", "wss://127.0.0.1:PORT"]);
});

itWhere(hasIPv6, "no IPv6")("guards nothing when it is told not to", async () => {
  const port = await freePort();

  const gateway = await claim({ port, loopbackGuard: false });

  expect(gateway.addresses).toEqual([{ address: "127.0.0.1", family: "IPv4", port, role: "listen" }]);
  expect(bound({ host: "::1", port }).address).toBe("::1");
});

itWhere(hasIPv6, "no IPv6")("two gateways get one port of the kernel's choice each, and never the same", async () => {
  const gateways = [await claim({ port: 0 }), await claim({ port: 0, host: "::1" }), await claim({ port: 0 })];

  expect(new Set(gateways.map(({ port }) => port)).size).toBe(gateways.length);
});

itWhere(hasIPv6, "no IPv6")("a guard never answers, and counts for no server", async () => {
  const gateway = await claim({ port: 0 });
  const server = createNetServer();
  await gateway.listen(server);

  expect(await refusalToConnect(gateway.port, "::1")).toBe("ECONNREFUSED");
  expect(await connectionsOf(server)).toBe(0);
});

const WITHOUT = "no network namespaces of our own";

function startWithoutIPv6(options: object): TestProcess {
  const [command = "", ...args] = WITHOUT_IPV6;
  const fixture = [process.execPath, fixturePath("listener-claim.mjs"), JSON.stringify(options)];
  return new TestProcess(command, [...args, ...fixture]);
}

itWhere(canTurnIPv6Off, WITHOUT)(
  "localhost is 127.0.0.1 alone where the host has no IPv6, and the other half is reported",
  async () => {
    const process = startWithoutIPv6({ stateDir: temporaryDirectory(), host: "localhost", port: 18789 });

    expect(await process.next("claimed", "refused")).toMatchObject({
      event: "claimed",
      addresses: [{ address: "127.0.0.1", family: "IPv4", port: 18789, role: "listen" }],
      skipped: [{ address: "::1", role: "listen", reason: expect.stringContaining("EADDRNOTAVAIL") }],
      url: "ws://127.0.0.1:18789",
      body: "served",
    });
  },
);

itWhere(canTurnIPv6Off, WITHOUT)("the guard is skipped and reported where the host has no IPv6", async () => {
  for (const given of [{}, { port: 0 }]) {
    const process = startWithoutIPv6({ stateDir: temporaryDirectory(), ...given });

    expect(await process.next("claimed", "refused")).toMatchObject({
      event: "claimed",
      addresses: [{ address: "127.0.0.1", role: "listen" }],
      skipped: [{ address: "::1", role: "guard", reason: expect.stringContaining("EADDRNOTAVAIL") }],
      url: expect.stringMatching("port" in given ? /^ws:\/\/127\.0\.0\.1:\d+$/ : /^ws:\/\/127\.0\.0\.1:18789$/),
      body: "served",
    });
  }
});

itWhere(canTurnIPv6Off, WITHOUT)(
  "an IPv6 host that was named outright is an error where the host has no IPv6",
  async () => {
    for (const host of ["::1", ["localhost", "::1"]]) {
      const process = startWithoutIPv6({ stateDir: temporaryDirectory(), host, port: 18789 });

      expect(await process.next("claimed", "refused")).toMatchObject({
        event: "refused",
        code: "BIND_FAILED",
        message: expect.stringMatching(/^failed to bind gateway socket on ws:\/\/\[::1\]:18789: EADDRNOTAVAIL/),
        cause: { code: "EADDRNOTAVAIL" },
        leftovers: { descriptors: 0, lockFiles: [] },
      });
    }
  },
);

it("refuses an address that this host does not have, and holds nothing afterwards", async () => {
  const absent = "203.0.113.1"; // TEST-NET-3, RFC 5737
  const port = await freePort();

  const error = await refusalOf(() => bound({ host: ["127.0.0.1", absent], port }));

  expect(error).toMatchObject({
    code: "BIND_FAILED",
    retryable: false,
    exitCode: 1,
    host: absent,
    port,
    url: `ws://${absent}:${port}`,
    cause: { code: "EADDRNOTAVAIL", syscall: "bind" },
  });
  const prefix = `failed to bind gateway socket on ws://${absent}:${port}: EADDRNOTAVAIL`;
  expect(error.message.slice(0, prefix.length)).toBe(prefix);
  expect(bound({ port }).port).toBe(port);
});

it("knows which sockets stand in the way of a host", () => {
  const at = (address: string, v6only = false) => ({ address, family: familyOf(address), v6only });
  const inTheWay = (host: string) =>
    [
      at("127.0.0.1"),
      at("0.0.0.0"),
      at("127.0.0.2"),
      at("::1"),
      at("::"),
      at("::", true),
      at("::ffff:127.0.0.1"),
      at("fe80::1%eth0"),
    ]
      .filter((socket) => overlaps(host, socket))
      .map(({ address, v6only }) => (v6only ? `${address} v6only` : address));

  expect(inTheWay("127.0.0.1")).toEqual(["127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1"]);
  expect(inTheWay("::ffff:127.0.0.1")).toEqual(inTheWay("127.0.0.1"));
  expect(inTheWay("::1")).toEqual(["::1", "::", ":: v6only"]);
  expect(inTheWay("0:0:0:0:0:0:0:1")).toEqual(["::1", "::", ":: v6only"]);
  expect(inTheWay("fe80::1%eth0")).toEqual(["::", ":: v6only", "fe80::1%eth0"]);
  expect(inTheWay("0.0.0.0")).toEqual(["127.0.0.1", "0.0.0.0", "127.0.0.2", "::", "::ffff:127.0.0.1"]);
});
