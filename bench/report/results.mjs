// Reads what the scenarios have written, and refuses what is none of it.

import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** In the order of the report. */
export const SCENARIOS = ["uncontended", "refusal", "contention", "handoff", "failover", "restart", "scale", "weight"];

/** By name of the scenario, those that are there. */
export function readResults(directory) {
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
    throw new Error(`no results: ${directory} is no directory; make some by: npm run bench -- --out ${directory}`);
  }
  const results = {};
  for (const scenario of SCENARIOS) {
    const file = join(directory, `${scenario}.json`);
    if (!existsSync(file)) continue;
    results[scenario] = readResult(file);
    if (results[scenario].scenario !== scenario) {
      throw new Error(`${file} has results of the scenario ${results[scenario].scenario}; give it that name`);
    }
  }
  if (Object.keys(results).length === 0) {
    throw new Error(`no results in ${directory} (<scenario>.json); make some by: npm run bench -- --out ${directory}`);
  }
  return results;
}

export function readResult(file) {
  let text;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new Error(`${file} can't be read (${cause.code}); give it a <scenario>.json of a run, or its directory`, {
      cause,
    });
  }
  let result;
  try {
    result = JSON.parse(text);
  } catch (cause) {
    throw new Error(`${file} is no JSON (${cause.message}); run its scenario again`, { cause });
  }
  const fault = faultOf(result);
  if (fault !== undefined) throw new Error(`${file} has no results of this suite: ${fault}; run its scenario again`);
  return { environment: {}, proofs: [], ...result };
}

function faultOf(result) {
  if (typeof result !== "object" || result === null) return "it is no object";
  if (!SCENARIOS.includes(result.scenario)) return `"scenario" is ${JSON.stringify(result.scenario)}, none of ours`;
  if (!Array.isArray(result.measurements)) return `"measurements" is no list`;
  for (const [index, measurement] of result.measurements.entries()) {
    for (const name of ["case", "metric", "unit", "subject"]) {
      if (typeof measurement?.[name] !== "string") return `"measurements[${index}].${name}" is no string`;
    }
    const { median, missing } = measurement;
    if (missing === undefined && !Number.isFinite(median))
      return `"measurements[${index}]" has neither a median nor "missing"`;
  }
  return undefined;
}

/** What was measured, or undefined, also where it is there as missing. */
export function find(result, where) {
  return result?.measurements.find((measurement) => matches(measurement, where) && isMeasured(measurement));
}

export function select(result, where) {
  return result?.measurements.filter((measurement) => matches(measurement, where)) ?? [];
}

export function isMeasured({ missing, median }) {
  return missing === undefined && Number.isFinite(median);
}

function matches(measurement, where) {
  return Object.entries(where).every(([name, value]) => measurement[name] === value);
}

/** `8 processes, section 100 us`: { processes: 8, section: "100 us" }, or undefined. */
export function contentionOf(measurement) {
  const [, processes, section] = /^(\d+) process(?:es)?, section (.+)$/.exec(measurement.case) ?? [];
  return processes === undefined ? undefined : { processes: Number(processes), section };
}

/** What we compare with, beside the floor, what is ours, and what takes no lock at all. */
export function isPeer({ subject }) {
  return !subject.startsWith("gateway-lock") && !NO_PEERS.has(subject);
}

const NO_PEERS = new Set(["floor", "flock only", "net.Server.listen", "strict bind", "bare Node"]);

/** The floor, ours, then the others by what they reach; last what is missing. */
export function inOrder(measurements) {
  const rank = (one) => {
    if (!isMeasured(one)) return 5;
    const first = ["floor", "gateway-lock"].indexOf(one.subject);
    if (first >= 0) return first;
    return one.subject.startsWith("gateway-lock") ? 2 : 3;
  };
  const better = (a, b) => (a.better === "more" ? b.median - a.median : a.median - b.median);
  return measurements.toSorted((a, b) => rank(a) - rank(b) || (rank(a) === 3 ? better(a, b) : 0));
}

export const unique = (list) => [...new Set(list)];
