// Proves the form of the owner record, and that nothing but a whole one is ever taken for one.

import { createHash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import type { Gateway } from "../../lib/gateway.ts";
import { decodeRecord, encodeRecord, type OwnerFields, readOwner, readRecord } from "../../lib/lock/record.ts";
import { startFixture } from "../support/processes.ts";
import { FIELDS, GONE_PID } from "../support/records.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const BLOCK = 4096;
const OTHER_FIELDS: OwnerFields = {
  ...FIELDS,
  pid: GONE_PID - 1,
  ownerId: "0b8b5a55-0e4e-4f0f-8f43-0d9e1b7c2f90",
  phase: "starting",
  metadata: { note: "of another length, so that the fields do not lie at the same offsets" },
};
async function startGateway(stateDir: string, metadata = {}): Promise<Gateway> {
  const gateway = await acquireGateway({ stateDir, port: await freePort(), metadata });
  onTestFinished(() => gateway.close());
  return gateway;
}

it("is one JSON object in whole blocks padded with spaces, with a hash of the rest as its last field", () => {
  const { record, bytes } = encodeRecord(FIELDS);
  const text = bytes.toString("utf8");
  const json = text.trimEnd();

  expect(bytes.length).toBe(BLOCK);
  expect(text.slice(json.length)).toBe(" ".repeat(text.length - json.length));
  expect(JSON.parse(json)).toEqual(record);
  expect(Object.keys(JSON.parse(json)).at(-1)).toBe("check");
  expect(record).toEqual({ ...FIELDS, check: expect.stringMatching(/^[0-9a-f]{16}$/) });
  const rest = JSON.stringify(FIELDS);
  expect(record.check).toBe(createHash("sha256").update(rest).digest("hex").slice(0, 16));
  expect(decodeRecord(text)).toEqual({ kind: "record", record });
});

it("never shrinks below what it was, and grows by whole blocks", () => {
  const large = encodeRecord({ ...FIELDS, metadata: { note: "x".repeat(BLOCK) } });
  expect(large.bytes.length).toBe(2 * BLOCK);
  expect(encodeRecord(FIELDS, large.bytes.length).bytes.length).toBe(2 * BLOCK);
  expect(decodeRecord(encodeRecord(FIELDS, 2 * BLOCK).bytes.toString())).toMatchObject({ kind: "record" });
});

it("keeps the size of a held lock file when the metadata shrink", async () => {
  // With a path of this length and the metadata, the record needs a second block.
  const stateDir = join(temporaryDirectory(), ...Array.from({ length: 6 }, () => "d".repeat(200)));
  const gateway = await startGateway(stateDir, { note: "x".repeat(2000) });
  const sizes = () => gateway.lockPaths.map((path) => statSync(path).size);
  expect(sizes()).toEqual([2 * BLOCK, 2 * BLOCK]);
  gateway.update({ metadata: {} });

  expect(sizes()).toEqual([2 * BLOCK, 2 * BLOCK]);
  for (const path of gateway.lockPaths) expect(readOwner(path).record).toEqual(gateway.owner);
});

it("is the same in all lock files, follows the phases, and goes with the lock", async () => {
  const stateDir = temporaryDirectory();
  const gateway = await startGateway(stateDir, { mine: [1, { two: null }] });
  const records = () => gateway.lockPaths.map((path) => readRecord(path).record);
  expect(gateway.owner).toMatchObject({
    pid: process.pid,
    phase: "listening",
    stateDir,
    metadata: { mine: [1, { two: null }] },
  });
  expect(records()).toEqual([gateway.owner, gateway.owner]);
  gateway.ready();
  expect(records().map((record) => record?.phase)).toEqual(["ready", "ready"]);
  await gateway.close();
  expect(gateway.lockPaths.filter((path) => existsSync(path))).toEqual([]);
});

it("is never read mixed through 10,000 changes that another process makes", async () => {
  const CHANGES = 10_000;
  const LEAST_SEEN = 20; // a reader that meets a write five times in a row says torn, and has seen nothing
  const options = { stateDir: temporaryDirectory(), port: await freePort() };
  const writer = startFixture("lock-writer.mjs", { options, changes: CHANGES });
  const { lockPaths } = await writer.next("acquired");
  const [path] = lockPaths as string[];
  let finished = false;
  const end = writer.next("finished").then((event) => {
    finished = true;
    return event;
  });
  writer.send("go");

  const seen = new Set<unknown>();
  const mixed: unknown[] = [];
  let backwards = 0;
  let last = -1;
  while (!finished) {
    for (let reading = 0; reading < 20; reading++) {
      const { record } = readRecord(path ?? "");
      const { first, second } = record?.metadata ?? {};
      if (typeof first !== "number") continue;
      if (first !== second || record?.pid !== writer.pid) mixed.push(record);
      if (first < last) backwards++;
      last = first;
      seen.add(first);
    }
    await new Promise(setImmediate);
  }
  const { counter } = await end;

  expect(mixed).toEqual([]);
  expect(backwards, "no older record after a newer one").toBe(0);
  expect(seen.size, "the reader must have seen many").toBeGreaterThan(LEAST_SEEN);
  expect(readRecord(path ?? "").record?.metadata).toMatchObject({ first: counter, second: CHANGES - 1 });
});

/** Neither torn nor foreign, and yet not what was written. */
/** A record without a hash is not believed at one reading, so it is not counted here. */
function isAcceptedWrongly(text: string, ...written: string[]): boolean {
  const decoded = decodeRecord(text);
  if (decoded.kind !== "record" || decoded.record.check === null) return false;
  return !written.some((original) => JSON.stringify(decoded.record) === original);
}

function asAccepted(bytes: Buffer): string {
  const decoded = decodeRecord(bytes.toString());
  if (decoded.kind !== "record") throw new Error(decoded.kind);
  return JSON.stringify(decoded.record);
}

it("does not accept a record of which any one byte was changed", () => {
  const { bytes } = encodeRecord(FIELDS);
  const original = asAccepted(bytes);
  const length = bytes.toString().trimEnd().length + 10; // and some of the padding
  const accepted: string[] = [];
  for (let at = 0; at < length; at++) {
    for (const flip of [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80]) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ flip;
      if (isAcceptedWrongly(changed.toString(), original)) accepted.push(`byte ${at}: ${changed.toString().trimEnd()}`);
    }
  }
  expect(accepted.slice(0, 3)).toEqual([]);
});

it("does not accept the beginning of one record with the end of another", () => {
  const accepted: string[] = [];
  // The longer record outgrows the shorter by every length, so that the ends meet at every field.
  for (let padding = 0; padding < 80; padding++) {
    const [a, b] = [encodeRecord(FIELDS), encodeRecord({ ...OTHER_FIELDS, metadata: { note: "x".repeat(padding) } })];
    const originals = [asAccepted(a.bytes), asAccepted(b.bytes)];
    const length = Math.max(a.bytes.toString().trimEnd().length, b.bytes.toString().trimEnd().length) + 2;
    for (let cut = 0; cut <= length; cut++) {
      for (const [front, back] of [
        [a.bytes, b.bytes],
        [b.bytes, a.bytes],
      ] as const) {
        const spliced = Buffer.concat([front.subarray(0, cut), back.subarray(cut)]).toString();
        if (isAcceptedWrongly(spliced, ...originals)) accepted.push(`cut at ${cut}: ${spliced.trimEnd()}`);
      }
    }
  }
  expect(accepted.slice(0, 3)).toEqual([]);
});

it("does not accept a record that breaks off, and never throws", () => {
  const text = encodeRecord(FIELDS).bytes.toString().trimEnd();
  for (let length = 1; length < text.length; length++) {
    expect(decodeRecord(text.slice(0, length)), text.slice(0, length)).toEqual({ kind: "torn" });
  }
});

it("takes a field of a wrong type for a foreign record", () => {
  const wrong: Record<string, unknown[]> = {
    pid: ["4711", 1.5, -1, 0, 2 ** 31, null, true, [1], {}],
    startTime: ["4711", -1, 1.5, {}],
    ownerId: [1, {}, []],
    createdAt: [1, {}],
    configPath: [1, [], true],
    stateDir: [1, {}, false],
    port: ["18789", -1, 65536, 1.5, {}],
    host: [1, {}],
    url: [1, {}],
    phase: ["asleep", 1, {}],
    hostname: [1],
    bootId: [1],
    pidNamespace: [4_026_531_836],
    supervisor: ["cron", 1],
    runtime: [1],
    version: [1],
    configLock: ["shared", true],
    metadata: ["text", 1, [1], true],
  };
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      const { bytes } = encodeRecord({ ...FIELDS, [field]: value } as OwnerFields);
      expect(decodeRecord(bytes.toString()), `${field}: ${JSON.stringify(value)}`).toEqual({ kind: "foreign" });
    }
  }
});
