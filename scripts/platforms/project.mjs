// An empty project with the packed package installed in it, as a user has it, and the portable tests beside it.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { npm } from "../commands.mjs";

/**
 * A project in `directory` with the tarball installed without any script, and what was said of installing it where npm refuses every
 * package that would run one.
 */
export async function makeProject(root, directory, tarball) {
  const project = await install(join(directory, "project"), tarball, "--ignore-scripts");
  const strict = await installStrictly(join(directory, "strict"), tarball, project);
  cpSync(join(root, "node_modules", "ws"), join(project, "node_modules", "ws"), { recursive: true });
  cpSync(join(root, "test", "portable"), join(project, "test", "portable"), { recursive: true });
  return { project, strict };
}

/** Packs what lies here: the addons in prebuilds/, whoever has built them. */
export async function pack(root, directory) {
  await npm(["pack", "--pack-destination", directory], root);
  return join(
    directory,
    readdirSync(directory).find((name) => name.endsWith(".tgz")),
  );
}

async function install(project, tarball, ...flags) {
  mkdirSync(project, { recursive: true });
  writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }\n');
  await npm(["install", "--no-audit", "--no-fund", "--no-update-notifier", ...flags, tarball], project);
  return project;
}

async function installStrictly(directory, tarball, project) {
  const known = await npm(["config", "ls", "-l"], project);
  if (!known.includes("strict-allow-scripts")) return "skipped: this npm has no such option";
  const strict = await install(directory, tarball, "--strict-allow-scripts");
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
