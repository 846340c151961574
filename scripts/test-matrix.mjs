// Runs the tests on each Node that we promise, with one and the same addon.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { readArguments } from "./arguments.mjs";

const USAGE = `npm run test:matrix                       20, 22, 24 and 26
npm run test:matrix -- 22 26              only these
npm run test:matrix -- 22 -- test/lock    only these tests

Node comes from npm, into .cache/.`;

const root = fileURLToPath(new URL("..", import.meta.url));
const MAJORS = ["20", "22", "24", "26"];

const separator = process.argv.indexOf("--", 2);
const args = process.argv.slice(2, separator === -1 ? undefined : separator);
const vitestArguments = separator === -1 ? [] : process.argv.slice(separator + 1);
const { names: majors } = readArguments("test-matrix", USAGE, {}, { args, parts: MAJORS });

function install(major) {
  const name = `node-${process.platform}-${process.arch}`;
  const directory = join(root, ".cache", "node", major);
  const binary = join(directory, "node_modules", name, "bin", "node");
  if (existsSync(binary)) return binary;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "package.json"), "{}\n");
  const args = ["install", "--no-audit", "--no-fund", "--no-package-lock", `${name}@${major}`];
  const { status } = spawnSync("npm", args, { cwd: directory, stdio: "inherit" });
  if (status !== 0) process.exit(1);
  return binary;
}

const results = majors.map((major) => {
  const node = install(major);
  const version = spawnSync(node, ["--version"], { encoding: "utf8" }).stdout.trim();
  console.log(`\ntest-matrix: ${version}`);
  const args = ["node_modules/vitest/vitest.mjs", "run", ...vitestArguments];
  const { status } = spawnSync(node, args, { cwd: root, stdio: "inherit" });
  return { version, passed: status === 0 && version.startsWith(`v${major}.`) };
});
for (const { version, passed } of results) console.log(`test-matrix: ${version} ${passed ? "passed" : "FAILED"}`);
process.exit(results.every(({ passed }) => passed) ? 0 : 1);
