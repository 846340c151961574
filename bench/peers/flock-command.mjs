// flock(1), as a Node program would call it: a process for each lock.

import { spawnSync } from "node:child_process";

function run(path) {
  const { error, status } = spawnSync("flock", ["-n", path, "true"], { stdio: "ignore" });
  if (error !== undefined) throw error;
  return status === 0;
}

/** Taken and let go at once: it lives as long as its command. */
export function acquire(path) {
  if (!run(path)) throw new Error(`${path} is locked`);
}

export const release = () => {};
export const isRefused = (path) => !run(path);
