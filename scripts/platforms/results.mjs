// What came of a run of tests, by what its runtime prints: TAP, or the summary of Bun.

/** Of Node's test runner and Deno's: a test that ended neither way has failed. */
export function countTap(output) {
  const points = output.split("\n").filter((line) => /^(not )?ok \d+/.test(line));
  const skipped = points.filter((line) => /^ok .*(# SKIP|\[skipped: )/.test(line)).length;
  const failed = points.filter((line) => line.startsWith("not ok")).length;
  return { passed: points.length - failed - skipped, failed, skipped };
}

export function countBun(output) {
  const count = (word) => Number(new RegExp(`^ *(\\d+) ${word}$`, "m").exec(output)?.[1] ?? 0);
  return { passed: count("pass"), failed: count("fail"), skipped: count("skip") };
}

export const NONE = { passed: 0, failed: 0, skipped: 0 };

export function add(a, b) {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}
