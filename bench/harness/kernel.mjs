// What the kernel says about locks: who waits for one.

import { readFileSync, statSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

/** How many wait for the lock on what is at `path`; 0 too where /proc/locks does not show them. */
export function waitersOn(path) {
  const inode = `:${statSync(path).ino} `;
  const lines = readFileSync("/proc/locks", "utf8").split("\n");
  return lines.filter((line) => line.includes("->") && line.includes(inode)).length;
}

/** Until `count` wait for it, and no longer than `patience` ms: some wait where the kernel does not tell. */
export async function untilWaiting(path, count, patience = 3000) {
  const deadline = performance.now() + patience;
  while (waitersOn(path) < count && performance.now() < deadline) await pause(1);
}
