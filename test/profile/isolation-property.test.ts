// What checkIsolation predicts is what the kernel enforces: each generated pair of gateways is started for real, in two processes.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect } from "vitest";
import type { GatewayOptions } from "../../lib/options.ts";
import { canUnshareMount, canUnshareNet, itWhere } from "../support/capabilities.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { temporaryDirectory } from "../support/temporary.ts";

/** `GATEWAY_LOCK_PAIRS=5000` looks longer. */
const PAIRS = Number(process.env.GATEWAY_LOCK_PAIRS ?? 200);
const SECONDS_A_PAIR = 1.5; // one that waits for a lock file to be restored takes a second
const PORT = 18789;

// Ways to say one thing, and things that are only near it. Bind mounts: bind is one, bindsub is one/sub, etcbind is etc.
const DIRECTORIES = {
  one: ["one", "one/", "./one/.", "link", "link/", "bind", "two/../one", "one/sub/..", "link/sub/..", "sublink/.."],
  sub: ["one/sub", "link/sub", "bind/sub", "bindsub", "sublink", "bindsub/."],
  two: ["two", "two/", "etc/../two"],
  fresh: ["fresh", "missing/../fresh", "./fresh/"],
  within: ["one/fresh", "link/fresh/", "bind/fresh", "sublink/../fresh"],
};
const FILES = {
  shared: [
    "etc/shared.json",
    "etc/link.json",
    "etcbind/link.json",
    "two/../etc/shared.json",
    "sublink/../../etc/shared.json",
  ],
  own: ["etc/own.json", "etcbind/own.json"],
  absent: ["etc/absent.json", "etcbind/absent.json"],
  usual: ["one/gateway.json", "link/gateway.json", "bind/gateway.json", "sublink/../gateway.json"],
  inside: ["one/new.json", "bind/new.json", "etc/dangling.json", "etcbind/dangling.json", "sublink/../new.json"],
};
const LOCKS = [...DIRECTORIES.one, ...DIRECTORIES.sub, "two", "etc", "etcbind", "file", ...FILES.shared, ...FILES.own];
const HOSTS = [
  "127.0.0.1",
  "localhost",
  "::1",
  "0.0.0.0",
  "::",
  "127.0.0.2",
  ["127.0.0.1", "127.0.0.2"],
  ["::", "0.0.0.0"],
];

function oneOf(places: Readonly<Record<string, readonly string[]>>): fc.Arbitrary<string> {
  return fc.oneof(...Object.values(places).map((spellings) => fc.constantFrom(...spellings)));
}

/** Ports of a gateway at `base`: its own, and some that it reserves. */
function portsAt(base: number): fc.Arbitrary<Pick<GatewayOptions, "port" | "reserve">> {
  const offsets = fc.oneof(
    { weight: 2, arbitrary: fc.constant([]) },
    { weight: 2, arbitrary: fc.constant([2, 11, 12, 13]) },
    { weight: 1, arbitrary: fc.uniqueArray(fc.integer({ min: 0, max: 15 }), { maxLength: 5 }) },
  );
  const port = fc.oneof({ weight: 8, arbitrary: fc.constant(base) }, { weight: 1, arbitrary: fc.constant(0) });
  return fc.record({ port, reserve: offsets.map((some) => some.map((offset) => base + offset)) });
}

function gatewayAt(base: number): fc.Arbitrary<GatewayOptions> {
  const rarely = <T>(arbitrary: fc.Arbitrary<T>, usually: T) =>
    fc.oneof({ weight: 2, arbitrary: fc.constant(usually) }, { weight: 1, arbitrary });
  return fc
    .record({
      stateDir: oneOf(DIRECTORIES),
      configPath: rarely<string | undefined>(oneOf(FILES), undefined),
      locks: rarely(fc.uniqueArray(fc.constantFrom(...LOCKS), { maxLength: 3 }), []),
      host: rarely<string | string[]>(fc.constantFrom(...HOSTS), "127.0.0.1"),
      loopbackGuard: rarely(fc.boolean(), true),
      ports: portsAt(base),
    })
    .map(({ ports, ...options }) => ({ ...options, ...ports }));
}

/** Half of them far apart, so that ports do not decide everything; the others at one port, or so near that what they reserve may meet. */
const pair: fc.Arbitrary<readonly [GatewayOptions, GatewayOptions]> = fc
  .oneof({ weight: 3, arbitrary: fc.constant(1000) }, { weight: 3, arbitrary: fc.integer({ min: 0, max: 14 }) })
  .chain((distance) => fc.tuple(gatewayAt(PORT), gatewayAt(PORT + distance)));

const NAMESPACES = `set -e; ip link set lo up; cd "$1"
mount --bind one bind; mount --bind one/sub bindsub; mount --bind etc etcbind
exec "$2" "$3" "$4"`;

itWhere(canUnshareMount && canUnshareNet, "needs mount and network namespaces")(
  `of ${PAIRS} pairs, the second one is refused if and only if checkIsolation says so`,
  async () => {
    const root = temporaryDirectory();
    for (const name of ["one/sub", "two", "etc", "bind", "bindsub", "etcbind"])
      mkdirSync(join(root, name), { recursive: true });
    const gateways = new TestProcess("unshare", [
      ...["--user", "--map-root-user", "--mount", "--net", "sh", "-c", NAMESPACES, "sh"],
      ...[root, process.execPath, fixturePath("isolation-pairs.mjs"), JSON.stringify({ root, linked: true })],
    ]);
    const { pid } = await gateways.next("ready");
    const below = (options: GatewayOptions): GatewayOptions => {
      const at = (path: string) => `${root}/${path}`;
      const { stateDir, configPath, locks = [] } = options;
      const config = configPath === undefined ? {} : { configPath: at(configPath) };
      return { ...options, ...config, stateDir: at(stateDir), locks: locks.map(at) };
    };
    const counts: Record<string, number> = {};
    let [tried, refused] = [0, 0];
    const property = fc.asyncProperty(pair, async ([one, two]) => {
      gateways.send(JSON.stringify({ a: below(one), b: below(two) }));
      const { predicted, meanwhile, first, second, misread } = await gateways.next("pair");
      tried++;
      expect(misread).toEqual([]);
      expect(first).toBeNull();
      expect(meanwhile).toEqual(predicted);
      expect({ predicted, refused: second !== null }).toEqual({ predicted, refused: predicted.length > 0 });
      if (second === null) return;
      refused++;
      for (const { kind } of predicted) counts[kind] = (counts[kind] ?? 0) + 1;
      expect(second).toMatchObject({ code: "ALREADY_LISTENING", cause: expect.stringContaining(`pid ${pid}`) });
      // It names what is shared: the directory or file by its role and path, or the port.
      const shared = predicted.map(({ detail }: { detail: string }) => detail).join("\n");
      expect(shared).toContain(second.resource === undefined ? "port" : second.resource.path);
    });
    const seed = Number(process.env.GATEWAY_LOCK_SEED ?? Date.now() % 2 ** 31);
    await fc.assert(property, { numRuns: PAIRS, seed });
    console.log(`isolation: seed ${seed}: ${tried} pairs, ${refused} refused: ${JSON.stringify(counts)}`);
    // It can't be true for want of cases.
    expect(Math.min(refused, tried - refused)).toBeGreaterThan(PAIRS / 5);
    expect(Object.keys(counts).sort()).toEqual(["config", "derived", "port", "state", "workspace"]);
  },
  PAIRS * SECONDS_A_PAIR * 1000,
);
