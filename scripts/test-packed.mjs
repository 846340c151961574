// Packs the package, installs the tarball in an empty project without running any script, and uses it there; then once more by
// npm ci, with scripts: what is published is what was tested.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

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
  checkCommand();
  // From a lock file, npm knows of no "gypfile": false, and builds whatever has a binding.gyp.
  npm(["ci", "--no-audit", "--no-fund"], project);
  run();
  checkCommand();
} finally {
  rmSync(project, { recursive: true, force: true });
}
