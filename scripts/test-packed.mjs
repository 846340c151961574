// Packs the package, installs the tarball in an empty project without running any script, and uses it there; then once more by
// npm ci, with scripts: what is published is what was tested.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readArguments } from "./arguments.mjs";

const USAGE = `npm run test:packed    the tarball of what lies here, with the addons that are in prebuilds/`;
readArguments("test-packed", USAGE, {});

const root = fileURLToPath(new URL("..", import.meta.url));
const project = mkdtempSync(join(tmpdir(), "gateway-lock-packed-"));

const PROGRAM = `
import { createServer } from "node:http";
import { acquireGateway, EXIT, readOwner } from "gateway-lock";
const options = { stateDir: "state", port: 0 };
const gateway = await acquireGateway(options);
await gateway.listen(createServer((request, response) => response.end("served")));
const answer = await (await fetch(gateway.url.replace("ws:", "http:"))).text();
const { record, holders } = readOwner(gateway.lockPaths[0]);
const refusal = await acquireGateway(options).catch((error) => error);
if (answer !== "served") throw new Error("served " + answer);
if (record?.pid !== process.pid || holders[0] !== process.pid) throw new Error("the record names " + record?.pid);
if (refusal.code !== "ALREADY_LISTENING" || refusal.exitCode !== EXIT.DUPLICATE) throw refusal;
await gateway.close();
console.log("packed: locks, serves, refuses a duplicate: " + refusal.message);
`;

/** For the declarations, which the repository's own check skips. */
const TYPED = `
import { acquireGateway, checkIsolation, derivedPorts, type Gateway, resolveProfile } from "gateway-lock";
const profile = resolveProfile({ app: "demo" });
const gateway: Gateway = await acquireGateway({ ...profile.options, reserve: derivedPorts(profile.derived) });
const descriptor: number = gateway.claim(profile.derived.browserControl);
const kinds: string[] = checkIsolation([profile]).map(({ kind }) => kind);
export { descriptor, kinds };
`;

/** As strictly as a user may have it, with the compiler and Node's types of the repository. */
function checkTypes() {
  writeFileSync(join(project, "typed.ts"), TYPED);
  const modules = join(root, "node_modules");
  const flags = ["--strict", "--exactOptionalPropertyTypes", "--skipLibCheck", "false", "--noEmit"];
  const target = [
    "--module",
    "nodenext",
    "--target",
    "es2023",
    "--types",
    "node",
    "--typeRoots",
    join(modules, "@types"),
  ];
  const { status, stdout } = spawnSync(join(modules, ".bin", "tsc"), [...flags, ...target, "typed.ts"], {
    cwd: project,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the declarations do not compile:\n${stdout}`);
  console.log("packed: its declarations compile under strict, with skipLibCheck off");
}

/** What the bin says, run as users run it. */
function command(args) {
  const { status, stdout, stderr } = spawnSync("npx", ["--offline", "gateway-lock", ...args], {
    cwd: project,
    env: { ...process.env, PREBUILDS_ONLY: "1" },
    encoding: "utf8",
  });
  return { status, output: (stdout + stderr).trim() };
}

function checkCommand() {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const said = command(["--version"]);
  if (said.status !== 0 || said.output !== version) throw new Error(`gateway-lock --version: ${said.output}`);
  const free = command(["status", "--state-dir", "nothing", "--json"]);
  // Of the default port, anybody may have it.
  const { verdict, exitCode } = JSON.parse(free.output);
  if (!["free", "foreign-listener"].includes(verdict) || exitCode !== free.status) throw new Error(free.output);
  console.log(`packed: npx gateway-lock ${said.output}, status: ${verdict}`);
}

try {
  const npm = (args, cwd) => execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  npm(["pack", "--ignore-scripts", "--pack-destination", project], root);
  const tarball = readdirSync(project).find((name) => name.endsWith(".tgz"));
  writeFileSync(join(project, "package.json"), '{ "type": "module" }\n');
  npm(["install", "--ignore-scripts", "--no-audit", "--no-fund", `./${tarball}`], project);
  writeFileSync(join(project, "program.js"), PROGRAM);
  const env = { ...process.env, PREBUILDS_ONLY: "1" };
  const run = () => execFileSync(process.execPath, ["program.js"], { cwd: project, env, encoding: "utf8" });
  process.stdout.write(run());
  checkTypes();
  checkCommand();
  // From a lock file, npm knows of no "gypfile": false, and builds whatever has a binding.gyp.
  npm(["ci", "--no-audit", "--no-fund"], project);
  run();
  checkCommand();
} finally {
  rmSync(project, { recursive: true, force: true });
}
