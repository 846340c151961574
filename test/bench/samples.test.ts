// What is said of samples: over all of them, and round by round.

import { existsSync } from "node:fs";
import { expect } from "vitest";
import { itWhere } from "../support/capabilities.ts";

const installed = existsSync(new URL("../../bench/node_modules/simple-statistics", import.meta.url));
const it = itWhere(installed, "bench/node_modules is not installed: npm run bench -- --help", { of: "runtime" });

it("tells the median of all samples, not of the medians of the rounds", async () => {
  const { summarizeTimes } = await import("../../bench/harness/samples.mjs");
  const summary = summarizeTimes([[1000, 2000, 3000], [100_000]], "us");
  expect(summary).toMatchObject({ n: 4, median: 2.5, min: 1, max: 100, rounds: [2, 100] });
});

it("orders numbers as numbers", async () => {
  const { summarize } = await import("../../bench/harness/samples.mjs");
  expect(summarize([[9, 10, 100, 1000, 8]])).toMatchObject({ median: 10, min: 8, max: 1000, p25: 9, p75: 100 });
});

it("leaves out a round that found nothing, and refuses to say anything of no sample at all", async () => {
  const { summarize } = await import("../../bench/harness/samples.mjs");
  expect(summarize([[], [4]]).rounds).toEqual([4]);
  expect(() => summarize([[], []])).toThrow("no sample");
});
