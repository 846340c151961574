// Subjects are asked in turn, and nobody is always the first.

import { expect, it } from "vitest";
import { interleave } from "../../bench/harness/rounds.mjs";

it("asks A B C, B C A, after a round that does not count", async () => {
  const asked: string[] = [];
  const batches = await interleave(["A", "B", "C"], 2, async (subject: string, round: number) => {
    asked.push(`${subject}${round}`);
    return [round];
  });
  expect(asked).toEqual(["A-1", "B-1", "C-1", "A0", "B0", "C0", "B1", "C1", "A1"]);
  expect([...batches]).toEqual(["A", "B", "C"].map((subject) => [subject, [[0], [1]]]));
});
