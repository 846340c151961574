// What tests say of times: how long, which of many is the middle one, and whether two intervals overlap.

export function quantile(samples: readonly number[], part: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

/** Pairs of intervals that have a moment in common. */
export function overlapsIn(intervals: readonly (readonly [from: number, until: number])[]): unknown[] {
  const sorted = [...intervals].sort(([a], [b]) => a - b);
  return sorted.flatMap((interval, index) => {
    const next = sorted[index + 1];
    return next !== undefined && next[0] < interval[1] ? [[interval, next]] : [];
  });
}

/** For whoever wants to see more than that a bound was kept. */
export function showTimes(text: string): void {
  if (process.env.GATEWAY_LOCK_SHOW_TIMES) console.log(text);
}
