// Proves that the journal of test:chaos outlives the death of whoever writes it, and is not taken for whole where something else has spoilt it.

import { appendFileSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { temporaryDirectory } from "../support/temporary.js";
import { note, readNotes } from "./world.mjs";

const PAGE = 4096; // bytes

/** A journal in which the next note would lie across the end of a page, `within` bytes of it on the first. */
function nearlyFull(within: number): string {
  const journal = join(temporaryDirectory(), "journal");
  note(journal, "acquire", { id: "first" });
  const missing = PAGE - within - statSync(journal).size;
  const empty = `\n${JSON.stringify({ at: 0, text: "" })}`;
  appendFileSync(journal, `\n${JSON.stringify({ at: 0, text: "x".repeat(missing - empty.length) })}`);
  expect(statSync(journal).size).toBe(PAGE - within);
  return journal;
}

it.each([0, 1, 2, 5])("leaves out a note of which %i bytes were written when its writer was killed", (within) => {
  const journal = nearlyFull(within);
  appendFileSync(journal, '\n{"at":5,"event":"own"}'.slice(0, within));
  note(journal, "beat", { id: "next" });
  expect(readNotes(journal).map(({ id }) => id)).toEqual([undefined, "first", "next"]);
  note(journal, "beat", { id: "last" });
  expect(readNotes(journal)).toHaveLength(4);
});

it("does not leave out what no death has torn", () => {
  const journal = nearlyFull(200);
  note(journal, "own", { id: "whole" });
  expect(readFileSync(journal, "utf8").split("\n")).toHaveLength(4);
  appendFileSync(journal, '\n{"at":5,"eve');
  note(journal, "beat", { id: "next" });
  expect(() => readNotes(journal)).toThrow(/is no note/);
});
