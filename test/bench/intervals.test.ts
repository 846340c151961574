// The proof that no two critical sections overlap finds those that do; the other figures that come from the same logs.

import { expect, it } from "vitest";
import { countOverlaps, handoffs, jain, mergeTurns } from "../../bench/harness/intervals.mjs";

const START = 5_000_000_000_000n;

/** Turns of one process: [asked, acquired, released], in ns after the start. */
function logOf(...turns: [number, number, number][]): BigInt64Array {
  return BigInt64Array.from(turns.flat().map((time) => START + BigInt(time)));
}

function overlapsOf(...logs: BigInt64Array[]): number {
  return countOverlaps(mergeTurns(logs, START));
}

it("finds nothing where one begins when the other has ended", () => {
  expect(overlapsOf(logOf([0, 10, 20], [20, 40, 50]), logOf([0, 20, 40], [41, 50, 60]))).toBe(0);
});

it("finds one that begins a nanosecond before the other has ended", () => {
  expect(overlapsOf(logOf([0, 10, 20]), logOf([0, 19, 30]))).toBe(1);
});

it("finds one that lies within a long one, behind a short one that lies there too", () => {
  expect(overlapsOf(logOf([0, 10, 100]), logOf([0, 20, 30]), logOf([0, 40, 50]))).toBe(2);
});

it("finds one between processes whose logs are in order each by itself", () => {
  expect(overlapsOf(logOf([0, 10, 20], [20, 30, 60]), logOf([0, 20, 30], [31, 50, 70]))).toBe(1);
});

it("keeps nanoseconds apart on a host that has run for months", () => {
  const late = 15_000_000_000_000_000n;
  const log = BigInt64Array.from([late, late + 1n, late + 2n]);
  expect(mergeTurns([log], late)).toEqual([{ owner: 0, asked: 0, acquired: 1, released: 2 }]);
});

it("counts a hand-off only from one process to another that was waiting already", () => {
  const first = logOf([0, 10, 20], [21, 22, 30], [90, 91, 99]);
  const second = logOf([15, 37, 50], [60, 61, 70]);
  // The first follows itself; the second had asked before; its next turn follows itself, and the last one asked too late.
  expect(handoffs(mergeTurns([first, second], START))).toEqual([7]);
});

it("Jain's index is 1 where all had as much, and 1/n where one had it all", () => {
  expect(jain([5, 5, 5, 5])).toBe(1);
  expect(jain([20, 0, 0, 0])).toBe(0.25);
  expect(jain([3, 1])).toBe(0.8);
});
