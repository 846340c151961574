// Proves that the report says what the results say, in readable figures, and explains what was missed.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { figure, times } from "../../bench/report/figures.mjs";
import { goals } from "../../bench/report/goals.mjs";
import { report } from "../../bench/report/index.mjs";
import { markdown } from "../../bench/report/markdown.mjs";
import { hasBenchModules, measurementIn, type Results, someResults, writeResults } from "../support/bench-results.ts";
import { itWhere } from "../support/capabilities.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const itDrawing = itWhere(hasBenchModules, "bench/node_modules is not installed: npm run bench -- --help", {
  of: "runtime",
});

const PROFILE = {
  operation: "take and release a bare lock",
  functions: [{ name: "attemptOn", place: "dist/lock/file-lock.js:228", share: 0.63 }],
  systemCalls: [{ name: "newfstatat", perOperation: 5, share: 0.61 }],
};

function written(results: Results, profiles: Record<string, unknown> = {}): string {
  const plots = [{ scenario: "handoff", file: "handoff.svg", title: "From a release" }];
  return markdown({ results, goals: goals(results), plots, profiles });
}

function withMissedBare(mode?: "full" | "quick" | "smoke"): Results {
  const results = someResults(mode);
  measurementIn(results, "uncontended", "bare lock", "acquire + release", "floor").median = 6;
  return results;
}

it.each([
  [12.345, "us", "12.3 µs"],
  [0.1, "us", "0.1 µs"],
  [999.9, "us", "1 ms"],
  [41_000, "us", "41 ms"],
  [0.1, "ms", "100 µs"],
  [9800, "ms", "9.8 s"],
  [60_000, "ms", "60 s"],
  [0, "ms", "0 µs"],
  [3_000_000, "bytes", "3 MB"],
  [640, "bytes", "640 B"],
  [98_214, "1/s", "98,200/s"],
  [0.9931, "ratio", "0.993"],
  [123_456, "count", "123,456"],
  [Number.NaN, "us", "–"],
])("writes %d %s as %s", (value, unit, text) => {
  expect(figure(value, unit)).toBe(text);
});

it.each([
  [1.333, "1.33×"],
  [24.61, "24.6×"],
  [2449, "2,450×"],
  [0.0123, "0.012×"],
])("writes a ratio of %d as %s", (ratio, text) => {
  expect(times(ratio)).toBe(text);
});

describe("the report", () => {
  it("says which mode it was, and how much its figures are worth", () => {
    expect(written(someResults())).toMatch(/Mode: \*\*full\*\*\. Started 2026-01-02T03:04:05\.000Z, took 8 min\.\n/);
    expect(written(someResults("quick"))).toContain("**The figures of a quick run are rough**");
    expect(written(someResults("smoke"))).toContain("its figures mean nothing");
  });

  it("has the environment, each value once", () => {
    const text = written(someResults());
    expect(text).toContain("| memory | 8 GB |");
    expect(text).toContain("| load average | 0.42, 0.31, 0.2 |");
    expect(text).toContain("| versions | gateway-lock 0.1.0, fs-ext 2.1.1, os-lock 2.0.0 |");
  });

  it("has a row for each condition of a goal", () => {
    const text = written(withMissedBare());
    expect(text).toContain(
      "| taking and releasing a bare lock | 2.00× (12 µs against 6 µs) | ≤ 1.5× floor | **missed** |",
    );
    expect(text).toContain("|  | fastest peer fs-ext: 1.08× ours | faster than every peer | met |");
    const { weight } = someResults() as Required<Results>;
    expect(written({ weight } as Results)).toContain("| not measured | ≤ 2× floor | – |");
  });

  it("says in a sentence what was missed, and where the time goes", () => {
    const text = written(withMissedBare(), { bare: PROFILE });
    expect(text).toContain("**Missed — taking and releasing a bare lock:** it takes 2.00× of the floor");
    expect(text).toContain("| `attemptOn` | `dist/lock/file-lock.js:228` | 63 % |");
    expect(text).toContain("| `newfstatat` | 5 | 61 % |");
    expect(written(someResults(), { bare: PROFILE })).not.toContain("Missed");
  });

  it("has median, p99, spread and ratio of each subject", () => {
    const text = written(someResults());
    expect(text).toContain("| subject | median | p99 | spread | × floor |");
    expect(text).toContain("| gateway-lock | 12 µs | 28.8 µs | 11.6 – 12.2 µs | 1.33× |");
    expect(text).toContain("| strict bind | 60 s | 144 s | 58.2 – 61.2 s |");
  });

  it("shows what a peer can't do as a dash, with the reason beneath", () => {
    const text = written(someResults());
    expect(text).toContain("| proper-lockfile | –<sup>1</sup> | – | – | – |");
    expect(text).toContain("<sup>1</sup> its lock is a directory, which holds no record");
    expect(text).toMatch(/\| os-lock \| –<sup>1<\/sup> \| –<sup>1<\/sup> \|/);
  });

  it("has a column for each number of processes", () => {
    const text = written(someResults());
    expect(text).toContain("| processes | 2 | 4 | 8 | 16 | 32 | 64 |");
    expect(text).toMatch(/\| gateway-lock \| 67,400\/s; 0\.71× \|/);
  });

  it("has the proofs with their counts, and says who broke one", () => {
    const text = written(someResults());
    expect(text).toContain("| no two critical sections overlap | gateway-lock | 123,456 | 0 |");
    expect(text).toContain("**proper-lockfile** broke “no two critical sections overlap” 3 times in 123,456.");
  });

  it("shows a plot only where there is one", () => {
    expect(written(someResults()).match(/!\[.*\]\(.*\)/g)).toEqual(["![From a release](handoff.svg)"]);
  });

  it("takes every figure from the results", () => {
    const results = someResults();
    measurementIn(results, "uncontended", "bare lock", "acquire + release", "fs-ext").median = 17.77;
    expect(written(results)).toContain("| fs-ext | 17.8 µs |");
  });
});

describe("of a directory", () => {
  it("refuses one without results, and says how to make some", async () => {
    const directory = temporaryDirectory();
    await expect(report(directory)).rejects.toThrow(/no results in .* npm run bench/);
    await expect(report(join(directory, "none"))).rejects.toThrow(/is no directory/);
  });

  itDrawing("writes the report and the plots it shows, and returns the goals", async () => {
    const directory = temporaryDirectory();
    writeResults(directory, someResults());
    const found = await report(directory);
    expect(found).toEqual(goals(someResults()));
    const text = readFileSync(join(directory, "report.md"), "utf8");
    const shown = [...text.matchAll(/\]\((.*\.svg)\)/g)].map(([, file]) => file).sort();
    expect(shown).toEqual(
      readdirSync(directory)
        .filter((name) => name.endsWith(".svg"))
        .sort(),
    );
    expect(shown.length).toBe(9);
  });

  itDrawing("takes the profile that is stored of this run, without making it again", async () => {
    const directory = temporaryDirectory();
    writeResults(directory, withMissedBare());
    const resultsStartedAt = "2026-01-02T03:04:05.000Z";
    writeFileSync(join(directory, "profile-bare.json"), JSON.stringify({ resultsStartedAt, ...PROFILE }));
    await report(directory, { log: (line: string) => expect.fail(line) });
    expect(readFileSync(join(directory, "report.md"), "utf8")).toContain("`attemptOn`");
  });

  itDrawing("makes a profile of what a quick run has missed, and keeps it", async () => {
    const directory = temporaryDirectory();
    const results = someResults("quick");
    measurementIn(results, "weight", "import", "import", "gateway-lock").median = 99;
    writeResults(directory, results);
    const lines: string[] = [];
    await report(directory, { log: (line: string) => lines.push(line) });
    expect(lines).toContain("profiling weight: start Node and import the package");
    const stored = JSON.parse(readFileSync(join(directory, "profile-weight.json"), "utf8"));
    expect(stored.resultsStartedAt).toBe(results.weight?.startedAt);
    expect(readFileSync(join(directory, "report.md"), "utf8")).toContain("Where the time goes (profile of `weight`");
  });

  itDrawing("explains nothing of a smoke run", async () => {
    const directory = temporaryDirectory();
    mkdirSync(directory, { recursive: true });
    writeResults(directory, withMissedBare("smoke"));
    await report(directory);
    expect(existsSync(join(directory, "profile-bare.json"))).toBe(false);
  });
});
