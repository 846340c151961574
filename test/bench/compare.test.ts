// Proves that two runs are compared figure by figure, that chance is called noise, and that what can't be compared is refused.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { compare } from "../../bench/report/compare.mjs";
import { measured, measurementIn, type Results, someResults, writeResults } from "../support/bench-results.ts";
import { temporaryDirectory } from "../support/temporary.ts";

interface Row {
  case: string;
  metric: string;
  subject: string;
  ratio: number | null;
  change: string;
}

function compared(before: Results, after: Results, file = "") {
  const directory = temporaryDirectory();
  const [old, young] = ["old", "new"].map((name) => join(directory, name)) as [string, string];
  writeResults(old, before);
  writeResults(young, after);
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const { rows, warnings } = compare(join(old, file), join(young, file), { log, warn: log });
  return { rows: rows as Row[], warnings: warnings as string[], lines };
}

function rowOf(rows: Row[], subject: string): Row | undefined {
  return rows.find((row) => row.case === "bare lock" && row.subject === subject);
}

function withBare(median: number, subject = "gateway-lock"): Results {
  const results = someResults();
  const fresh = measured("bare lock", "acquire + release", "us", subject, median);
  Object.assign(measurementIn(results, "uncontended", "bare lock", "acquire + release", subject), fresh);
  return results;
}

describe("a change", () => {
  it("is noise, where the medians of the rounds reach into each other's range", () => {
    const { rows } = compared(withBare(12), withBare(12.3));
    expect(rowOf(rows, "gateway-lock")).toMatchObject({ change: "noise" });
    expect(rowOf(rows, "gateway-lock")?.ratio).toBeCloseTo(1.025);
  });

  it("is better or worse, where they do not", () => {
    expect(rowOf(compared(withBare(12), withBare(24)).rows, "gateway-lock")).toMatchObject({
      change: "worse",
      ratio: 2,
    });
    expect(rowOf(compared(withBare(12), withBare(6)).rows, "gateway-lock")).toMatchObject({
      change: "better",
      ratio: 0.5,
    });
  });

  it("is better upwards, where more is better", () => {
    const after = someResults();
    const rate = measurementIn(after, "contention", "2 processes, section 0", "acquisitions", "gateway-lock");
    Object.assign(rate, measured(rate.case, rate.metric, rate.unit, rate.subject, 1e6, "more"));
    const { rows } = compared(someResults(), after);
    expect(rows.find((row) => row.metric === "acquisitions" && row.change !== "same")).toMatchObject({
      change: "better",
    });
  });

  it("is none, where one of the two has no figure", () => {
    const after = someResults();
    const ours = measurementIn(after, "uncontended", "bare lock", "acquire + release", "os-lock");
    delete ours.median;
    ours.missing = "not installed";
    const { rows, lines } = compared(someResults(), after);
    expect(rowOf(rows, "os-lock")).toMatchObject({ ratio: null, change: "" });
    expect(lines.find((line) => /bare lock .* os-lock /.test(line))).toMatch(/20 µs +– +–$/);
  });
});

it("prints a table of case, metric, subject, both figures and their ratio", () => {
  const { lines } = compared(withBare(12), withBare(24), "uncontended.json");
  expect(lines[0]).toMatch(/^case +metric +subject +old +new +new\/old$/);
  expect(lines.find((line) => / gateway-lock /.test(line))).toMatch(
    /^bare lock +acquire \+ release +gateway-lock +12 µs +24 µs +2\.00× +worse$/,
  );
});

it("shows what only one of the runs has", () => {
  const [before, after] = [someResults(), someResults()];
  delete before.scale;
  after.weight?.measurements.push(measured("import", "import", "ms", "another", 3));
  const { rows, warnings } = compared(before, after);
  expect(rows.find(({ subject }) => subject === "another")).toMatchObject({ ratio: null });
  expect(warnings).toEqual([expect.stringMatching(/^scale is only in .*new$/)]);
});

it("warns where modes or environments differ, but not of the load", () => {
  const after = someResults("quick");
  for (const result of Object.values(after)) {
    result.environment = { ...result.environment, node: "22.0.0", loadAverage: [3, 2, 1] };
  }
  const { warnings, lines } = compared(someResults(), after, "weight.json");
  expect(warnings).toEqual([
    "weight: modes differ, full before and quick now: the rougher one decides",
    'environments differ in node: "20.20.2" before, "22.0.0" now',
  ]);
  expect(lines[0]).toBe(`warning: ${warnings[0]}`);
});

describe("refuses, and says what to do about", () => {
  const refused = (content: string) => {
    const directory = temporaryDirectory();
    const [file, good] = [join(directory, "weight.json"), join(directory, "good/weight.json")];
    writeFileSync(file, content);
    writeResults(join(directory, "good"), someResults());
    return () => compare(file, good, { log: () => {} });
  };

  it.each([
    ["what is no JSON", "<html>", /weight\.json is no JSON .* run its scenario again/],
    ["an object that is no result", "{}", /"scenario" is undefined, none of ours/],
    ["null", "null", /it is no object/],
    ["a result without measurements", '{"scenario":"weight"}', /"measurements" is no list/],
    ["a measurement without a figure", figureless(), /"measurements\[0\]" has neither a median nor "missing"/],
    ["another scenario", '{"scenario":"scale","measurements":[]}', /of the scenario scale, and .* of weight/],
  ])("%s", (_what, content, message) => {
    expect(refused(content)).toThrow(message);
  });

  it("a file that is not there, a directory with a file, and a directory without results", () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, "empty"));
    writeResults(join(directory, "full"), someResults());
    const tried = (old: string, young: string) => () => compare(join(directory, old), join(directory, young));
    expect(tried("none.json", "full")).toThrow(/none\.json is not there/);
    expect(tried("full", "full/weight.json")).toThrow(/full is a directory, and .*weight\.json a file/);
    expect(tried("empty", "full")).toThrow(/no results in .*empty .* npm run bench/);
  });
});

function figureless(): string {
  const measurement = { case: "import", metric: "import", unit: "ms", subject: "gateway-lock", median: null };
  return JSON.stringify({ scenario: "weight", measurements: [measurement] });
}
