// So many texts that a lock file may hold, most of them records with something done to them: what is read from each is a record that somebody wrote, whole, or
// none. { seed, inputs, files }; prints progress, and ends with one line of JSON.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readOwner } from "../../dist/index.js";
import { decodeRecord, encodeRecord } from "../../dist/lock/record.js";
import { makeRandom } from "../support/random.mjs";

const { seed, inputs, files } = JSON.parse(process.argv[2]);
const random = makeRandom(seed);
const SLOWEST = 2000; // ms, for one input, on a machine that does other things too

const WORDS = [
  "",
  "a",
  "ready",
  "127.0.0.1",
  "ws://[::1]:1",
  "__proto__",
  "constructor",
  "\u0000",
  "\u001b[2J",
  "\u202e",
  "\ud800",
  "é",
  "\ufeff",
  '"',
  "\\",
];
const word = () => random.pick(WORDS).repeat(random.integer(0, 3));
const orNull = (value) => (random.chance(0.2) ? null : value);

function value(depth = 0) {
  return random.weighted(
    [
      [3, word()],
      [3, random.integer(-(2 ** 33), 2 ** 33)],
      [1, random.pick([null, true, false, 1e308, -0, 0.5, Number.MAX_SAFE_INTEGER])],
      [depth < 3 ? 2 : 0, () => Array.from({ length: random.integer(0, 3) }, () => value(depth + 1))],
      [depth < 3 ? 2 : 0, () => objectOf(depth + 1)],
    ].map(([weight, made]) => [weight, typeof made === "function" ? made : () => made]),
  )();
}

function objectOf(depth) {
  const object = {};
  for (let i = random.integer(0, 3); i > 0; i--) {
    Object.defineProperty(object, word(), {
      value: value(depth),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  return object;
}

/** As an owner writes it. */
function fields() {
  return {
    pid: random.integer(1, 2 ** 31 - 1),
    startTime: orNull(random.integer(0, 2 ** 40)),
    ownerId: word(),
    createdAt: "2026-01-01T00:00:00.000Z",
    configPath: word(),
    stateDir: word(),
    port: random.integer(0, 65535),
    host: orNull(word()),
    url: orNull(word()),
    phase: random.pick(["starting", "listening", "ready", "stopping"]),
    hostname: orNull(word()),
    bootId: orNull(word()),
    pidNamespace: orNull(word()),
    supervisor: random.pick([null, "systemd", "launchd", "schtasks", "pm2", "kubernetes", "docker"]),
    runtime: orNull(word()),
    version: orNull(word()),
    configLock: orNull(random.pick(["exclusive", "state-only"])),
    metadata: JSON.parse(JSON.stringify(objectOf(1))),
  };
}

const somewhere = (bytes) => random.integer(0, Math.max(0, bytes.length - 1));
const KEYS = ["pid", "check", "metadata", "startTime", "port", "__proto__", "toString", "phase"];

/** What happens to a file: by a crash, another program, a disk, or an enemy. */
const DAMAGES = {
  none: (bytes) => bytes,
  "a bit": (bytes) => {
    bytes[somewhere(bytes)] ^= 1 << random.integer(0, 7);
    return bytes;
  },
  "an end": (bytes) => bytes.subarray(0, somewhere(bytes)),
  "a hole": (bytes) => {
    const start = somewhere(bytes);
    return Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + random.integer(1, 50))]);
  },
  "a splice of two": (bytes, other) => {
    const start = somewhere(bytes);
    return Buffer.concat([bytes.subarray(0, start), other.subarray(start)]);
  },
  "bytes in between": (bytes) => {
    const start = somewhere(bytes);
    const more = Buffer.from(Array.from({ length: random.integer(1, 20) }, () => random.integer(0, 255)));
    return Buffer.concat([bytes.subarray(0, start), more, bytes.subarray(start)]);
  },
  "a key twice": (bytes) => {
    const text = bytes.toString().trimEnd();
    return Buffer.from(text.replace("{", `{${JSON.stringify(random.pick(KEYS))}:${JSON.stringify(value())},`));
  },
  "another value": (bytes) => {
    const text = bytes.toString().trimEnd();
    const key = random.pick(KEYS);
    return Buffer.from(text.replace(new RegExp(`"${key}":(?:"[^"]*"|[^,{}]*)`), `"${key}":${JSON.stringify(value())}`));
  },
  "no hash": (bytes) => Buffer.from(bytes.toString().replace(/,"check":"[^"]*"/, "")),
  "a number that is none": (bytes) =>
    Buffer.from(bytes.toString().replace(/\d+/, random.pick(["1e999", "-1", "0x1", "1.5", "9".repeat(400)]))),
  "another text": () => Buffer.from(JSON.stringify(value()) ?? ""),
  "a nest": () => Buffer.from(random.pick(["[", '{"pid":']).repeat(random.integer(1, 20_000))),
  noise: () => Buffer.from(Array.from({ length: random.integer(0, 300) }, () => random.integer(0, 255))),
};

const NAMES_OF_DAMAGES = Object.keys(DAMAGES);
const TEXTS = [
  "ownerId",
  "createdAt",
  "configPath",
  "stateDir",
  "host",
  "url",
  "hostname",
  "bootId",
  "pidNamespace",
  "runtime",
  "version",
  "check",
];
const NAMES = [...Object.keys(fields()), "check"].sort();

/** A record as it is promised, whatever was read. */
function mustBeWellFormed(record) {
  assert.deepEqual(Object.keys(record).sort(), NAMES);
  assert.equal(Object.getPrototypeOf(record), Object.prototype);
  assert.ok(Number.isInteger(record.pid) && record.pid > 0 && record.pid < 2 ** 31, `pid ${record.pid}`);
  assert.ok(record.port === null || (Number.isInteger(record.port) && record.port >= 0 && record.port <= 65535));
  assert.ok(record.startTime === null || (Number.isSafeInteger(record.startTime) && record.startTime >= 0));
  for (const name of TEXTS) assert.ok(record[name] === null || typeof record[name] === "string", name);
  assert.ok(["starting", "listening", "ready", "stopping", null].includes(record.phase));
  assert.ok(typeof record.metadata === "object" && record.metadata !== null && !Array.isArray(record.metadata));
  assert.ok(Buffer.byteLength(JSON.stringify(record.metadata)) <= 2048);
}

const directory = mkdtempSync(join(tmpdir(), "gateway-lock-fuzz-"));
const path = join(directory, "lock");
const counts = {};
const kinds = {};
const isInFile = (i) => i % Math.max(1, Math.floor(inputs / files)) === 0;
let whole = encodeRecord(fields());
let other = encodeRecord(fields());
try {
  for (let i = 0; i < inputs; i++) {
    if (i % 20 === 0) [other, whole] = [whole, encodeRecord(fields())];
    // Two at a time: without its hash, what else is wrong is read.
    const damages = [random.pick(NAMES_OF_DAMAGES), random.pick(NAMES_OF_DAMAGES)];
    const bytes = damages.reduce((bytes, name) => DAMAGES[name](bytes, other.bytes), Buffer.from(whole.bytes));
    const damage = damages.join(", ");
    const text = bytes.toString();
    try {
      const started = performance.now();
      const decoded = decodeRecord(text);
      assert.ok(performance.now() - started < SLOWEST, "it takes too long");
      if (decoded.kind === "record") {
        mustBeWellFormed(decoded.record);
        // Only what an owner has written has its hash: what was damaged anywhere is not read as whole.
        if (decoded.record.check !== null) {
          const written = [whole, other].find(({ bytes }) => bytes.toString().trim() === text.trim());
          assert.ok(written !== undefined, "a damaged record passes for a whole one");
          assert.deepEqual(decoded.record, written.record);
        }
      } else if (damages.every((name) => name === "none")) assert.fail(`a whole record is ${decoded.kind}`);
      if (isInFile(i)) {
        writeFileSync(path, bytes);
        const { record, torn, holders } = readOwner(path);
        assert.deepEqual(holders, []);
        if (record !== null) mustBeWellFormed(record);
        if (decoded.kind === "record" && decoded.record.check !== null) assert.deepEqual(record, decoded.record);
        if (decoded.kind === "torn") assert.ok(torn && record === null);
      }
      assert.equal({}.polluted, undefined);
      assert.equal(Object.keys(Object.prototype).length, 0, "Object.prototype was changed");
      for (const name of damages) counts[name] = (counts[name] ?? 0) + 1;
      kinds[decoded.kind] = (kinds[decoded.kind] ?? 0) + 1;
    } catch (error) {
      const shown = JSON.stringify(text.trimEnd().slice(0, 2000));
      throw new Error(`input ${i} of seed ${seed} (${damage}): ${error.message}\n${shown}`, { cause: error });
    }
    if (i > 0 && i % 100_000 === 0) console.log(`${i} of ${inputs} records`);
  }
} finally {
  rmSync(directory, { recursive: true });
}
console.log(JSON.stringify({ inputs, files: Math.min(files, inputs), counts, kinds }));
