// Proves that a profile tells where time goes, by names that mean the same on every machine, and leaves nothing behind.

import { readdirSync } from "node:fs";
import { expect, it, onTestFinished, vi } from "vitest";
import { functionsIn, PROFILED, profile, systemCallsIn } from "../../bench/report/profile.mjs";
import { hasStrace } from "../support/capabilities.ts";
import { temporaryDirectory } from "../support/temporary.ts";

function summary(...calls: [name: string, seconds: string, count: number][]): string {
  const lines = calls.map(([name, seconds, count]) => ` 12.00    ${seconds}           1      ${count}        ${name}`);
  return `% time     seconds  usecs/call     calls    errors syscall\n------ --- ---\n${lines.join("\n")}\n100.00    0.5           1     900    12 total\n`;
}

it("counts the time in a function itself, not in what it calls", () => {
  const frame = (functionName: string, url = "") => ({ callFrame: { functionName, url, lineNumber: 9 } });
  const nodes = [
    { id: 1, ...frame("outer", "node:fs") },
    { id: 2, ...frame("inner") },
    { id: 3, ...frame("outer", "node:fs") },
  ];
  const found = functionsIn({ nodes, samples: [1, 2, 3, 2], timeDeltas: [10, 20, 30, 40] });
  expect(found).toEqual([
    { name: "inner", place: "", share: 0.6 },
    { name: "outer", place: "node:fs:10", share: 0.4 },
  ]);
});

it("takes off the system calls of a process that does nothing", () => {
  const idle = summary(["openat", "0.001000", 50], ["mmap", "0.002000", 80]);
  const busy = summary(["openat", "0.004000", 150], ["mmap", "0.002000", 80], ["flock", "0.001000", 200]);
  expect(systemCallsIn(idle, busy, 100)).toEqual([
    { name: "openat", perOperation: 1, share: 0.75 },
    { name: "flock", perOperation: 2, share: 0.25 },
  ]);
});

it("counts a wait, but not how long it was", () => {
  const busy = summary(["futex", "9.000000", 100], ["flock", "0.001000", 100]);
  expect(systemCallsIn(summary(), busy, 100)).toEqual([
    { name: "flock", perOperation: 1, share: 1 },
    { name: "futex", perOperation: 1, share: 0 },
  ]);
});

it.each(["weight", "refusal"])("of %s names no directory of this machine, and leaves nothing behind", async (goal) => {
  const temporary = temporaryDirectory();
  vi.stubEnv("TMPDIR", temporary);
  onTestFinished(() => void vi.unstubAllEnvs());
  const { functions, systemCalls } = await profile(goal, { log: () => {} });
  expect(functions.length).toBeGreaterThan(3);
  expect(functions.map(({ place }) => place).join("\n")).not.toMatch(/(^|\n)(\/|\.\.|file:)/);
  if (hasStrace) expect(systemCalls.length).toBeGreaterThan(0);
  expect(readdirSync(temporary)).toEqual([]);
});

it("refuses a goal without a program, and names those that have one", async () => {
  await expect(profile("restart", { log: () => {} })).rejects.toThrow(`there is one for ${PROFILED.join(", ")}`);
});
