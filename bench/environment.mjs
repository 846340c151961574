// Where a run took place, as far as figures depend on it.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release, totalmem, type } from "node:os";
import { fileURLToPath } from "node:url";
import { flockCommand, PACKAGES } from "./peers/index.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** `directory`: where the locks are. */
export function describeEnvironment(directory) {
  return {
    kernel: `${type()} ${release()}`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memory: totalmem(),
    node: process.version,
    filesystem: filesystemOf(directory),
    loadAverage: loadavg().map((load) => Number(load.toFixed(2))),
    versions: versions(),
    commit: commit(),
  };
}

/** Of the mount with the longest path above the directory. */
function filesystemOf(directory) {
  const mounts = readFileSync("/proc/self/mounts", "utf8").trim().split("\n");
  let best = { point: "", kind: "unknown" };
  for (const mount of mounts) {
    const [, point, kind] = mount.split(" ");
    const isAbove = directory === point || directory.startsWith(point === "/" ? "/" : `${point}/`);
    if (isAbove && point.length >= best.point.length) best = { point, kind };
  }
  return best.kind;
}

function versions() {
  const versionIn = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8")).version;
  const peers = PACKAGES.map((name) => [name, versionIn(`node_modules/${name}/package.json`)]);
  return {
    "gateway-lock": versionIn("../package.json"),
    ...Object.fromEntries(peers),
    "flock(1)": flockCommand(),
  };
}

/** With a "+" where files have been changed since; null where it is no clone. */
function commit() {
  const git = (...args) => spawnSync("git", args, { cwd: root, encoding: "utf8" });
  const head = git("rev-parse", "--short=12", "HEAD");
  if (head.status !== 0) return null;
  const changed = git("status", "--porcelain", "--untracked-files=no").stdout.trim() !== "";
  return head.stdout.trim() + (changed ? "+" : "");
}
