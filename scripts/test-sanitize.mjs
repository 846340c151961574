// Runs the suite with an addon that AddressSanitizer and UndefinedBehaviorSanitizer watch, then ThreadSanitizer, and a hundred thousand acquisitions under
// valgrind. Each in a copy of this project, with bugs planted first that must be reported.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { readArguments } from "./arguments.mjs";
import { run, stopAll } from "./commands.mjs";
import { interrupted } from "./interruption.mjs";
import { EXCLUDED, SHORT } from "./sanitize/choice.mjs";
import { makeNode } from "./sanitize/node.mjs";
import { makeReports, readReports, runSuite } from "./sanitize/suite.mjs";
import { makeTree } from "./sanitize/tree.mjs";
import { runValgrind } from "./sanitize/valgrind.mjs";

const USAGE = `npm run test:sanitize                   all parts, the whole suite: some 25 minutes on two processors
npm run test:sanitize -- tsan           only one: asan, tsan, valgrind
npm run test:sanitize -- --short        the addon's own tests, and 1,000 acquisitions: as CI does
npm run test:sanitize -- asan --tests test/lock test/native

Linux with glibc, gcc, and of Debian: patchelf valgrind libc6-dbg.`;

const PARTS = {
  asan: {
    title: "AddressSanitizer and UndefinedBehaviorSanitizer",
    flags: "-fsanitize=address,undefined -fno-sanitize-recover=undefined",
    runtimes: ["libasan.so", "libubsan.so"],
    // Leaks are valgrind's: LeakSanitizer does not run where strace or a user namespace is around its process.
    options: { asan: ["detect_leaks=0", "verify_asan_link_order=0", "exitcode=99"], ubsan: ["print_stacktrace=1"] },
    source: "undefined_reports.c",
    plants: ["use-after-free", "overflow"],
  },
  tsan: {
    title: "ThreadSanitizer",
    flags: "-fsanitize=thread",
    runtimes: ["libtsan.so"],
    // Node is not instrumented: what its own threads do among themselves can't be judged.
    // A process that ends by process.exit() destroys no environment, and so joins nobody; and tests of how soon it ends can't wait for a second more.
    options: {
      tsan: ["ignore_noninstrumented_modules=1", "report_thread_leaks=0", "atexit_sleep_ms=0", "exitcode=99"],
    },
    source: "real_time_signals.c",
    plants: ["race"],
  },
  valgrind: { title: "valgrind, memcheck", plants: ["leak"] },
};
const ACQUISITIONS = { long: 100_000, short: 1000 };
/** Enough for a planted bug, which happens where the addon is loaded. */
const FEW = 100; // acquisitions

const here = fileURLToPath(new URL("sanitize", import.meta.url));
const [own, tests] = splitAt(process.argv.slice(2), "--tests");
const { asked, names } = readArguments(
  "test-sanitize",
  USAGE,
  { short: { type: "boolean" } },
  { args: own, parts: Object.keys(PARTS) },
);
/** Without, the compiler is done in half the time. */
const OPTIMISATION = asked.short ? "-O0" : "-O1";

function splitAt(list, separator) {
  const index = list.indexOf(separator);
  return index === -1 ? [list, null] : [list.slice(0, index), list.slice(index + 1)];
}

function progress(text) {
  console.log(`test-sanitize: ${text}`);
}

function mustHave() {
  const missing = [
    process.platform !== "linux" && "Linux",
    process.report?.getReport().header.glibcVersionRuntime === undefined && "glibc",
    ...["gcc", "patchelf", ...(names.includes("valgrind") ? ["valgrind"] : [])].map(
      (name) => spawnSync(name, ["--version"]).error !== undefined && name,
    ),
  ].filter(Boolean);
  if (missing.length === 0) return;
  console.error(`test-sanitize: this needs ${missing.join(", ")}\n\n${USAGE}`);
  process.exit(1);
}

/** vitest's arguments. */
function choose(name) {
  if (tests !== null) return tests;
  if (asked.short) return SHORT[name];
  const excluded = EXCLUDED.filter(({ parts }) => parts.includes(name));
  const files = excluded.flatMap(({ file }) => (file === undefined ? [] : ["--exclude", file]));
  const titles = excluded.flatMap(({ title }) =>
    title === undefined ? [] : [title.replace(/[.*+?^$()[\]{}|\\]/g, ".")],
  );
  const pattern = titles.length === 0 ? [] : ["--testNamePattern", `^(?!.*(${titles.join("|")}))`];
  return ["--project", "suite", "--project", "alone", "--project", "lab", ...files, ...pattern];
}

async function withSanitizer(name) {
  const { flags, runtimes, options, source, plants } = PARTS[name];
  progress(`${name}: building the addon with ${flags}`);
  const tree = await makeTree(name, `${flags} ${OPTIMISATION}`, join(here, "plants.cc"));
  const reports = makeReports(join(tree, "reports"));
  const all = Object.fromEntries(
    Object.entries(options).map(([runtime, list]) => [runtime, [...list, `log_path=${join(reports, runtime)}`]]),
  );
  const text = source === undefined ? "" : readFileSync(join(here, source), "utf8");
  const bin = await makeNode(join(tree, "node"), { runtimes, options: all, source: text });
  const prefix = dirname(dirname(process.execPath));
  for (const plant of plants) {
    const program = `require(${JSON.stringify(join(tree, "dist/library.cjs"))})`;
    const { status } = await run(join(bin, "node"), ["-e", program], {
      env: { GATEWAY_LOCK_PLANT: plant },
      limit: 60_000,
    });
    const seen = readReports(reports);
    if (seen.length === 0) return { failure: `a planted ${plant} was not reported (exit code ${status})` };
    progress(`${name}: a planted ${plant} is reported: ${seen[0].match(/(ERROR|WARNING|runtime error).*/)?.[0]}`);
    makeReports(reports);
  }
  const totals = await runSuite({ tree, bin, prefix, args: choose(name), interrupted });
  const found = readReports(reports);
  for (const report of found) console.error(report);
  const { passed, failed, skipped, code } = totals;
  const line = `${passed} passed, ${failed} failed, ${skipped} skipped, ${found.length} reports of the sanitizer`;
  return { line, failure: code !== 0 || passed === 0 || found.length > 0 ? line : undefined };
}

async function withValgrind() {
  const { plants } = PARTS.valgrind;
  progress("valgrind: building the addon with symbols");
  const tree = await makeTree("valgrind", OPTIMISATION, join(here, "plants.cc"));
  for (const plant of plants) {
    const { findings } = await runValgrind(tree, FEW, { GATEWAY_LOCK_PLANT: plant });
    if (findings.length === 0) return { failure: `a planted ${plant} was not reported` };
    progress(`valgrind: a planted ${plant} is reported: ${findings[0].trim().split("\n")[0]}`);
  }
  const acquisitions = asked.short ? ACQUISITIONS.short : ACQUISITIONS.long;
  progress(`valgrind: ${acquisitions} acquisitions`);
  const { status, output, findings, reachable, lost } = await runValgrind(tree, acquisitions);
  console.log(output.trimEnd());
  for (const finding of findings) console.error(`\n${finding}`);
  const ofAll = lost.map(({ kind, bytes, blocks }) => `${kind} lost ${bytes} bytes in ${blocks} blocks`).join(", ");
  const line = `${acquisitions} acquisitions, ${findings.length} findings in the addon, ${reachable} blocks of it reachable at the end; the whole process: ${ofAll}`;
  return { line, failure: status !== 0 || findings.length > 0 ? line : undefined };
}

async function judged(name) {
  try {
    const result = name === "valgrind" ? await withValgrind() : await withSanitizer(name);
    interrupted.throwIfAborted();
    return result;
  } catch (error) {
    if (!interrupted.aborted) throw error;
    progress(interrupted.reason.message);
    return process.exit();
  }
}

mustHave();
interrupted.addEventListener("abort", stopAll);
const results = [];
for (const name of names) {
  const started = performance.now();
  const { line, failure } = await judged(name);
  const seconds = Math.round((performance.now() - started) / 1000);
  results.push({ name, failed: failure !== undefined, text: `${failure ?? line} (${seconds} s)` });
}
console.log();
for (const { name, text, failed } of results) progress(`${failed ? "FAILED" : "passed"} ${PARTS[name].title}: ${text}`);
process.exit(results.some(({ failed }) => failed) ? 1 : 0);
