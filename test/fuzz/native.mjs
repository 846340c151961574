// Calls every function of the addon with whatever fast-check can think of, then in long sequences with right types and absurd values. It writes each call down
// before it makes it, so that a crash has a name. { seed, calls, sequences, log }; run in namespaces of its own, where no number is anybody else's pid.

import assert from "node:assert/strict";
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setImmediate as turn } from "node:timers/promises";
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

/** Relative, so that nothing outside is met. */
const path = fc.oneof(
  fc.constantFrom("a", "b", "c/d", "", ".", "x\0y", "n".repeat(300), "p/".repeat(3000)),
  fc.string({ unit: "binary", maxLength: 20 }).map((text) => text.replaceAll(/^\/+|\.\./g, "")),
);
const anything = fc.oneof(
  fc.anything({ withBigInt: true, withDate: true, withSparseArray: true, withTypedArray: true, withNullPrototype: true }),
  path,
  fc.constantFrom(
    ...[undefined, null, Symbol("s"), () => {}, -0, Number.NaN, Infinity, 2 ** 31, 2 ** 32 + 3, -(2 ** 53), 1e300, 0.5],
    ...[new Int32Array(3), new Uint8Array(5), new Float64Array(2), new DataView(new ArrayBuffer(3)), new ArrayBuffer(0)],
  ),
  fc.constant(null).map(() => detached()),
  fc.constant(null).map(() => hostile()),
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
/** What each letter of a signature in native/binding.cc stands for: right types, and values that mean nothing. */
const fitting = fc.oneof(
  path,
  integer,
  fc.boolean(),
  fc.constant(() => {}),
  fc.uint8Array({ maxLength: 100 }),
  fc.int32Array({ maxLength: 5 }),
  fc.array(path, { maxLength: 3 }),
  fc.array(integer, { maxLength: 5 }),
);

const canaries = ["one", "two", "three"].map((name) => openSync(join(directory, name), "w"));
const inodes = canaries.map((fd) => fstatSync(fd).ino);
const descriptors = () => readdirSync("/proc/self/fd").length;
const threads = () => readdirSync("/proc/self/task").length;

let count = 0;
const outcomes = {};
/** Numbers that came back, to be used again, and in the end to be closed. */
const handles = new Set();

function call(name, args) {
  count++;
  writeSync(journal, `${name}(${shown(args)})\n`, 0);
  let outcome = "returned";
  try {
    const result = native[name](...args);
    if (typeof result === "number") handles.add(result);
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

/** Everything is given back by its number, whatever it is. */
async function closeAll() {
  for (const handle of handles) {
    for (const name of CLOSERS) native[name](...(name === "releaseLock" ? [handle, true] : [handle]));
  }
  for (let i = 0; i < 5; i++) await turn();
  // Waits that were cancelled have given their files back.
  for (const handle of handles) native.closeFile(handle);
  handles.clear();
}

async function mustBeUnharmed(before, limit = performance.now() + 5000) {
  await closeAll();
  canaries.forEach((fd, index) => {
    assert.equal(fstatSync(fd).ino, inodes[index], "a descriptor that is not the addon's was closed");
  });
  while ((descriptors() > before.descriptors || threads() > before.threads) && performance.now() < limit) await turn();
  const after = { descriptors: descriptors(), threads: threads() };
  assert.ok(after.descriptors <= before.descriptors, `${JSON.stringify({ before, after })}`);
  assert.ok(after.threads <= before.threads, `${JSON.stringify({ before, after })}`);
}

// The first wait, watch and worker start what stays.
const warm = native.tryLockFile("a", false, false);
native.awaitSocket(native.listenLocal("warm.sock"), () => {});
await new Promise((resolve) => new Worker("", { eval: true }).once("exit", resolve));
handles.add(warm);
for (let fd = 0; fd < 64; fd++) handles.add(fd);
for (const fd of canaries) handles.delete(fd);
await closeAll();
const before = { descriptors: descriptors(), threads: threads() };
const oneOf = fc.constantFrom(...functions);
const parameters = { seed, endOnFailure: true };

try {
  const batch = fc.array(fc.tuple(oneOf, fc.array(anything, { maxLength: 6 })), { minLength: 50, maxLength: 50, size: "max" });
  await fc.assert(
    fc.asyncProperty(batch, async (list) => {
      for (const [name, args] of list) call(name, args);
      await mustBeUnharmed(before);
    }),
    { ...parameters, numRuns: Math.ceil(calls / 50) },
  );
  const ofWrong = { ...outcomes };
  const step = fc.tuple(oneOf, fc.array(fitting, { maxLength: 5 }), fc.nat(), fc.boolean());
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: "max" }), async (list) => {
      for (const [name, args, index, reuse] of list) {
        const known = [...handles];
        // Most functions begin with a handle: one that was given, or is no more.
        if (reuse && known.length > 0) args[0] = known[index % known.length];
        call(name, fitted(name, args));
        if (index % 7 === 0) await turn();
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

/** Of the values, those that the function takes in their order: it says itself what it does not. */
function fitted(name, args) {
  const list = [...args];
  for (let i = 0; i < 12; i++) {
    const wrong = wrongArgument(name, list);
    if (wrong === null) break;
    const type = TYPES[i % TYPES.length];
    list[wrong] = type;
  }
  return list;
}

function wrongArgument() {
  return null;
}
