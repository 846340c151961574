// Feeds a million damaged records to the parser, and wrong types, absurd values and impossible sequences to the addon and to what users call.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { randomSeed, readArguments } from "./arguments.mjs";
import { interrupted } from "./interruption.mjs";

const USAGE = `npm run test:fuzz                      1,000,000 records, some 290,000 calls of the addon, 10,000 of the library: some four minutes
npm run test:fuzz -- --short           a fiftieth of it, as CI does
npm run test:fuzz -- records           only one part: records, native, options
npm run test:fuzz -- --seed 4711       the same inputs again

  --seconds N   at most so long for each part (default 900)

The calls are made in namespaces of their own (unshare(1), ip(8)), where no number is anybody else's pid and no port anybody else's.`;

const LONG = {
  records: { inputs: 1_000_000, files: 20_000 },
  native: { calls: 200_000, sequences: 3000 },
  options: { calls: 10_000 },
};
const SHORT = {
  records: { inputs: 20_000, files: 400 },
  native: { calls: 4000, sequences: 60 },
  options: { calls: 400 },
};
const ALONE = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"];
const WITH_LOOPBACK = ["sh", "-ec", 'ip link set lo up; exec "$@"', "sh"];

const { asked, names, whole, fail } = readArguments(
  "test-fuzz",
  USAGE,
  { short: { type: "boolean" }, seed: { type: "string" }, seconds: { type: "string" } },
  { parts: Object.keys(LONG) },
);
const seed = whole("seed", randomSeed());
const seconds = whole("seconds", 900);
if (names.some((name) => name !== "records") && spawnSync("unshare", [...ALONE, ...WITH_LOOPBACK, "true"]).status !== 0)
  fail("the calls need a user namespace (unshare(1)) and ip(8): without them they could meet what is somebody else's");

/** The file that a part runs, and what it has told last. */
async function runPart(name) {
  const directory = mkdtempSync(join(tmpdir(), "gateway-lock-fuzz-"));
  const log = join(directory, "calls");
  const file = fileURLToPath(new URL(`../test/fuzz/${name}.mjs`, import.meta.url));
  const own = [file, JSON.stringify({ seed, log, ...(asked.short ? SHORT : LONG)[name] })];
  const [command, args] =
    name === "records" ? [process.execPath, own] : ["unshare", [...ALONE, ...WITH_LOOPBACK, process.execPath, ...own]];
  const started = performance.now();
  // What it makes goes with this directory, also where it is killed.
  const env = { ...process.env, TMPDIR: directory };
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], env });
  interrupted.addEventListener("abort", () => child.kill("SIGKILL"));
  let told = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    told = (told + text).slice(-5000);
    if (!text.startsWith("{")) process.stdout.write(`test-fuzz: ${text}`);
  });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, seconds * 1000);
  const { code, signal } = await new Promise((resolve, reject) => {
    child.once("error", reject).once("close", (code, signal) => resolve({ code, signal }));
  });
  clearTimeout(timer);
  const time = `${Math.round((performance.now() - started) / 1000)} s`;
  if (code === 0) console.log(`test-fuzz: passed ${name} (${time}): ${told.trim().split("\n").at(-1)}`);
  else {
    const why = isLate ? `no end after ${time}` : (interrupted.reason?.message ?? `exit code ${code}, ${signal}`);
    console.error(`test-fuzz: FAILED ${name}: ${why}`);
    if (name === "native") console.error(`the last call: ${lastLineOf(log)}`);
  }
  rmSync(directory, { recursive: true });
  return code === 0;
}

function lastLineOf(log) {
  return readFileSync(log, "utf8").split("\n", 1)[0];
}

console.log(`test-fuzz: seed ${seed}`);
const passed = await Promise.all(names.map(runPart));
console.log(`test-fuzz: ${passed.every(Boolean) ? "passed" : "FAILED"}, seed ${seed}`);
if (!interrupted.aborted) process.exitCode = passed.every(Boolean) ? 0 : 1;
process.exit();
