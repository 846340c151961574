// Proves that the judge of test:chaos sees two owners, and excuses only what a vandal has made possible.

import { expect, it } from "vitest";
import { judge, lastDeeds, NOTICE } from "./judge.mjs";

const CONFIG = "/elsewhere/shared.json";
const STATE = ["directory /state", "config /state/gateway.json", "port 1"];
const SHARED = ["directory /state", `config ${CONFIG}`, "port 1"];
const OTHER = ["directory /other", `config ${CONFIG}`, "port 2"];

interface Life {
  readonly pid: number;
  readonly from: number;
  readonly to: number;
  readonly resources: readonly string[];
  readonly acquiring?: number;
  readonly run?: string;
  readonly by?: string;
}

function lives(...all: Life[]): object[] {
  return all.flatMap(({ pid, from, to, resources, acquiring = from, ...more }) => [
    { at: acquiring, pid, event: "acquire" },
    { at: from, pid, event: "own", id: `${pid}.0`, resources, ...more },
    { at: to, pid, event: "beat", id: `${pid}.0` },
  ]);
}

function found(...entries: object[]): { pairs: number; exposed: number } {
  const sorted = (entries as { at: number }[]).sort((a, b) => a.at - b.at);
  const { violations, exposed } = judge(sorted);
  return { pairs: violations.length, exposed };
}

const NONE = { pairs: 0, exposed: 0 };

it("sees nothing in owners that follow each other, or own different things", () => {
  const first = { pid: 1, from: 0, to: 10, resources: STATE };
  expect(found(...lives(first, { pid: 2, from: 11, to: 20, resources: STATE }))).toEqual(NONE);
  const different = ["directory /other", "config /other/gateway.json", "port 2"];
  expect(found(...lives(first, { pid: 2, from: 5, to: 20, resources: different }))).toEqual(NONE);
});

it("sees an overlap of a directory, a config or a port, also with one that has begun long before", () => {
  const first = { pid: 1, from: 0, to: 100, resources: STATE };
  for (const resource of STATE) {
    expect(found(...lives(first, { pid: 2, from: 50, to: 60, resources: [resource] })), resource).toMatchObject({
      pairs: 1,
    });
  }
  const later = [20, 40, 60].map((from, index) => ({ pid: 2 + index, from, to: from + 1, resources: ["port 1"] }));
  expect(found(...lives(first, ...later))).toMatchObject({ pairs: 3 });
});

it("takes a killed owner's last act for its end, not a beat of a later life", () => {
  const again = { pid: 1, from: 30, to: 40, resources: STATE };
  const entries = lives({ pid: 1, from: 0, to: 10, resources: STATE }, { pid: 2, from: 11, to: 20, resources: STATE });
  expect(found(...entries, ...lives(again).map((entry) => ("id" in entry ? { ...entry, id: "1.1" } : entry)))).toEqual(
    NONE,
  );
});

const wiped = (at: number) => ({ at, pid: 9, event: "vandal", configs: [CONFIG] });
const owner = { pid: 1, from: 0, to: NOTICE, resources: SHARED };
const rival = { pid: 2, from: 20, to: 30, resources: OTHER };

it("excuses two owners of a config whose lock file was deleted, for as long as that may go unnoticed", () => {
  expect(found(...lives(owner, rival))).toEqual({ pairs: 1, exposed: 0 });
  expect(found(...lives(owner, rival), wiped(10))).toEqual({ pairs: 0, exposed: 1 });
  expect(found(...lives({ ...owner, to: NOTICE + 11 }, rival), wiped(10))).toEqual({ pairs: 1, exposed: 0 });
});

it("excuses neither a deletion that came later, nor one before the owner had begun, nor another config's", () => {
  expect(found(...lives(owner, rival), wiped(25))).toEqual({ pairs: 1, exposed: 0 });
  expect(found(...lives({ ...owner, acquiring: 0 }, rival), wiped(-1))).toEqual({ pairs: 1, exposed: 0 });
  const elsewhere = { ...wiped(10), configs: ["/state/gateway.json"] };
  expect(found(...lives(owner, rival), elsewhere)).toEqual({ pairs: 1, exposed: 0 });
});

it("excuses a deletion between an owner's locks and its first word", () => {
  expect(found(...lives({ ...owner, acquiring: 0, from: 25 }, rival), wiped(10))).toEqual({ pairs: 0, exposed: 1 });
});

it("excuses nothing that concerns a state directory or a port", () => {
  const same = { ...rival, resources: ["directory /state", `config ${CONFIG}`] };
  expect(found(...lives(owner, same), wiped(10))).toEqual({ pairs: 1, exposed: 1 });
});

it("expects no notice of the program of a `run` that was killed", () => {
  const program = { ...owner, to: 10 * NOTICE, run: "7" };
  expect(found(...lives(program, rival), wiped(10))).toEqual({ pairs: 1, exposed: 0 });
  const orphaned = { at: 15, pid: 9, event: "orphaned", run: "7" };
  expect(found(...lives(program, rival), wiped(10), orphaned)).toEqual({ pairs: 0, exposed: 1 });
});

it("lets strangers have one loopback each, and no gateway beside one", () => {
  const stranger = { pid: 1, from: 0, to: 10, resources: ["port 1"], by: "a stranger on ::1" };
  expect(found(...lives(stranger, { ...stranger, pid: 2, from: 5 }))).toEqual(NONE);
  expect(found(...lives(stranger, { pid: 2, from: 5, to: 9, resources: STATE }))).toMatchObject({ pairs: 1 });
});

it("knows where each process was when it was killed", () => {
  const deeds = lastDeeds([
    { at: 0, pid: 1, event: "born" },
    { at: 1, pid: 1, event: "acquire" },
    { at: 2, pid: 2, event: "own", id: "2.0" },
    { at: 3, pid: 2, event: "disown", id: "2.0" },
    { at: 4, pid: 9, event: "vandal" },
  ]);
  expect([...deeds]).toEqual([
    [1, "inside acquire"],
    [2, "inside close"],
  ]);
});
