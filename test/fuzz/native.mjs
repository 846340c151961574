// Calls every function of the addon with whatever fast-check can think of, then in long sequences with right types and absurd values. It writes each call down
// before it makes it, so that a crash has a name. { seed, calls, sequences, log }; run in namespaces of its own, where no number is anybody else's pid.

import assert from "node:assert/strict";
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import { Worker } from "node:worker_threads";
import fc from "fast-check";

const { seed, calls, sequences, log } = JSON.parse(process.argv[2]);
const root = fileURLToPath(new URL("../..", import.meta.url));
const native = createRequire(import.meta.url)("node-gyp-build")(root);
const functions = Object.keys(native).filter((name) => typeof native[name] === "function");
const directory = mkdtempSync(join(tmpdir(), "gateway-lock-fuzz-"));
process.chdir(directory);
const journal = openSync(log, "w");
const PATIENCE = 5000; // ms; only reached when something is wrong

/** Relative, so that nothing outside is met. */
const path = fc.oneof(
  fc.constantFrom("a", "b", "c/d", "", ".", "x\0y", "n".repeat(300), "p/".repeat(3000)),
  fc.string({ unit: "binary", maxLength: 20 }).map((text) => text.replaceAll(/^\/+|\.\./g, "")),
);
// Made where they are used: fast-check looks at what it makes.
const [HOSTILE, DETACHED] = [Symbol("hostile"), Symbol("detached")];
const made = (value) => (value === HOSTILE ? hostile() : value === DETACHED ? detached() : value);
const anything = fc.oneof(
  fc.anything({
    withBigInt: true,
    withDate: true,
    withSparseArray: true,
    withTypedArray: true,
    withNullPrototype: true,
  }),
  path,
  fc.constantFrom(
    ...[undefined, null, Symbol("s"), () => {}, -0, Number.NaN, Infinity, 2 ** 31, 2 ** 32 + 3, -(2 ** 53), 1e300, 0.5],
    ...[
      new Int32Array(3),
      new Uint8Array(5),
      new Float64Array(2),
      new DataView(new ArrayBuffer(3)),
      new ArrayBuffer(0),
    ],
  ),
  fc.constantFrom(HOSTILE, DETACHED),
);

function detached() {
  const array = new Uint8Array(16);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  return array;
}

/** Throws whatever is done with it. */
function hostile() {
  const fail = () => {
    throw new Error("hostile");
  };
  const traps = Object.fromEntries(
    ["get", "has", "ownKeys", "getPrototypeOf", "getOwnPropertyDescriptor", "apply"].map((name) => [name, fail]),
  );
  return Object.defineProperty(new Proxy([1], traps), "valueOf", { value: fail });
}

const integer = fc.oneof(fc.integer({ min: -3, max: 60 }), fc.integer(), fc.constantFrom(2 ** 31 - 1, -(2 ** 31)));
/** By the letters of the signatures in native/binding.cc: right types, and values that mean nothing. */
const FITTING = {
  s: fc.oneof(path, fc.constantFrom("127.0.0.1", "::1", "0.0.0.0", "listening", "bound")),
  b: fc.boolean(),
  f: fc.constant(() => {}),
  h: fc.oneof(
    integer,
    fc.nat().map((index) => ({ index })),
  ),
  n: integer,
  p: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 65535 })),
  u: fc.uint8Array({ maxLength: 100 }),
  i: fc.int32Array({ maxLength: 5 }),
  S: fc.array(path, { maxLength: 3 }),
  N: fc.array(integer, { maxLength: 5 }),
  H: fc.array(integer, { maxLength: 5 }),
};
const source = readFileSync(join(root, "native/binding.cc"), "utf8");
const signatures = new Map(
  [...source.matchAll(/Expose<\w+>\(exports, "(\w+)", "(\w*)"\)/g)].map(([, name, takes]) => [name, takes]),
);
assert.deepEqual([...signatures.keys()].sort(), [...functions].sort());

const canaries = ["one", "two", "three"].map((name) => openSync(join(directory, name), "w"));
const inodes = canaries.map((fd) => fstatSync(fd).ino);
const descriptors = () => readdirSync("/proc/self/fd").length;
const threads = () => readdirSync("/proc/self/task").length;

let count = 0;
const outcomes = {};
/** Numbers that came back, to be used again, and in the end to be closed. */
const handles = new Set();
const duplicates = new Set();

function call(name, args) {
  count++;
  writeSync(journal, `${name}(${shown(args)})\n`, 0);
  let outcome = "returned";
  try {
    const result = native[name](...args);
    if (typeof result === "number") handles.add(result);
    if (name === "duplicate" && typeof result === "number") duplicates.add(result);
    // We are the runtime that has taken it.
    if (name === "adoptDuplicate" && duplicates.delete(args[0])) closeSync(args[0]);
    if (name === "closeDuplicate") duplicates.delete(args[0]);
    if (typeof result === "object" && result !== null) {
      if ("fd" in result) handles.add(result.fd);
      for (const fd of result.descriptors ?? []) handles.add(fd);
      if ("syscall" in result) outcome = "failed";
    }
  } catch (error) {
    outcome = error instanceof TypeError ? "refused" : "thrown";
    assert.ok(error instanceof Error, `it throws ${inspect(error)}`);
  }
  outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
}

function shown(args) {
  try {
    return args.map((value) => inspect(value, { depth: 2, breakLength: Infinity }).slice(0, 200)).join(", ");
  } catch {
    return `${args.length} arguments that can't be shown`;
  }
}

const CLOSERS = ["closeDuplicate", "closeSocket", "closeProcess", "cancelWait", "releaseLock", "closeFile"];

/** A handle by its place among those that were given, some of which are no more. */
function resolved(value) {
  const known = [...handles];
  return typeof value === "object" && value !== null && "index" in value
    ? (known[value.index % known.length] ?? 0)
    : value;
}

/** Everything is given back by its number, whatever it is. Files that somebody waited for come back when the wait has ended. */
function closeAll() {
  for (const handle of handles) {
    for (const name of CLOSERS) native[name](...(name === "releaseLock" ? [handle, true] : [handle]));
  }
}

const possessions = () => ({ descriptors: descriptors(), threads: threads() });

async function mustBeUnharmed(before) {
  const limit = performance.now() + PATIENCE;
  let after;
  do {
    closeAll();
    await turn();
    after = possessions();
  } while ((after.descriptors > before.descriptors || after.threads > before.threads) && performance.now() < limit);
  const what = JSON.stringify({ before, after });
  assert.ok(after.descriptors <= before.descriptors && after.threads <= before.threads, `something is left: ${what}`);
  handles.clear();
  duplicates.clear();
  canaries.forEach((fd, index) => {
    assert.equal(fstatSync(fd).ino, inodes[index], "a descriptor that is not the addon's was closed");
  });
}

// The first wait, watch and worker start what stays.
const warm = native.tryLockFile("a", false, false);
native.awaitSocket(native.listenLocal("warm.sock"), () => {});
await new Promise((resolve) => new Worker("", { eval: true }).once("exit", resolve));
handles.add(warm);
for (let fd = 0; fd < 64; fd++) if (!canaries.includes(fd)) handles.add(fd);
await mustBeUnharmed({ descriptors: Infinity, threads: Infinity });
const before = possessions();
const oneOf = fc.constantFrom(...functions);
const parameters = { seed, endOnFailure: true };

try {
  const batch = fc.array(fc.tuple(oneOf, fc.array(anything, { maxLength: 6 })), {
    minLength: 50,
    maxLength: 50,
    size: "max",
  });
  await fc.assert(
    fc.asyncProperty(batch, async (list) => {
      for (const [name, args] of list) call(name, args.map(made));
      await mustBeUnharmed(before);
    }),
    { ...parameters, numRuns: Math.ceil(calls / 50) },
  );
  const ofWrong = { ...outcomes };
  const step = oneOf.chain((name) =>
    fc.tuple(fc.constant(name), fc.tuple(...[...signatures.get(name)].map((letter) => FITTING[letter])), fc.boolean()),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: "max" }), async (list) => {
      for (const [name, args, waits] of list) {
        call(name, args.map(resolved));
        if (waits) await turn();
      }
      await mustBeUnharmed(before);
    }),
    { ...parameters, numRuns: sequences },
  );
  console.log(JSON.stringify({ functions: functions.length, calls: count, wrong: ofWrong, all: outcomes }));
} finally {
  process.chdir("/");
  closeSync(journal);
  rmSync(directory, { recursive: true, force: true });
}
process.exit(0);
