// Builds the addon for every system that we promise, on one Linux machine, and checks that the same sources made the same bytes.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { installLocked } from "./install-locked.mjs";
import { ROOT, TOOLS } from "./prebuild/paths.mjs";
import { readSums, writeSums } from "./prebuild/sums.mjs";
import { TARGETS } from "./prebuild/targets.mjs";

const NAMES = TARGETS.map(({ name }) => name);
const HELP = `npm run prebuild                      builds all into prebuilds/ and compares with prebuilds/SHA256SUMS
npm run prebuild -- <target> ...      builds only these
npm run prebuild -- --update          records what was built in prebuilds/SHA256SUMS

Targets: ${NAMES.join(", ")}
`;

function fail(code, message) {
  process.stderr.write(`prebuild: ${message}\n`);
  process.exit(code);
}

function readArguments() {
  const options = { update: { type: "boolean", default: false }, help: { type: "boolean", default: false } };
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    const unknown = positionals.find((name) => !NAMES.includes(name));
    if (unknown !== undefined) throw new Error(`unknown target '${unknown}'; choose from ${NAMES.join(", ")}`);
    const chosen = TARGETS.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
    return { ...values, chosen };
  } catch (error) {
    return fail(2, `${error.message}\n\n${HELP}`);
  }
}

// Resolves to the output of prebuildify, and what it exited with.
function runPrebuildify(target, directory) {
  const { platform, arch, libc } = target;
  // Of Node's version only the number is used: Node-API is the same in all.
  const args = ["--napi", "--target", "node@20.19.0", "--name", "gateway-lock", "--platform", platform, "--arch", arch];
  args.push(...(libc ? ["--tag-libc", "--libc", libc] : []));
  args.push("--node-gyp", join(TOOLS, "node-gyp.mjs"), "--cache", directory, "--cwd", directory, "--out", directory);
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["node_modules/prebuildify/bin.js", ...args], { cwd: ROOT });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        output += text;
      });
    }
    child.on("error", reject).on("close", (status) => resolve({ status, output }));
  });
}

const directories = new Set();
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    for (const directory of directories) rmSync(directory, { recursive: true, force: true });
    process.exit(1);
  });
}

// Each target in a directory of its own: nothing collides, and node-gyp-build finds no build/ that it would prefer.
async function build(target, findFaults) {
  const started = performance.now();
  mkdirSync(join(ROOT, ".cache"), { recursive: true });
  const directory = mkdtempSync(join(ROOT, ".cache/prebuild-"));
  directories.add(directory);
  try {
    const { status, output } = await runPrebuildify(target, directory);
    if (status !== 0) throw new Error(`${target.name} was not built:\n${output}`);
    process.stderr.write(output);
    const built = join(directory, "prebuilds", target.file);
    const bytes = readFileSync(built);
    const faults = findFaults(bytes, target);
    if (faults.length > 0) {
      const sentences = faults.map((fault) => `\n  it ${fault}`).join("");
      throw new Error(`prebuilds/${target.file} is not replaced, for the new one fails its checks:${sentences}`);
    }
    const place = join(ROOT, "prebuilds", target.file);
    mkdirSync(dirname(place), { recursive: true });
    renameSync(built, place);
    const hash = createHash("sha256").update(bytes).digest("hex");
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`prebuild: ${target.name.padEnd(17)} ${bytes.length} bytes  ${hash}  ${seconds} s`);
    return [target.file, hash];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function buildAll(chosen) {
  const { findFaults } = await import("./prebuild/check.mjs");
  const waiting = [...chosen];
  const built = [];
  let failed = false;
  const work = async () => {
    for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
      await build(target, findFaults).then(
        (entry) => built.push(entry),
        ({ message }) => {
          failed = true;
          console.error(`prebuild: ${message}`);
        },
      );
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  if (failed) process.exit(1);
  return built;
}

const { chosen, update, help } = readArguments();
if (help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (process.platform !== "linux" || process.arch !== "x64") {
  fail(1, `the compiler of scripts/prebuild runs on linux-x64, not on ${process.platform}-${process.arch}`);
}
if (!existsSync(join(ROOT, "node_modules/node-gyp"))) fail(1, "node-gyp is missing: run npm ci first");
if (spawnSync("python3", ["--version"]).error !== undefined) fail(1, "gyp needs python3, which is not in PATH");
try {
  installLocked(TOOLS, () => console.log("prebuild: installing the compiler into scripts/prebuild (400 MB)"));
} catch (error) {
  fail(1, error.message);
}
const built = await buildAll(chosen);
const recorded = readSums();
if (update) {
  writeSums(new Map([...recorded, ...built]));
  console.log("prebuild: prebuilds/SHA256SUMS is updated");
} else {
  const different = built.filter(([file, hash]) => recorded.get(file) !== hash);
  if (different.length > 0) {
    const lines = different.map(
      ([file, hash]) => `\n  ${file}: ${recorded.get(file) ?? "none"} expected, ${hash} built`,
    );
    const why =
      "The new files are in place. After a reviewed change of the sources or tools, record them: npm run prebuild -- --update";
    fail(1, `not what prebuilds/SHA256SUMS says:${lines.join("")}\n${why}`);
  }
  console.log("prebuild: all as prebuilds/SHA256SUMS says");
}
