// Calls what users call with options of wrong types and names: a TypeError or RangeError with Node's code for it, or a GatewayLockError; never another, never by a
// synchronous throw where a promise is promised, and where options are refused nothing has been touched. { seed, calls }; run in namespaces of its own.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import * as library from "../../dist/index.js";

const { seed, calls } = JSON.parse(process.argv[2]);
const { acquireGateway, bindExclusive, checkIsolation, diagnose, inspectGateway, lockFile, readOwner } = library;
const { resolveProfile, superviseGateway, tryLockFile } = library;
const REFUSED = new Set(["ERR_INVALID_ARG_TYPE", "ERR_INVALID_ARG_VALUE", "ERR_SOCKET_BAD_PORT", "ERR_OUT_OF_RANGE"]);

const directory = mkdtempSync(join(tmpdir(), "gateway-lock-fuzz-"));
process.chdir(directory);
const anything = fc.anything({ withBigInt: true, withDate: true, withNullPrototype: true, withTypedArray: true });
const path = fc.constantFrom("state", join(directory, "state"), "x/y", "");
const NAMES = {
  gateway: [
    "stateDir",
    "configPath",
    "port",
    "host",
    "scheme",
    "lockDir",
    "locks",
    "reserve",
    "timeout",
    "signal",
    "loopbackGuard",
    "backlog",
    "metadata",
    "allowNetworkFilesystem",
    "handover",
    "health",
    "retry",
    "onDuplicate",
    "statedir",
    "__proto__",
    "toString",
  ],
  lock: ["timeout", "signal", "remove", "removes"],
  bind: ["host", "port", "backlog"],
  profile: ["app", "profile", "port", "stateDir", "configPath", "env", "home"],
};
/** Some of what is needed is there, so that the rest is looked at. */
const optionsOf = (names, base) =>
  fc.oneof(
    { weight: 1, arbitrary: anything },
    {
      weight: 6,
      arbitrary: fc
        .array(
          fc.tuple(fc.constantFrom(...names), fc.oneof(anything, path, fc.constantFrom(0, -1, 65536, 1.5, Number.NaN))),
          { maxLength: 3 },
        )
        .map((entries) => Object.fromEntries([...Object.entries(base), ...entries])),
    },
  );
const QUICK = { timeout: 0, port: 0, health: { timeout: 1 }, retry: { interval: 1, limit: 1 } };
const gateway = optionsOf(NAMES.gateway, { stateDir: "state", port: 0 });

const one = (name, run, options) =>
  fc.record({ name: fc.constant(name), run: fc.constant(run), args: fc.tuple(options) });
const two = (name, run, first, second) =>
  fc.record({ name: fc.constant(name), run: fc.constant(run), args: fc.tuple(first, second) });
const anyPath = fc.oneof(anything, path);
const call = fc.oneof(
  one("acquireGateway", acquireGateway, gateway),
  one("superviseGateway", superviseGateway, optionsOf(NAMES.gateway, { stateDir: "state", ...QUICK })),
  one("inspectGateway", inspectGateway, gateway),
  one("diagnose", diagnose, gateway),
  two("tryLockFile", tryLockFile, anyPath, optionsOf(NAMES.lock, {})),
  two("lockFile", lockFile, anyPath, optionsOf(NAMES.lock, { timeout: 0 })),
  one("bindExclusive", bindExclusive, optionsOf(NAMES.bind, { host: "127.0.0.1", port: 0 })),
  one("readOwner", readOwner, anyPath),
  one("resolveProfile", resolveProfile, optionsOf(NAMES.profile, { home: "/nowhere", env: {} })),
  one("checkIsolation", checkIsolation, fc.oneof(anything, fc.array(optionsOf(NAMES.profile, {}), { maxLength: 3 }))),
);
const ASYNC = new Set(["acquireGateway", "superviseGateway", "inspectGateway", "diagnose", "lockFile"]);
const outcomes = {};

function snapshot() {
  return readdirSync(directory, { recursive: true }).sort().join("\n");
}

await fc.assert(
  fc.asyncProperty(call, async ({ name, run, args }) => {
    const before = snapshot();
    let outcome = "done";
    try {
      let result;
      try {
        result = run(...args);
      } catch (error) {
        assert.ok(!ASYNC.has(name), `${name} throws before it returns: ${error.stack}`);
        throw error;
      }
      result = await result;
      if (result?.gateway) await result.gateway.close();
      else if (typeof result?.close === "function") await result.close();
      else if (typeof result?.release === "function") result.release();
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      const isOurs = error.name === "GatewayLockError";
      assert.ok(isOurs || REFUSED.has(error.code), `${name}: ${error.stack}`);
      if (!isOurs)
        assert.equal(snapshot(), before, `${name} was refused by ${error.message}, and something has changed`);
      outcome = error.code;
    }
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }),
  { seed, numRuns: calls, endOnFailure: true },
);
process.chdir("/");
rmSync(directory, { recursive: true, force: true });
console.log(JSON.stringify({ calls, outcomes }));
process.exit(0);
