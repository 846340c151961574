// Proves that garbage in a lock file is never read as a record, and is reclaimed.

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { encodeRecord, readOwner } from "../../lib/lock/record.ts";
import { hasStrace, itWhere } from "../support/capabilities.ts";
import { FIELDS, GONE_PID } from "../support/records.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const BLOCK = 4096;
const A_MEGABYTE = 2 ** 20;
// As other programs write it, with nothing to prove that it is whole.
const OLDER_RECORD = {
  pid: GONE_PID,
  ownerId: "older",
  createdAt: "2025-01-02T03:04:05.678Z",
  configPath: "/srv/openclaw.json",
  stateDir: "/srv",
  port: 18789,
  startTime: 4711,
};

function lockFileWith(content: string | Uint8Array): string {
  const path = join(temporaryDirectory(), "gateway.lock");
  writeFileSync(path, content);
  return path;
}

it("reads an older program's record, with null for what it does not say", () => {
  const { record, torn, locked } = readOwner(lockFileWith(JSON.stringify(OLDER_RECORD, null, 2)));
  expect(record).toMatchObject({ ...OLDER_RECORD, check: null, phase: null, host: null, metadata: {} });
  expect(torn).toEqual(false);
  expect(locked).not.toEqual(true);
});

const whole = encodeRecord(FIELDS).bytes.toString().trimEnd();
const GARBAGE: Record<string, { content: string | Uint8Array; torn: boolean }> = {
  empty: { content: "", torn: false },
  spaces: { content: " ".repeat(BLOCK), torn: false },
  "a record that breaks off": { content: whole.slice(0, whole.length / 2), torn: true },
  "a megabyte of text": { content: "x".repeat(A_MEGABYTE), torn: true },
  "a megabyte of JSON": { content: JSON.stringify({ pid: 1, metadata: { x: "x".repeat(A_MEGABYTE) } }), torn: true },
  "a megabyte of zeros": { content: Buffer.alloc(A_MEGABYTE), torn: true },
  "binary data": { content: Buffer.from(Array.from({ length: 1000 }, (_, i) => (i * 7919) % 256)), torn: true },
  "a JSON array": { content: "[1,2]", torn: false },
  "a JSON number": { content: "4711", torn: false },
  "JSON null": { content: "null", torn: false },
  "an empty JSON object": { content: "{}", torn: false },
  "a pid of a wrong type": { content: '{"pid":"4711"}', torn: false },
  "metadata that is a deep nest": {
    content: `{"pid":1,"metadata":{"x":${"[".repeat(9000)}${"]".repeat(9000)}}}`,
    torn: false,
  },
  "a deep nest": { content: "[".repeat(60_000), torn: true },
  "a wrong hash": { content: whole.replace(/"check":"./, '"check":"z'), torn: true },
  "a hash of a wrong type": { content: whole.replace(/"check":".*"/, '"check":1'), torn: true },
  "a hash that is not last": { content: whole.replace(/^\{(.*),("check":"\w+")\}$/, "{$2,$1}"), torn: true },
};

it.each(Object.entries(GARBAGE))("reads no record from %s", (_, { content, torn }) => {
  const path = lockFileWith(content);
  expect(readOwner(path)).toMatchObject({ record: null, torn, holders: [] });
  expect(Buffer.compare(readFileSync(path), Buffer.from(content)), "it must not change").toBe(0);
});

it("reads no record where there is no file, or something that is not one", () => {
  const directory = temporaryDirectory();
  symlinkSync(lockFileWith(whole), join(directory, "link"));
  for (const name of ["missing", "missing/too", "link", "."]) {
    expect(readOwner(join(directory, name)), name).toMatchObject({ record: null, torn: false });
  }
});

it("reclaims a lock file with any garbage in it, and writes a record that can be read", async () => {
  const port = await freePort();
  const reclaimed: Record<string, string | Uint8Array> = {
    ...Object.fromEntries(Object.entries(GARBAGE).map(([name, { content }]) => [name, content])),
    "an older program's record": JSON.stringify(OLDER_RECORD),
    "the record of an owner that is gone": whole,
  };
  for (const [name, content] of Object.entries(reclaimed)) {
    const stateDir = temporaryDirectory();
    const path = join(stateDir, "locks", "gateway.state.lock");
    mkdirSync(join(stateDir, "locks"));
    writeFileSync(path, content);
    const gateway = await acquireGateway({ stateDir, port });
    try {
      expect(gateway.lockPaths[0], name).toBe(path);
      expect(readOwner(path), name).toMatchObject({ record: gateway.owner, torn: false });
      expect(statSync(path).size, name).toBe(BLOCK);
    } finally {
      await gateway.close();
    }
    rmSync(stateDir, { recursive: true });
  }
});

itWhere(hasStrace, "needs strace")("reads a record as often as it takes to believe it, and five times at most", () => {
  const record = new URL("../../dist/lock/record.js", import.meta.url);
  for (const [content, readings] of [
    [whole, 1],
    [JSON.stringify(OLDER_RECORD), 2],
    [whole.slice(0, -1), 5],
  ] as const) {
    const path = lockFileWith(content);
    const program = `import { readRecord } from "${record}"; readRecord(${JSON.stringify(path)});`;
    const node = [process.execPath, "--input-type=module", "-e", program];
    const { status, stderr } = spawnSync("strace", ["-f", "-e", "trace=openat", ...node], { encoding: "utf8" });
    expect(status).toBe(0);
    expect(stderr.split(`"${path}"`).length - 1, `readings of ${content.slice(-20)}`).toBe(readings);
  }
});
