// Proves that each claim of docs/design.md names the test that proves it, or says that there is none and why; and that what it names is there.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "..");

/** Before the first section stands what the essay is about, and how to read it. */
const WITHOUT_CLAIMS: readonly string[] = ["Design"];
const GROUNDS = "read|measured|reasoned";
/** Of a claim that falls short of its test: which part of it. */
const UNTESTED = new RegExp(`^not tested: (?:${GROUNDS})(?: \\([^()]+\\))?$`);
const NAME = /^[a-z][a-z0-9:/-]*$/;

interface Block {
  readonly section: string;
  readonly line: number;
  readonly text: string;
}

/** Paragraphs, items of lists and rows of tables, without headings, the heads of tables, and what only leads to the next block. */
function blocksOf(essay: string): Block[] {
  const blocks: { section: string; line: number; text: string; isRow: boolean }[] = [];
  let section = "";
  let isOpen = false;
  for (const [index, line] of essay.split("\n").entries()) {
    const isRow = line.startsWith("|");
    if (line.startsWith("#")) section = line.replace(/^#+ /, "");
    if (line.startsWith("#") || line.trim() === "") isOpen = false;
    else if (/^\|[-|]+\|$/.test(line)) blocks.pop();
    else if (isOpen && !isRow && !/^(- |\d+\. )/.test(line)) {
      const block = blocks.at(-1);
      if (block !== undefined) block.text += ` ${line.trim()}`;
    } else {
      blocks.push({ section, line: index + 1, text: line, isRow });
      isOpen = !isRow;
    }
  }
  return blocks.map(({ isRow, text, ...block }) => ({ ...block, text: isRow ? text.replace(/ *\|$/, "") : text }));
}

/** What stands in the brackets at the end of a block; what stands in others is of no interest. */
function markOf({ text }: Block): string[] | null {
  const [, mark] = / \[([^[\]]+)\]$/.exec(text) ?? [];
  return mark?.split(/; (?=not tested)|, (?![^(]*\))/) ?? null;
}

function isThere(name: string): boolean {
  const test = join(root, "test", name);
  const command = name.replace(/^test:/, "");
  const scripts: Record<string, string> = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).scripts;
  if (name.startsWith("test:")) return name in scripts;
  if ([`${test}.test.ts`, `${test}.test.mjs`].some((path) => existsSync(path))) return true;
  if (existsSync(test) && readdirSync(test).some((file) => file.endsWith(".test.ts"))) return true;
  return [`test-${command}.mjs`, `${command}.mjs`].some((file) => existsSync(join(root, "scripts", file)));
}

/** What is wrong with an essay. */
function faultsOf(essay: string): string[] {
  const blocks = blocksOf(essay).filter(({ section }) => !WITHOUT_CLAIMS.includes(section));
  const faults = blocks.flatMap((block) => {
    const mark = markOf(block);
    const where = `line ${block.line}, "${block.text.slice(0, 40)}"`;
    // "…leaves a door open:" is proved by what follows.
    if (mark === null) return block.text.endsWith(":") ? [] : [`${where}: no mark`];
    return mark.flatMap((part) => {
      if (UNTESTED.test(part)) return [];
      if (!NAME.test(part)) return [`${where}: "${part}" is no name`];
      return isThere(part) ? [] : [`${where}: there is no ${part}`];
    });
  });
  for (const section of new Set(blocks.map((block) => block.section))) {
    const marks = blocks.flatMap((block) => (block.section === section ? (markOf(block) ?? []) : []));
    if (marks.length === 0) faults.push(`"${section}": no claim`);
  }
  return faults;
}

const essay = readFileSync(join(root, "docs/design.md"), "utf8");

describe("docs/design.md", () => {
  it("says of each claim how it is proved, and names what is there", () => {
    expect(blocksOf(essay).length).toBeGreaterThan(200);
    expect(faultsOf(essay)).toEqual([]);
  });

  it("names what was tested more often than what was not", () => {
    const marks = blocksOf(essay).flatMap((block) => (markOf(block) === null ? [] : [markOf(block) ?? []]));
    const untested = marks.filter((mark) => mark.every((part) => UNTESTED.test(part)));
    expect(untested.length / marks.length).toBeLessThan(0.2);
  });

  it("calls no two sections the same", () => {
    const sections = essay.split("\n").filter((line) => line.startsWith("#"));
    expect(sections).toEqual([...new Set(sections)]);
  });
});

describe("a claim", () => {
  const faults = (text: string) => faultsOf(`# Design\n\nWhat it is about.\n\n## Locks\n\n${text}\n`);

  it.each([
    ["a paragraph", "It holds. [lock/record]"],
    ["one of several lines", "It holds,\nas `[::]` shows.\n[lock/record, portable/lock]"],
    ["a list", "Two things:\n\n- It holds. [native]\n- It\n  ends. [bench; not tested: measured (µs, and more)]"],
    ["a table", "| a | b |\n|---|---|\n| it | holds [handover] |"],
    ["one without a test", "It holds. [not tested: read]"],
    ["commands", "It holds. [test:packed, platforms]"],
  ])("is proved: %s", (_, text) => {
    expect(faults(text)).toEqual([]);
  });

  it.each([
    ["a paragraph", "It holds.", "no mark"],
    ["the second item", "- It holds. [lock/record]\n- It ends.", "no mark"],
    ["a row", "| a | b |\n|---|---|\n| it | holds |", "no mark"],
    ["a mark that is not at the end", "It holds [lock/record] for ever.", "no mark"],
    ["a test that is not there", "It holds. [lock/recrod]", "there is no lock/recrod"],
    ["the second of two", "It holds. [lock/record, lock/recrod]", "there is no lock/recrod"],
    ["a directory without tests", "It holds. [fixtures]", "there is no fixtures"],
    ["a command that is not there", "It holds. [test:nothing]", "there is no test:nothing"],
    ["no reason", "It holds. [not tested]", '"not tested" is no name'],
    ["a reason that is none", "It holds. [not tested: hoped]", '"not tested: hoped" is no name'],
    ["nothing but an announcement", "As follows:", "no claim"],
  ])("is not: %s", (_, text, fault) => {
    expect(faults(text)[0]).toContain(fault);
  });
});
