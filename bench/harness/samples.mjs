// From single times to what a result says of them.

import { createRequire } from "node:module";

const { quantileSorted } = createRequire(import.meta.url)("simple-statistics");

export const NS = { us: 1e3, ms: 1e6, s: 1e9 };

/** `batches`: the samples of each round, in ns; `unit`: what they are told in. */
export function summarizeTimes(batches, unit) {
  return summarize(batches.map((batch) => batch.map((ns) => ns / NS[unit])));
}

/** The median is that of all samples; `rounds` has the median of each batch. */
export function summarize(batches) {
  const filled = batches.filter((batch) => batch.length > 0);
  // Not Math.min(...all): there may be more samples than a call has room for arguments.
  const all = Float64Array.from(filled.flat()).sort();
  if (all.length === 0) throw new Error("there is no sample to summarize");
  const at = (p) => round(quantileSorted(all, p));
  return {
    n: all.length,
    median: at(0.5),
    p99: at(0.99),
    p25: at(0.25),
    p75: at(0.75),
    min: round(all[0]),
    max: round(all[all.length - 1]),
    rounds: filled.map((batch) => round(quantileSorted(Float64Array.from(batch).sort(), 0.5))),
  };
}

export function single(value) {
  return summarize([[value]]);
}

/** Six digits are more than a time is good for. */
function round(value) {
  return Number(value.toPrecision(6));
}
