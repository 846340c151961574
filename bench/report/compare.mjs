// Two runs side by side: new / old of every figure, and which of the changes are no more than noise.

import { statSync } from "node:fs";
import { figure, times } from "./figures.mjs";
import { isMeasured, readResult, readResults, SCENARIOS } from "./results.mjs";

/** Differs from run to run on one machine. */
const PASSING = new Set(["loadAverage", "load", "commit"]);
const COLUMNS = ["case", "metric", "subject", "old", "new", "new/old", ""];
const FIRST_NUMBER = 3;

/**
 * Prints the table by `log`, and warnings by `warn`; returns { rows, warnings }. `before` and `after` are two files of
 * one scenario, or two directories of results; anything else throws.
 */
export function compare(before, after, { log = console.log, warn = console.error } = {}) {
  const { pairs, alone } = pairsOf(before, after);
  const warnings = [...alone, ...pairs.flatMap(([old, young]) => differences(old, young))];
  const rows = pairs.flatMap(([old, young]) => rowsOf(old, young));
  for (const warning of new Set(warnings)) warn(`warning: ${warning}`);
  for (const line of textOf(rows)) log(line);
  return { rows, warnings: [...new Set(warnings)] };
}

function pairsOf(before, after) {
  const kinds = [before, after].map(kindOf);
  if (kinds[0] !== kinds[1]) {
    throw new Error(`${before} is a ${kinds[0]}, and ${after} a ${kinds[1]}; compare two files, or two directories`);
  }
  if (kinds[0] === "file") {
    const [old, young] = [before, after].map(readResult);
    if (old.scenario === young.scenario) return { pairs: [[old, young]], alone: [] };
    throw new Error(
      `${before} is of the scenario ${old.scenario}, and ${after} of ${young.scenario}; compare two of one scenario`,
    );
  }
  const [old, young] = [before, after].map(readResults);
  const pairs = SCENARIOS.filter((name) => old[name] && young[name]).map((name) => [old[name], young[name]]);
  if (pairs.length === 0) {
    throw new Error(
      `${before} has ${Object.keys(old)}, and ${after} ${Object.keys(young)}: no scenario in common; run one with --only`,
    );
  }
  const onlyIn = (place, mine, other) =>
    SCENARIOS.filter((name) => mine[name] && !other[name]).map((name) => `${name} is only in ${place}`);
  return { pairs, alone: [...onlyIn(before, old, young), ...onlyIn(after, young, old)] };
}

function kindOf(path) {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined)
    throw new Error(`${path} is not there; give it a <scenario>.json of a run, or its directory`);
  return found.isDirectory() ? "directory" : "file";
}

function differences(old, young) {
  const warnings = [];
  if (old.mode !== young.mode) {
    warnings.push(`${old.scenario}: modes differ, ${old.mode} before and ${young.mode} now: the rougher one decides`);
  }
  const names = new Set([...Object.keys(old.environment), ...Object.keys(young.environment)]);
  for (const name of names) {
    const [was, is] = [old, young].map(({ environment }) => JSON.stringify(environment[name]) ?? "not told");
    if (was !== is && !PASSING.has(name)) warnings.push(`environments differ in ${name}: ${was} before, ${is} now`);
  }
  return warnings;
}

function rowsOf(old, young) {
  const rows = old.measurements.map((one) => [one, young.measurements.find((other) => keyOf(other) === keyOf(one))]);
  const known = new Set(old.measurements.map(keyOf));
  const added = young.measurements.filter((one) => !known.has(keyOf(one))).map((one) => [undefined, one]);
  return [...rows, ...added].map(([was, is]) => rowOf(was, is, old.scenario));
}

function keyOf({ case: name, metric, subject }) {
  return JSON.stringify([name, metric, subject]);
}

function rowOf(was, is, scenario) {
  const { case: name, metric, subject, unit, better = "less" } = was ?? is;
  const [before, after] = [was, is].map((one) => (one !== undefined && isMeasured(one) ? one.median : null));
  const row = { scenario, case: name, metric, subject, unit, before, after, ratio: null, change: "" };
  if (before === null || after === null) return row;
  if (before !== 0) row.ratio = after / before;
  row.change = changeOf(was, is, better);
  return row;
}

/** Rounds of the two runs that reach into each other's range tell no change from chance. */
function changeOf(was, is, better) {
  if (was.median === is.median) return "same";
  const [[least, most], [low, high]] = [was, is].map(({ rounds, median }) => {
    const values = rounds?.length > 0 ? rounds : [median];
    return [Math.min(...values), Math.max(...values)];
  });
  if (low <= most && least <= high) return "noise";
  return is.median < was.median === (better === "less") ? "better" : "worse";
}

function textOf(rows) {
  const cells = rows.map(({ case: name, metric, subject, unit, before, after, ratio, change }) => [
    name,
    metric,
    subject,
    ...[before, after].map((value) => (value === null ? "–" : figure(value, unit))),
    ratio === null ? "–" : times(ratio),
    change,
  ]);
  const all = [COLUMNS, ...cells];
  const widths = COLUMNS.map((_, index) => Math.max(...all.map((line) => line[index].length)));
  return all.map((line) =>
    line
      .map((cell, index) => padded(cell, index, widths[index]))
      .join("  ")
      .trimEnd(),
  );
}

function padded(cell, index, width) {
  return index >= FIRST_NUMBER && index < COLUMNS.length - 1 ? cell.padStart(width) : cell.padEnd(width);
}
