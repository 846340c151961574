// The floor does what it is compared with: the same system calls as ours; and what it logs proves what it should.

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
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
    const flags = (line.match(/\b(?:O|LOCK|AT)_[A-Z_]+/g) ?? []).filter((flag) => flag !== "AT_FDCWD");
    return [STAT[[call, ...flags].join(" ")] ?? [call, ...flags.toSorted()].join(" ")];
  });
}

/** Which of them the C library makes of stat(2) depends on its age. */
const STAT: Record<string, string> = {
  newfstatat: "stat",
  "newfstatat AT_SYMLINK_NOFOLLOW": "lstat",
  "newfstatat AT_EMPTY_PATH": "fstat",
};

function trace(directory: string, command: string[], input: string): string[] {
  const log = join(directory, "strace.log");
  const { status, stderr } = spawnSync("strace", ["-f", "-o", log, ...command], { input, encoding: "utf8" });
  expect([status, stderr]).toEqual([0, ""]);
  return readFileSync(log, "utf8").split("\n");
}

/** The second operation of two: the first one makes what is not there yet. */
function traceFloor(directory: string, mode: string[]): string[] {
  const lines = trace(directory, [buildFloor(), ...mode], "batch 1\nbatch 1\n");
  // Each answer ends an operation.
  const answers = lines.flatMap((line, i) => (/ write\(1, "\[/.test(line) ? [i] : []));
  expect(answers).toHaveLength(2);
  return lines.slice(answers[0], answers[1]);
}

/** The third operation of three. */
function traceOurs(directory: string, operation: string): string[] {
  const dist = pathToFileURL(join(import.meta.dirname, "../../dist/index.js"));
  const program = `
    import { existsSync } from "node:fs";
    import { acquireGateway, tryLockFile } from "${dist}";
    for (let i = 0; i < 3; i++) {
      existsSync("${MARK}");
      ${operation}
    }
    existsSync("${MARK}");`;
  const lines = trace(directory, [process.execPath, "--input-type=module", "-e", program], "");
  const marks = lines.flatMap((line, i) => (/access\(/.test(line) && line.includes(MARK) ? [i] : []));
  expect(marks).toHaveLength(4);
  return lines.slice((marks[2] ?? 0) + 1, marks[3]);
}

itTraces("taking and freeing a bare lock is the same system calls in C as in ours", () => {
  const directory = temporaryDirectory();
  const path = join(directory, "lock");
  const floor = callsIn(traceFloor(directory, ["lock", path]));
  expect(floor.length).toBeGreaterThan(6);
  expect(callsIn(traceOurs(directory, `tryLockFile(${JSON.stringify(path)}).release();`))).toEqual(floor);
});

/** What a gateway does with its directory and its files, and how often: descriptors are closed for other reasons too. */
function countFileCalls(lines: string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of lines) {
    const [, call] = /^\d+ +(\w+)\(/.exec(line) ?? [];
    const name = /^(newfstatat|statx|l?stat|fstat)$/.test(call ?? "") ? "stat" : call;
    if (name !== undefined && FILE_CALLS.includes(name)) counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}
const FILE_CALLS = [
  "stat",
  "statfs",
  "readlink",
  "access",
  "openat",
  "flock",
  "pwrite64",
  "ftruncate",
  "unlink",
  "mkdir",
];

itTraces("locks and records of a gateway are the same system calls in C as in ours", () => {
  const directory = temporaryDirectory();
  const [inC, inNode] = [join(directory, "floor"), join(directory, "ours!")];
  for (const path of [inC, inNode]) mkdirSync(path, { mode: 0o700 });
  const floor = countFileCalls(traceFloor(directory, ["gateway", inC, join(inC, "gateway.json")]));
  const options = JSON.stringify({ stateDir: inNode, port: 0 });
  const ours = countFileCalls(traceOurs(directory, `await (await acquireGateway(${options})).close();`));
  expect(floor).toMatchObject({ flock: 7, pwrite64: 2, unlink: 2 });
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
