// A wrong option is refused by name before anything is touched, and what is right is taken as it is.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { inspect } from "node:util";
import { expect, it } from "vitest";
import { acquireGateway } from "../lib/acquire.ts";
import type { Gateway } from "../lib/gateway.ts";
import { bindExclusive } from "../lib/listener/claim.ts";
import type { GatewayOptions, ListenerOptions, Metadata } from "../lib/options.ts";
import { bound, claim, connectTo } from "./support/listener-tools.ts";
import { freePort, openDescriptors, temporaryDirectory } from "./support/temporary.ts";

interface Refused {
  readonly name: string;
  readonly code: string;
  readonly message: string;
}

/** What acquireGateway rejects with; and proof that it has thrown nothing before, and touched nothing on disk. */
async function refusal(options: unknown): Promise<Refused> {
  const base = temporaryDirectory();
  const stateDir = join(base, "state");
  const given = typeof options === "object" && options !== null && !Array.isArray(options) ? options : null;
  const all = given === null ? options : { stateDir, port: 0, ...given };
  const before = openDescriptors();
  // Called in a `let`, so that a synchronous throw would end the test.
  const promise: Promise<Gateway> = acquireGateway(all as GatewayOptions);
  const error = await promise.then(
    async (gateway) => {
      await gateway.close();
      throw new Error(`${inspect(options)} was accepted`);
    },
    (reason: Refused) => reason,
  );
  expect(readdirSync(base)).toEqual([]);
  expect(openDescriptors()).toBe(before);
  return error;
}

const NOT_STRINGS = [null, 1, true, {}, [], Symbol("s"), 1n, () => "x"];
const NOT_NUMBERS = [null, "1", true, {}, [], 1n];
const NOT_BOOLEANS = [null, 0, 1, "true", {}];
const NOT_ARRAYS = [null, 1, "path", { 0: "path", length: 1 }];

const wrongTypes: Record<keyof GatewayOptions, readonly unknown[]> = {
  stateDir: [undefined, ...NOT_STRINGS],
  configPath: NOT_STRINGS,
  port: NOT_NUMBERS,
  host: [null, 1, true, {}, Symbol("s"), 1n, [1], ["127.0.0.1", null]],
  scheme: NOT_STRINGS,
  lockDir: NOT_STRINGS,
  locks: [...NOT_ARRAYS, [1], [null]],
  reserve: [...NOT_ARRAYS, ["1"], [null]],
  timeout: NOT_NUMBERS,
  signal: [null, 1, "abort", {}, new EventTarget()],
  loopbackGuard: NOT_BOOLEANS,
  backlog: NOT_NUMBERS,
  metadata: [null, 1, "text", true, [], [1], 1n, () => ({}), new Map()],
  allowNetworkFilesystem: NOT_BOOLEANS,
  handover: [null, 1, "true", [], { onHandover: "later" }, { onResume: 1 }],
};

for (const [name, values] of Object.entries(wrongTypes)) {
  it(`refuses every wrong type of ${name}`, async () => {
    const accepted: unknown[] = [];
    for (const value of values) {
      const error = await refusal({ [name]: value });
      if (error.name !== "TypeError" || error.code !== "ERR_INVALID_ARG_TYPE" || !error.message.includes(`"${name}`)) {
        accepted.push({ value, error });
      }
    }
    expect(accepted).toEqual([]);
  });
}

it("refuses options that are no object, with a rejection and never a throw", async () => {
  for (const options of [undefined, null, 1, "state", [], Symbol("s")]) {
    expect(await refusal(options)).toMatchObject({ name: "TypeError", code: "ERR_INVALID_ARG_TYPE" });
  }
});

it("refuses an unknown option, and names it and the nearest real one", async () => {
  const nearest = {
    statedir: "stateDir",
    state_dir: "stateDir",
    time_out: "timeout",
    Port: "port",
    hosts: "host",
    lockdir: "lockDir",
    lock: "locks",
    reserved: "reserve",
    abortSignal: "signal",
    configpath: "configPath",
    loopbackguard: "loopbackGuard",
    handOver: "handover",
  };
  for (const [unknown, real] of Object.entries(nearest)) {
    const error = await refusal({ [unknown]: 1 });
    expect(error).toMatchObject({ name: "TypeError", code: "ERR_INVALID_ARG_VALUE" });
    expect(error.message).toContain(`"${unknown}"`);
    expect(error.message).toContain(`'${real}'`);
  }
});

it("names an unknown option even if its value is undefined, or another option is wrong too", async () => {
  expect(await refusal({ statedir: undefined })).toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
  expect((await refusal({ port: "1", time_out: 5 })).message).toContain("time_out");
});

it("refuses a bad port as Node does", async () => {
  for (const port of [-1, 65536, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(await refusal({ port })).toMatchObject({ name: "RangeError", code: "ERR_SOCKET_BAD_PORT" });
    expect(await refusal({ reserve: [port] })).toMatchObject({ name: "RangeError", code: "ERR_SOCKET_BAD_PORT" });
    expect(() => bindExclusive({ port })).toThrow(expect.objectContaining({ code: "ERR_SOCKET_BAD_PORT" }));
  }
});

it("refuses a number that is none of the option's", async () => {
  const wrong = [
    { timeout: -1 },
    { timeout: Number.NaN },
    { backlog: 0 },
    { backlog: 1.5 },
    { backlog: Number.NaN },
    { backlog: 2 ** 31 },
  ];
  for (const options of wrong) {
    expect(await refusal(options)).toMatchObject({ name: "RangeError", code: "ERR_OUT_OF_RANGE" });
  }
});

it("refuses a value that can mean nothing", async () => {
  const wrong = [
    { stateDir: "" },
    { stateDir: "a\0b" },
    { configPath: "" },
    { lockDir: "a\0b" },
    { locks: [""] },
    { host: "" },
    { host: "gateway.example" },
    { host: "127.0.0.1:80" },
    { host: "[::1]" },
    { host: [] },
    { scheme: "ftp" },
  ];
  for (const options of wrong) {
    expect(await refusal(options)).toMatchObject({ name: "TypeError", code: "ERR_INVALID_ARG_VALUE" });
  }
});

it("takes true, false or hooks for handover, and refuses what is none of its hooks", async () => {
  for (const handover of [
    true,
    false,
    {},
    { onHandover: undefined },
    { onHandover: () => {}, onResume: async () => {} },
  ]) {
    const port = await freePort();
    await (await claim({ port, reserve: [], handover })).close();
  }
  const error = await refusal({ handover: { onhandover: () => {} } });
  expect(error).toMatchObject({ name: "TypeError", code: "ERR_INVALID_ARG_VALUE" });
  expect(error.message).toContain("did you mean 'handover.onHandover'?");
});

it("takes undefined for an option that is not given", async () => {
  const nothing = Object.fromEntries(Object.keys(wrongTypes).map((name) => [name, undefined]));
  const port = await freePort();

  const gateway = await claim({ ...nothing, stateDir: temporaryDirectory(), port });

  expect(gateway).toMatchObject({ host: "127.0.0.1", url: `ws://127.0.0.1:${port}` });
  expect(gateway.owner.metadata).toEqual({});
});

/** Metadata whose JSON has exactly `bytes` bytes. */
function metadataOf(bytes: number, letter = "a"): Metadata {
  const length = Buffer.byteLength(letter);
  const rest = bytes - Buffer.byteLength(JSON.stringify({ text: "" }));
  const text = letter.repeat(Math.floor(rest / length)) + "a".repeat(rest % length);
  return { text };
}

it("takes metadata of 2048 bytes of JSON, and not one more", async () => {
  for (const letter of ["a", "é", "\u{1f512}"]) {
    const metadata = metadataOf(2048, letter);
    expect(Buffer.byteLength(JSON.stringify(metadata))).toBe(2048);

    const gateway = await claim({ port: 0, metadata });
    expect(gateway.owner.metadata).toEqual(metadata);

    const tooLong = metadataOf(2049, letter);
    expect(await refusal({ metadata: tooLong })).toMatchObject({ name: "TypeError", code: "ERR_INVALID_ARG_VALUE" });
    expect(() => gateway.update({ metadata: tooLong })).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARG_VALUE" }),
    );
    expect(gateway.owner.metadata).toEqual(metadata);
  }
});

it("refuses metadata that is no JSON", async () => {
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  const throwing = {
    toJSON() {
      throw new Error("no");
    },
  };
  // What JSON.stringify writes as null, as text, as nothing or not at all.
  const silent = [Number.NaN, Infinity, new Date(0), new Map(), () => {}, Symbol("s"), [undefined]];
  const wrong = [
    ...[cyclic, { count: 1n }, throwing, { toJSON: () => "text" }, { toJSON: () => undefined }],
    ...silent.flatMap((value) => [{ value }, { list: [value] }, { deep: { value } }]),
  ];
  for (const metadata of wrong) {
    const error = await refusal({ metadata });
    expect(error).toMatchObject({ name: "TypeError", code: "ERR_INVALID_ARG_VALUE" });
    expect(error.message).toContain('"metadata"');
  }
});

it("keeps a copy of the metadata: what the caller does to the object later changes nothing", async () => {
  const metadata = { list: [1, 2], name: "a" };
  const gateway = await claim({ port: 0, metadata });

  metadata.list.push(3);
  metadata.name = "b";
  gateway.ready();

  expect(gateway.owner).toMatchObject({ phase: "ready", metadata: { list: [1, 2], name: "a" } });
});

it("a signal that is aborted already rejects with its reason, and touches nothing", async () => {
  for (const reason of [new Error("stopped"), "stopped", 7, { some: "thing" }]) {
    expect(await refusal({ signal: AbortSignal.abort(reason) })).toBe(reason);
  }
  expect(await refusal({ signal: AbortSignal.abort() })).toMatchObject({ name: "AbortError" });
});

it("an aborted signal hides no mistake in another option", async () => {
  expect(await refusal({ signal: AbortSignal.abort(), port: -1 })).toMatchObject({ code: "ERR_SOCKET_BAD_PORT" });
});

it("a signal that aborts after the gateway was acquired does nothing", async () => {
  const controller = new AbortController();
  const gateway = await claim({ port: 0, signal: controller.signal });

  controller.abort();

  gateway.assertCurrent();
  expect((await connectTo({ port: gateway.port, host: "127.0.0.1" })).remotePort).toBe(gateway.port);
});

it("bindExclusive knows its own options only", async () => {
  const port = await freePort();
  const wrong: [unknown, string][] = [
    [null, "ERR_INVALID_ARG_TYPE"],
    ["127.0.0.1", "ERR_INVALID_ARG_TYPE"],
    [{ port: "1" }, "ERR_INVALID_ARG_TYPE"],
    [{ host: null }, "ERR_INVALID_ARG_TYPE"],
    [{ host: 1 }, "ERR_INVALID_ARG_TYPE"],
    [{ backlog: "1" }, "ERR_INVALID_ARG_TYPE"],
    [{ stateDir: "/" }, "ERR_INVALID_ARG_VALUE"],
    [{ hosts: "127.0.0.1" }, "ERR_INVALID_ARG_VALUE"],
    [{ host: "localhost:80" }, "ERR_INVALID_ARG_VALUE"],
    [{ backlog: 0 }, "ERR_OUT_OF_RANGE"],
  ];
  for (const [options, code] of wrong) {
    const given = typeof options === "object" && options !== null ? { port, ...options } : options;
    expect(() => bound(given as ListenerOptions)).toThrow(expect.objectContaining({ code }));
  }
  expect(bound({ port }).port).toBe(port);
});
