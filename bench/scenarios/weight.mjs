// What it costs to have it: bytes on the disk, milliseconds to import, memory, the start of the command.

import { spawnSync } from "node:child_process";
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { timeProcess } from "../harness/processes.mjs";
import { interleave } from "../harness/rounds.mjs";
import { single, summarize, summarizeTimes } from "../harness/samples.mjs";
import { flockCommand, PACKAGES } from "../peers/index.mjs";

export const name = "weight";
export const seconds = { full: 44, quick: 10, smoke: 3 };

const PLAN = { full: 40, quick: 6, smoke: 1 };
/** Of all systems: in the published package. */
const ADDONS = 8;

const root = fileURLToPath(new URL("../..", import.meta.url));
const bench = fileURLToPath(new URL("..", import.meta.url));
const harness = (file) => fileURLToPath(new URL(`../harness/${file}`, import.meta.url));

export async function run(context) {
  measureSizes(context);
  await measureImports(context);
  await measureCommands(context);
}

function measureSizes({ progress, results }) {
  const where = (subject) => ({ case: "install", metric: "size", unit: "bytes", subject });
  progress.at("install", "gateway-lock");
  const { size, addons } = ownSize();
  results.measured(where("gateway-lock"), single(size));
  results.note(`Install: gateway-lock with ${addons} of the ${ADDONS} prebuilt addons that its release has.`);
  for (const subject of PACKAGES) results.measured(where(subject), single(closureSize(subject, bench)));
}

function ownSize() {
  const args = ["pack", "--dry-run", "--json", "--ignore-scripts"];
  const { status, stdout, stderr } = spawnSync("npm", args, { cwd: root, encoding: "utf8", maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`npm ${args.join(" ")} failed in ${root}: ${stderr}`);
  const [{ unpackedSize, files }] = JSON.parse(stdout);
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const others = Object.keys(dependencies).map((dependency) => closureSize(dependency, root));
  return {
    size: others.reduce((sum, size) => sum + size, unpackedSize),
    addons: files.filter(({ path }) => path.endsWith(".node")).length,
  };
}

/** A package and all that it needs, as it lies in a node_modules. */
function closureSize(first, from) {
  const seen = new Set();
  const visit = (dependency, directory) => {
    const home = findPackage(dependency, directory);
    if (home === null || seen.has(home)) return 0;
    seen.add(home);
    const { dependencies = {}, optionalDependencies = {} } = JSON.parse(
      readFileSync(join(home, "package.json"), "utf8"),
    );
    const names = Object.keys({ ...dependencies, ...optionalDependencies });
    return names.reduce((sum, one) => sum + visit(one, home), sizeOf(home));
  };
  return visit(first, from);
}

function findPackage(dependency, directory) {
  const paths = createRequire(join(directory, "package.json")).resolve.paths(dependency);
  return paths.map((path) => join(path, dependency)).find((path) => hasPackage(path)) ?? null;
}

function hasPackage(path) {
  return lstatSync(join(path, "package.json"), { throwIfNoEntry: false }) !== undefined;
}

function sizeOf(path) {
  const entry = lstatSync(path);
  if (!entry.isDirectory()) return entry.size;
  // A nested node_modules is counted by what is needed of it.
  const names = readdirSync(path).filter((one) => one !== "node_modules");
  return names.reduce((sum, one) => sum + sizeOf(join(path, one)), 0);
}

async function measureImports({ mode, progress, results }) {
  const specifiers = {
    "bare Node": new URL("../harness/empty.mjs", import.meta.url).href,
    "gateway-lock": new URL("../../dist/index.js", import.meta.url).href,
    ...Object.fromEntries(PACKAGES.map((subject) => [subject, subject])),
  };
  const found = await interleave(Object.keys(specifiers), PLAN[mode], async (subject) => {
    progress.at("import", subject);
    const args = [harness("import-once.mjs"), specifiers[subject]];
    return JSON.parse((await timeProcess(`import of ${subject}`, process.execPath, args)).output);
  });
  results.note(
    "Import: gateway-lock is an ES module, and imported; the peers are CommonJS, and required, which is cheaper.",
  );
  const bare = summarize([found.get("bare Node").map(({ resident }) => resident)]).median;
  for (const [subject, answers] of found) {
    const where = (metric, unit) => ({ case: "import", metric, unit, subject });
    results.measured(where("import", "ms"), summarizeTimes([answers.map(({ ns }) => ns)], "ms"));
    if (subject === "bare Node") continue;
    const resident = summarize([answers.map((answer) => answer.resident - bare)]);
    results.measured(where("resident memory", "bytes"), resident);
  }
}

async function measureCommands({ mode, progress, results, temporary }) {
  const cli = join(root, "dist/gateway-lock.cjs");
  const nobody = ["status", "--state-dir", temporary.directory("nobody"), "--port", "9"];
  const commands = {
    "command, nothing done": { subject: "bare Node", args: [process.execPath, harness("empty.mjs")] },
    "command, --version": { subject: "gateway-lock", args: [process.execPath, cli, "--version"] },
    "command, status": { subject: "gateway-lock", args: [process.execPath, cli, ...nobody], code: 3 },
  };
  if (flockCommand() !== null) {
    commands["command, lock and true"] = { subject: "flock(1)", args: ["flock", temporary.name("lock"), "true"] };
  }
  const found = await interleave(Object.keys(commands), PLAN[mode], async (one) => {
    const { subject, args, code = 0 } = commands[one];
    progress.at(one, subject);
    return [(await timeProcess(one, args[0], args.slice(1), { code })).ns];
  });
  for (const [one, samples] of found) {
    const where = { case: one, metric: "cold start", unit: "ms", subject: commands[one].subject };
    results.measured(where, summarizeTimes([samples.flat()], "ms"));
  }
}
