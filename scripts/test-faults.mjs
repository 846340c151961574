// Walks every path of the package with one system call refused, and again with the next, until each has had each answer that its manual page has: the right error
// or none, nothing left, and a clean start afterwards.

import { spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { CALLS } from "../test/faults/calls.mjs";
import { casesOf } from "../test/faults/cases.mjs";
import { expectedOf, isClear } from "../test/faults/expected.mjs";
import { PATHS } from "../test/faults/paths.mjs";
import { ALONE, walk } from "../test/faults/tracer.mjs";
import { makeRandom } from "../test/support/random.mjs";
import { randomSeed, readArguments } from "./arguments.mjs";
import { interrupted } from "./interruption.mjs";

const USAGE = `npm run test:faults                          every call of every path, with every errno: some ten minutes on two processors
npm run test:faults -- --short               each call of each path once, as far as 30 seconds allow, as CI does
npm run test:faults -- --path "is acquired"  only paths with this in their names
npm run test:faults -- --call flock          only this call
npm run test:faults -- --list                what there is, and how many cases

  --seed N      which cases --short takes
  --seconds N   ends after so long, with what it has (default 1800; with --short 30)

Linux, strace, unshare(1) with user namespaces, and ip(8).`;

const { asked, whole, fail } = readArguments("test-faults", USAGE, {
  short: { type: "boolean" },
  path: { type: "string", default: "" },
  call: { type: "string" },
  list: { type: "boolean" },
  seed: { type: "string" },
  seconds: { type: "string" },
});
const seed = whole("seed", randomSeed());
const seconds = whole("seconds", asked.short ? 30 : 1800);
const names = Object.keys(PATHS).filter((name) => name.includes(asked.path));
if (asked.call !== undefined && !(asked.call in CALLS))
  fail(`no path is tried with '${asked.call}'; choose from ${Object.keys(CALLS).join(", ")}`);
if (names.length === 0) fail(`there is no path with '${asked.path}' in its name`);
if (
  spawnSync(ALONE[0], [...ALONE.slice(1), "strace", "-qq", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"]).status !==
  0
)
  fail("strace(1), unshare(1) with user namespaces, or ip(8) does not work here");

const lanes = Math.max(2, availableParallelism());
const started = performance.now();
const end = started + seconds * 1000;

/** `work` on each item, so many at a time, until there is no time left. */
async function each(items, work) {
  const queue = [...items];
  const lane = async () => {
    for (let item = queue.shift(); item !== undefined && performance.now() < end; item = queue.shift())
      await work(item);
  };
  const results = await Promise.allSettled(Array.from({ length: lanes }, lane));
  const broken = results.find(({ status }) => status === "rejected");
  if (broken === undefined) return;
  if (!interrupted.aborted) throw broken.reason;
  console.error(`test-faults: ${interrupted.reason.message}`);
  process.exit();
}

const problems = [];
const cases = [];
console.log(`test-faults: walking ${names.length} paths without a fault`);
await each(names, async (name) => {
  const { story, calls, code, errors } = await walk(name, { interrupted });
  const { after, outcome } = wantedWithoutFault(name);
  if (story?.outcome !== outcome || story.again !== after)
    problems.push(`${name}, without a fault: ${JSON.stringify(story)}, exit code ${code}\n${errors}`);
  cases.push(...casesOf(name, calls));
});

function wantedWithoutFault(name) {
  const outcome = { refused: "ALREADY_LISTENING", cancelling: "ALREADY_RUNNING" }[PATHS[name].kind] ?? "ok";
  return { outcome, after: outcome };
}

/** In `--short`, all calls of all paths come first, each with one errno. */
function chosen() {
  const wanted = cases.filter(({ name }) => asked.call === undefined || name === asked.call);
  if (!asked.short) return wanted;
  const random = makeRandom(seed);
  const shuffled = wanted.map((item) => ({ item, key: random.fraction() })).sort((a, b) => a.key - b.key);
  const seen = new Set();
  const [first, rest] = [[], []];
  for (const { item } of shuffled) {
    const kind = `${item.path} ${item.name}`;
    (seen.has(kind) ? rest : first).push(item);
    seen.add(kind);
  }
  return [...first, ...rest];
}

const list = chosen();
if (asked.list) {
  for (const name of names)
    console.log(`${String(list.filter(({ path }) => path === name).length).padStart(6)}  ${name}`);
  process.exit(0);
}
console.log(`test-faults: ${list.length} cases in ${names.length} paths${asked.short ? `, seed ${seed}` : ""}`);
const totals = { refused: 0, "met another call": 0, "met none": 0 };
const outcomes = {};
const errnos = {};

await each(list, async (item) => {
  const { path, name, errno } = item;
  const { story, calls, code, signal, errors } = await walk(path, { fault: item, interrupted });
  const [met] = calls.filter(({ injected }) => injected);
  if (met === undefined || !met.isWithin) {
    // A path that waits or is connected to does not make each call in each walk.
    totals["met none"]++;
    return;
  }
  if (met.nth !== item.nth) totals["met another call"]++;
  totals.refused++;
  errnos[`${name} ${errno}`] = (errnos[`${name} ${errno}`] ?? 0) + 1;
  if (totals.refused % 200 === 0) progress();
  const what = `${path}: ${met.line}`;
  if (story === null) {
    problems.push(`${what}\n  the process has ended by ${signal ?? `exit code ${code}`}: ${errors.slice(0, 2000)}`);
    return;
  }
  outcomes[story.outcome] = (outcomes[story.outcome] ?? 0) + 1;
  const wrong = wrongIn(path, { ...item, line: met.line }, story);
  if (wrong.length > 0) problems.push(`${what}\n  ${wrong.join("\n  ")}\n  ${JSON.stringify(story)}`);
});

function wrongIn(path, fault, story) {
  const { kind } = PATHS[path];
  const expected = expectedOf(kind, fault);
  // What could not be deleted is still there, and nobody has it; or it is somebody else's.
  const mayStay =
    fault.errno === "EAGAIN" || ["unlink", "newfstatat", "lstat", "stat", "fstat", "statx"].includes(fault.name);
  const { descriptors, threads } = story.left;
  return [
    !expected.includes(story.outcome) && `${story.outcome} instead of ${expected.join(" or ")}`,
    expected.includes(story.outcome) && !isClear(story, fault.errno) && "its message does not say what, where and why",
    // What is told not to be there may be called free.
    story.wrong !== undefined && !(kind === "looking" && fault.errno === "ENOENT") && story.wrong,
    story.afterwards !== undefined && `it can't be undone: ${story.afterwards.outcome}`,
    descriptors.length > 0 && `descriptors are left: ${descriptors.join(", ")}`,
    threads.length > 0 && `threads are left: ${threads.join(", ")}`,
    story.files.length > 0 && !mayStay && `files are left: ${story.files.join(", ")}`,
    story.again !== wantedWithoutFault(path).after && `the next start: ${JSON.stringify(story.again)}`,
    story.unexpected.length > 0 && `nobody has caught: ${story.unexpected.join("\n")}`,
  ].filter(Boolean);
}

function progress() {
  const time = Math.round((performance.now() - started) / 1000);
  console.log(`test-faults: ${totals.refused} of ${list.length} calls refused, ${problems.length} problems, ${time} s`);
}

progress();
const table = (counts) =>
  Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `  ${String(count).padStart(6)}  ${name}`)
    .join("\n");
console.log(
  `${table(totals)}\noutcomes\n${table(outcomes)}\n${Object.keys(errnos).length} pairs of a call and an errno`,
);
for (const problem of problems.slice(0, 30)) console.error(`\n- ${problem}`);
const isLate = !asked.short && performance.now() >= end;
if (isLate) console.error("test-faults: time is up");
if (totals.refused === 0) console.error("test-faults: no call was refused; --list says what there is");
const passed = problems.length === 0 && totals.refused > 0 && !isLate;
console.log(`test-faults: ${passed ? "passed" : `FAILED, ${problems.length} problems`}`);
process.exit(passed ? 0 : 1);
