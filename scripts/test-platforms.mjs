// Packs the package, installs the tarball in an empty project without any script, and runs the portable tests there on
// every runtime that a Linux machine can stand in for: see scripts/platforms/parts.mjs.

import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { stopAll } from "./commands.mjs";
import { installLocked } from "./install-locked.mjs";
import { PARTS } from "./platforms/parts.mjs";
import { makeProject, pack } from "./platforms/project.mjs";
import { add, NONE } from "./platforms/results.mjs";

const USAGE = `npm run test:platforms                   all parts
npm run test:platforms -- wine22 deno    only these
npm run test:platforms -- --list         what there is
npm run test:platforms -- --tarball F    of this tarball, not of what lies here

All but "native" need Linux on x64, and of Debian: wine wine64 qemu-user-static libc6-arm64-cross libstdc++6-arm64-cross musl.
The runtimes come from npm, once, into scripts/platforms/node_modules (500 MB). The addons must be in prebuilds/.`;

const root = fileURLToPath(new URL("..", import.meta.url));

function readArguments() {
  const options = { tarball: { type: "string" }, list: { type: "boolean" }, help: { type: "boolean" } };
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    console.error(`test-platforms: ${error.message}\n\n${USAGE}`);
    process.exit(2);
  }
}

const { values: asked, positionals: given } = readArguments();
if (asked.tarball !== undefined && !existsSync(asked.tarball)) {
  console.error(`test-platforms: there is no ${asked.tarball}`);
  process.exit(2);
}
if (asked.help) {
  console.log(USAGE);
  process.exit(0);
}
if (asked.list) {
  for (const { name, title } of PARTS) console.log(`${name.padEnd(12)}${title}`);
  process.exit(0);
}
const unknown = given.filter((name) => !PARTS.some((part) => part.name === name));
if (unknown.length > 0) {
  console.error(
    `test-platforms: unknown: ${unknown.join(", ")}; choose from ${PARTS.map(({ name }) => name).join(", ")}`,
  );
  process.exit(2);
}
const parts = PARTS.filter(({ name }) => given.length === 0 || given.includes(name));

function progress(text) {
  console.log(`test-platforms: ${text}`);
}

/** Ports of its own for each part, because several run at once. */
const FIRST_PORT = 21_000;
const PORTS = 1000;

async function runPart(part, lab) {
  const started = performance.now();
  const seconds = () => Math.round((performance.now() - started) / 1000);
  progress(`${part.name}: ${part.title}`);
  try {
    const prebuild = join("prebuilds", part.prebuild);
    const isThere = existsSync(join(lab.project, "node_modules", "gateway-lock", prebuild));
    if (!isThere) throw new Error(`the tarball has no ${prebuild}: run npm run prebuild first (on Linux x64)`);
    const show = (output) => console.log(output.replace(/^/gm, "    "));
    const report = { progress: (text) => progress(`${part.name}: ${text}`), show };
    const first = FIRST_PORT + PARTS.indexOf(part) * PORTS;
    const own = { deadline: started + part.limit, ports: `${first}-${first + PORTS - 1}` };
    const result = await part.run({ ...lab, ...report, ...own });
    return { name: part.name, seconds: seconds(), ...result };
  } catch (error) {
    console.error(`test-platforms: ${part.name} could not run: ${error.message}`);
    return { name: part.name, seconds: seconds(), version: "could not run", ...NONE, failed: 1 };
  }
}

const cleanups = [];
function cleanUp() {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
}
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    stopAll();
    cleanUp();
    process.exit(1);
  });
}

const results = [];
try {
  const directory = mkdtempSync(join(tmpdir(), "gateway-lock-platforms-"));
  mkdirSync(join(directory, "tmp"));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }));
  const runtimes = join(root, "scripts", "platforms");
  if (parts.some(({ name }) => name !== "native")) {
    // Most of them are for another system or processor: that is the point.
    installLocked(runtimes, () => progress("installing the runtimes into scripts/platforms (500 MB)"), "--force");
  }
  progress("npm pack and npm install");
  const tarball = asked.tarball === undefined ? await pack(root, directory) : resolve(asked.tarball);
  const { project, strict } = await makeProject(root, directory, tarball);
  progress(`npm install --strict-allow-scripts ${strict}`);
  const lab = {
    shared: {},
    root,
    directory,
    project,
    runtimes: join(runtimes, "node_modules"),
    cache: join(root, ".cache"),
    defer: (f) => cleanups.push(f),
  };
  // As many at once as there are processors, the longest first.
  const waiting = [...parts].sort((a, b) => b.limit - a.limit);
  const work = async () => {
    for (let part = waiting.shift(); part !== undefined; part = waiting.shift()) {
      results[parts.indexOf(part)] = await runPart(part, lab);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
} catch (error) {
  console.error(`test-platforms: ${error.message}`);
  process.exitCode = 1;
} finally {
  cleanUp();
}
if (process.exitCode === 1) process.exit();

console.log("");
for (const { name, version, passed, failed, skipped, seconds } of results) {
  const counts = `${passed} passed, ${failed} failed, ${skipped} skipped`;
  console.log(`${name.padEnd(12)}${version.padEnd(30)}${counts.padEnd(36)}${seconds} s`);
}
const total = results.reduce(add, NONE);
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(results.every(({ passed, failed }) => passed > 0 && failed === 0) ? 0 : 1);
