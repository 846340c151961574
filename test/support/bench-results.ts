// Results of the benchmark suite as a run would write them, with figures as they are on a small machine.

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export interface Measurement {
  case: string;
  metric: string;
  unit: string;
  subject: string;
  n?: number;
  median?: number;
  p99?: number;
  p25?: number;
  p75?: number;
  min?: number;
  max?: number;
  rounds?: number[];
  better?: "less" | "more";
  missing?: string;
}

export interface Proof {
  claim: string;
  subject: string;
  checked: number;
  violations: number;
}

export interface Result {
  scenario: string;
  mode: "full" | "quick" | "smoke";
  startedAt: string;
  durationMs: number;
  environment: Record<string, unknown>;
  measurements: Measurement[];
  proofs: Proof[];
}

export type Results = Record<string, Result>;

/** The plots need what bench/package.json names. */
export const hasBenchModules: boolean = existsSync(
  fileURLToPath(new URL("../../bench/node_modules/vega-lite/package.json", import.meta.url)),
);

export function writeResults(directory: string, results: Results): void {
  mkdirSync(directory, { recursive: true });
  for (const result of Object.values(results)) {
    writeFileSync(join(directory, `${result.scenario}.json`), JSON.stringify(result));
  }
}

/** The measurement that a test wants to change; throws where there is none. */
export function measurementIn(
  results: Results,
  scenario: string,
  name: string,
  metric: string,
  subject: string,
): Measurement {
  const found = results[scenario]?.measurements.find(
    (one) => one.case === name && one.metric === metric && one.subject === subject,
  );
  if (found === undefined) throw new Error(`no ${metric} of ${subject} in ${scenario}, ${name}`);
  return found;
}

/** A full run in which every goal is met. */
export function someResults(mode: Result["mode"] = "full"): Results {
  const scenarios: [string, Measurement[], Proof[]][] = [
    ["uncontended", uncontended(), []],
    ["refusal", refusal(), []],
    ["contention", contention(), overlaps(["floor", "gateway-lock", ...CONTENDERS])],
    ["handoff", handoff(), overlaps(["floor", "gateway-lock"])],
    ["failover", failover(), []],
    ["restart", restart(), []],
    ["scale", scale(), []],
    ["weight", weight(), []],
  ];
  return Object.fromEntries(
    scenarios.map(([scenario, measurements, proofs]) => [
      scenario,
      {
        scenario,
        mode,
        startedAt: "2026-01-02T03:04:05.000Z",
        durationMs: 61_000,
        environment: ENVIRONMENT,
        measurements,
        proofs,
      },
    ]),
  );
}

const ENVIRONMENT = {
  kernel: "Linux 6.8.0",
  cpu: "Some CPU @ 2.50GHz",
  cores: 2,
  memory: 8_000_000_000,
  node: "20.20.2",
  filesystem: "ext4",
  loadAverage: [0.42, 0.31, 0.2],
  versions: { "gateway-lock": "0.1.0", "fs-ext": "2.1.1", "os-lock": "2.0.0" },
  commit: "6f5d401",
};
const CONTENDERS = ["fs-ext", "fs-native-extensions", "proper-lockfile", "flock(1)"];
const CANT_WAIT = "it can't wait for a lock, and its README names no other way";

/** Spread as samples are: a long way up, a short one down. */
export function measured(
  name: string,
  metric: string,
  unit: string,
  subject: string,
  median: number,
  better: "less" | "more" = "less",
): Measurement {
  const times = (factor: number) => median * factor;
  const spread = { p25: times(0.93), p75: times(1.12), p99: times(2.4), min: times(0.85), max: times(9) };
  const rounds = [0.97, 1, 1.02].map(times);
  return { case: name, metric, unit, subject, n: 5000, median, ...spread, rounds, better };
}

function single(name: string, metric: string, unit: string, subject: string, value: number): Measurement {
  return {
    case: name,
    metric,
    unit,
    subject,
    n: 1,
    median: value,
    min: value,
    max: value,
    rounds: [value],
    better: "less",
  };
}

function missing(name: string, metric: string, unit: string, subject: string, reason: string): Measurement {
  return { case: name, metric, unit, subject, missing: reason };
}

function each(name: string, metric: string, unit: string, medians: Record<string, number>): Measurement[] {
  return Object.entries(medians).map(([subject, median]) => measured(name, metric, unit, subject, median));
}

function uncontended(): Measurement[] {
  const bare = { "flock only": 6, floor: 9, "gateway-lock": 12, "gateway-lock (sync)": 10.5 };
  const peers = {
    "fs-ext": 13,
    "fs-native-extensions": 14,
    "os-lock": 20,
    "proper-lockfile": 300,
    lockfile: 80,
    "PID file": 31,
  };
  const record = { floor: 24, "gateway-lock": 35, "fs-ext": 44, "fs-native-extensions": 47, "os-lock": 52 };
  return [
    ...each("bare lock", "acquire + release", "us", { ...bare, ...peers }),
    ...each("lock with record", "acquire + release", "us", record),
    missing(
      "lock with record",
      "acquire + release",
      "us",
      "proper-lockfile",
      "its lock is a directory, which holds no record",
    ),
    ...each("gateway", "acquire + close", "us", { floor: 210, "gateway-lock": 480, "net.Server.listen": 130 }),
  ];
}

function refusal(): Measurement[] {
  return [
    ...each("in process", "time to know", "us", {
      floor: 62,
      "gateway-lock": 118,
      "fs-ext": 4.1,
      "proper-lockfile": 160,
    }),
    ...each("whole process", "spawn to exit", "ms", {
      "gateway-lock": 61,
      "proper-lockfile": 72,
      "flock(1)": 2.3,
      "bare Node": 38,
    }),
  ];
}

function contention(): Measurement[] {
  const sections = { 0: 0, "100 us": 100, "1 ms": 1000 };
  return Object.entries(sections).flatMap(([section, us]) =>
    [2, 4, 8, 16, 32, 64].flatMap((processes) => {
      const name = `${processes} processes, section ${section}`;
      const costs = {
        floor: 10,
        "gateway-lock": 14,
        "fs-ext": 21,
        "fs-native-extensions": 23,
        "proper-lockfile": 900,
        "flock(1)": 2100,
      };
      const rates = Object.entries(costs).flatMap(([subject, cost]) => {
        const period = cost * (1 + Math.log2(processes) * (subject === "proper-lockfile" ? 0.8 : 0.06)) + us;
        const jain = subject === "proper-lockfile" ? 1 / Math.log2(processes * 2) : 1 - Math.log2(processes) * 0.006;
        return [
          measured(name, "acquisitions", "1/s", subject, 1e6 / period, "more"),
          measured(name, "wait", "us", subject, period * processes),
          measured(name, "fairness", "ratio", subject, jain, "more"),
          measured(name, "CPU per acquisition", "us", subject, cost * 1.3),
        ];
      });
      return [
        ...rates,
        missing(name, "acquisitions", "1/s", "os-lock", CANT_WAIT),
        missing(name, "wait", "us", "os-lock", CANT_WAIT),
      ];
    }),
  );
}

function handoff(): Measurement[] {
  return ["2 processes", "8 processes"].flatMap((name, index) => [
    ...each(name, "release to next owner", "us", {
      floor: 21 + index * 9,
      "gateway-lock": 47 + index * 30,
      "fs-ext": 66 + index * 40,
      "fs-native-extensions": 71 + index * 40,
      "proper-lockfile": 41_000 + index * 70_000,
    }),
    missing(name, "release to next owner", "us", "os-lock", CANT_WAIT),
  ]);
}

function failover(): Measurement[] {
  const times = {
    "gateway-lock": 4,
    "flock(1)": 6,
    "fs-ext": 5.5,
    "flock(1), then node": 70,
    "proper-lockfile (stale 2 s)": 1900,
    "proper-lockfile": 9800,
    lockfile: 12_400,
  };
  return [
    ...each("SIGKILL to HTTP answer", "failover", "ms", times),
    missing("SIGKILL to HTTP answer", "failover", "ms", "os-lock", CANT_WAIT),
    missing(
      "SIGKILL to HTTP answer",
      "failover",
      "ms",
      "PID file",
      "nobody takes over: the file is there until somebody deletes it",
    ),
  ];
}

function restart(): Measurement[] {
  const name = "clients connected";
  return [
    ...each(name, "blocked", "ms", { "gateway-lock": 0.1, "net.Server.listen": 0.09, "strict bind": 60_000 }),
    single(name, "refused binds", "count", "gateway-lock", 0),
    single(name, "restarts", "count", "gateway-lock", 100),
    single(name, "refused binds", "count", "strict bind", 1),
    single(name, "restarts", "count", "strict bind", 1),
  ];
}

function scale(): Measurement[] {
  const [locks, waiters] = ["10,000 locks in one process", "1,000 waiters in one process"];
  const polls = "it polls: a thousand timers are no queue";
  return [
    ...each(locks, "acquire each", "us", { floor: 9, "gateway-lock": 14, "fs-ext": 6.4, "os-lock": 24 }),
    ...each(locks, "release each", "us", { floor: 1.6, "gateway-lock": 3.9, "fs-ext": 4, "os-lock": 21 }),
    single(locks, "memory each", "bytes", "floor", 1350),
    single(locks, "memory each", "bytes", "gateway-lock", 2620),
    ...each(waiters, "start each", "us", { floor: 26, "gateway-lock": 71, "fs-ext": 16 }),
    missing(waiters, "start each", "us", "proper-lockfile", polls),
    single(waiters, "memory each", "bytes", "gateway-lock", 52_400),
    missing(waiters, "memory each", "bytes", "proper-lockfile", polls),
    ...each(waiters, "drain each", "us", { floor: 247, "gateway-lock": 107, "fs-ext": 134 }),
    ...each("100 reserved ports", "acquire + close", "ms", { "gateway-lock": 6.5 }),
    ...each("no reserved ports", "acquire + close", "ms", { "gateway-lock": 1.9 }),
    ...each("status with 10,000 sockets on the host", "whole process", "ms", { "gateway-lock": 88 }),
    ...each("status with none", "whole process", "ms", { "gateway-lock": 71 }),
  ];
}

function weight(): Measurement[] {
  const sizes = {
    "gateway-lock": 2_400_000,
    "fs-ext": 410_000,
    "fs-native-extensions": 1_300_000,
    "os-lock": 90_000,
    lockfile: 31_000,
  };
  return [
    ...Object.entries(sizes).map(([subject, size]) => single("install", "size", "bytes", subject, size)),
    ...each("import", "import", "ms", { "gateway-lock": 9.1, "fs-ext": 3.2, "proper-lockfile": 6.5 }),
    ...each("import", "resident memory", "bytes", {
      "gateway-lock": 2_100_000,
      "fs-ext": 700_000,
      "proper-lockfile": 1_900_000,
    }),
    ...each("command, --version", "cold start", "ms", { "gateway-lock": 49 }),
    ...each("command, status", "cold start", "ms", { "gateway-lock": 71 }),
    ...each("command, lock and true", "cold start", "ms", { "flock(1)": 1.9 }),
    ...each("command, nothing done", "cold start", "ms", { "bare Node": 38 }),
  ];
}

/** No two sections at once; the last subject's did, as a peer's may. */
function overlaps(subjects: string[]): Proof[] {
  return subjects.map((subject) => ({
    claim: "no two critical sections overlap",
    subject,
    checked: 123_456,
    violations: subject === "proper-lockfile" ? 3 : 0,
  }));
}
