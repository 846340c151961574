// An empty project with the packed package installed in it, as a user has it, and the portable tests beside it.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mustRun, run } from "./commands.mjs";
import { serveRegistry } from "./registry.mjs";

const LIMIT = 120_000; // ms
const QUIET = ["--no-audit", "--no-fund", "--no-update-notifier"];

/** The tarball installed without any script in `directory`, and what was said of another way to install it. */
export async function makeProject(root, directory) {
  const packs = join(directory, "packs");
  mkdirSync(packs, { recursive: true });
  const options = { cwd: root, limit: LIMIT };
  await mustRun("npm", ["run", "-s", "build:ts"], options);
  await mustRun("npm", ["pack", "--ignore-scripts", "--pack-destination", packs], options);
  await mustRun(
    "npm",
    ["pack", "--ignore-scripts", "--pack-destination", packs, "./node_modules/node-gyp-build"],
    options,
  );
  const tarball = join(
    packs,
    readdirSync(packs).find((name) => name.startsWith("gateway-lock-")),
  );
  const project = emptyProject(join(directory, "project"));
  await mustRun("npm", ["install", "--ignore-scripts", ...QUIET, tarball], { cwd: project, limit: LIMIT });
  const strict = await installStrictly(root, packs, emptyProject(join(directory, "strict")), project);
  cpSync(join(root, "node_modules", "ws"), join(project, "node_modules", "ws"), { recursive: true });
  cpSync(join(root, "test", "portable"), join(project, "test", "portable"), { recursive: true });
  return { project, strict };
}

function emptyProject(directory) {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "package.json"), '{ "private": true, "type": "module" }\n');
  return directory;
}

/** Once more from a registry, refusing every package that would run a script: the same files must come of it. */
async function installStrictly(root, packs, strict, project) {
  const limits = { cwd: strict, limit: LIMIT };
  const known = await run("npm", ["config", "ls", "-l"], limits);
  if (!known.output.includes("strict-allow-scripts")) return "skipped: this npm has no --strict-allow-scripts";
  const packages = ["gateway-lock", "node-gyp-build"].map((name) => {
    const home = name === "gateway-lock" ? root : join(root, "node_modules", name);
    const manifest = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
    return { manifest, tarball: join(packs, `${name}-${manifest.version}.tgz`) };
  });
  const registry = await serveRegistry(packages);
  try {
    const from = ["--registry", registry.url, "--cache", join(packs, "cache"), "--min-release-age", "0"];
    await mustRun("npm", ["install", "--strict-allow-scripts", ...QUIET, ...from, "gateway-lock"], limits);
  } finally {
    await registry.close();
  }
  const [expected, actual] = [project, strict].map((home) => contentOf(join(home, "node_modules", "gateway-lock")));
  if (expected !== actual) throw new Error(`npm install --strict-allow-scripts installs other files:\n${actual}`);
  rmSync(strict, { recursive: true, force: true });
  return "passed: the same files";
}

function contentOf(directory) {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
    .sort()
    .map((path) => `${path.slice(directory.length)} ${createHash("sha256").update(readFileSync(path)).digest("hex")}`)
    .join("\n");
}
