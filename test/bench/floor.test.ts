// The floor does what it is compared with: the same system calls as ours; and what it logs proves what it should.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, onTestFinished } from "vitest";
import { buildFloor } from "../../bench/harness/floor.mjs";
import { countOverlaps, mergeTurns } from "../../bench/harness/intervals.mjs";
import { Child } from "../../bench/harness/processes.mjs";
import { hasStrace, isLinux, itWhere } from "../support/capabilities.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const hasCompiler = isLinux && spawnSync(process.env.CC ?? "cc", ["--version"]).status === 0;
const it = itWhere(hasCompiler, "there is no C compiler");
const itTraces = itWhere(hasCompiler && hasStrace, "there is no C compiler, or no strace");

/** What a lock is made of. geteuid is not: it is one user all the time, whom C need not ask for again. */
const OF_LOCKS = /^\d+ +((?:new)?[fl]?stat(?:x|at|64)?|open(?:at)?|flock|close|unlink|fchown)\(/;
const MARK = "/between-two-operations";

/** Each call with the flags that matter, one a line; descriptors and paths differ. */
function callsIn(lines: string[]): string[] {
  return lines.flatMap((line) => {
    const call = OF_LOCKS.exec(line)?.[1];
    if (call === undefined) return [];
    const flags = line.match(/\b(?:O|LOCK|AT)_[A-Z_]+/g) ?? [];
    return [[call, ...flags.toSorted()].join(" ")];
  });
}

function trace(directory: string, command: string[], input: string): string[] {
  const log = join(directory, "strace.log");
  const { status, stderr } = spawnSync("strace", ["-f", "-o", log, ...command], { input, encoding: "utf8" });
  expect([status, stderr]).toEqual([0, ""]);
  return readFileSync(log, "utf8").split("\n");
}

itTraces("taking and freeing a bare lock is the same system calls in C as in ours", () => {
  const directory = temporaryDirectory();
  const path = join(directory, "lock");

  // Each answer ends an operation; the first one makes the file.
  const inC = trace(directory, [buildFloor(), "lock", path], "batch 1\nbatch 1\n");
  const answers = inC.flatMap((line, i) => (/ write\(1, "\[/.test(line) ? [i] : []));
  expect(answers).toHaveLength(2);
  const floor = callsIn(inC.slice(answers[0], answers[1]));

  const dist = pathToFileURL(join(import.meta.dirname, "../../dist/index.js"));
  const program = `
    import { existsSync } from "node:fs";
    import { tryLockFile } from "${dist}";
    for (let i = 0; i < 3; i++) {
      existsSync("${MARK}");
      tryLockFile(${JSON.stringify(path)}).release();
    }
    existsSync("${MARK}");`;
  const inNode = trace(directory, [process.execPath, "--input-type=module", "-e", program], "");
  const marks = inNode.flatMap((line, i) => (/access\(/.test(line) && line.includes(MARK) ? [i] : []));
  expect(marks).toHaveLength(4);
  const ours = callsIn(inNode.slice(marks[2], marks[3]));

  expect(floor.length).toBeGreaterThan(6);
  expect(ours).toEqual(floor);
});

/** Two processes, each of which holds its lock for 2 ms again and again. */
async function contend(paths: [string, string]): Promise<{ turns: number; overlaps: number }> {
  const directory = temporaryDirectory();
  const start = process.hrtime.bigint() + 20_000_000n;
  const logs = paths.map((_, i) => join(directory, `log-${i}`));
  await Promise.all(
    paths.map((path, i) => {
      const child = new Child(`contender ${i}`, buildFloor(), ["contend"]);
      onTestFinished(() => child.end());
      return child.ask(`block ${path} ${start} ${100_000_000} ${2_000_000} 1000 ${logs[i]}`);
    }),
  );
  expect(logs.every((log) => existsSync(log))).toBe(true);
  const merged = mergeTurns(
    logs.map((log) => new BigInt64Array(new Uint8Array(readFileSync(log)).buffer)),
    start,
  );
  return { turns: merged.length, overlaps: countOverlaps(merged) };
}

it("processes that hold one lock are proved not to overlap, and with a lock each they are seen to", async () => {
  const directory = temporaryDirectory();
  const [one, other] = [join(directory, "one"), join(directory, "other")];
  const excluded = await contend([one, one]);
  expect(excluded.turns).toBeGreaterThan(10);
  expect(excluded.overlaps).toBe(0);
  expect((await contend([one, other])).overlaps).toBeGreaterThan(10);
});
