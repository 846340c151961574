// Proves that a goal is met, missed or not measured by the figures alone, and that each of its conditions is told by itself.

import { describe, expect, it } from "vitest";
import { goals } from "../../bench/report/goals.mjs";
import { type Measurement, measurementIn, type Results, someResults } from "../support/bench-results.ts";

function goal(results: Results, id: string) {
  const found = goals(results).find((one) => one.id === id);
  if (found === undefined) throw new Error(`no goal ${id}`);
  return found;
}

function bare(results: Results, subject: string): Measurement {
  return measurementIn(results, "uncontended", "bare lock", "acquire + release", subject);
}

function contended(results: Results, processes: number, metric: string, subject = "gateway-lock"): Measurement {
  return measurementIn(results, "contention", `${processes} processes, section 0`, metric, subject);
}

it("has the eight goals, in the order of the scenarios", () => {
  const ids = goals(someResults()).map(({ id }) => id);
  expect(ids).toEqual(["bare", "gateway", "refusal", "handoff", "throughput", "failover", "restart", "weight"]);
});

it("is met by figures within every limit", () => {
  const missed = goals(someResults()).filter(({ met }) => met !== true);
  expect(missed).toEqual([]);
});

it("says of what was not measured that it was not, and neither that it was met nor missed", () => {
  for (const { met, value, sentence } of goals({})) {
    expect(met).toBeNull();
    expect(value).toContain("not measured");
    expect(sentence).toContain("not measured");
  }
  const { uncontended } = someResults();
  expect(goals({ uncontended }).filter(({ met }) => met === true).length).toBe(2);
});

it("does not take a missing measurement for a figure", () => {
  const results = someResults();
  const floor = bare(results, "floor");
  delete floor.median;
  floor.missing = "no compiler";
  expect(goal(results, "bare").conditions.map(({ met }: { met: boolean | null }) => met)).toEqual([null, true]);
  expect(goal(results, "bare").met).toBeNull();
});

describe("bare", () => {
  it("tells both conditions, with the fastest peer", () => {
    const { conditions } = goal(someResults(), "bare");
    expect(conditions.map(({ value }: { value: string }) => value)).toEqual([
      "1.33× (12 µs against 9 µs)",
      "fastest peer fs-ext: 1.08× ours",
    ]);
  });

  it("is missed above 1.5 times the floor", () => {
    const results = someResults();
    bare(results, "floor").median = 7.9;
    expect(goal(results, "bare")).toMatchObject({ met: false });
    expect(goal(results, "bare").sentence).toContain("more than the limit of 1.5×");
  });

  it("is missed if any peer is as fast, and names it", () => {
    const results = someResults();
    bare(results, "os-lock").median = 12;
    expect(goal(results, "bare").met).toBe(false);
    expect(goal(results, "bare").sentence).toContain("os-lock is not slower");
  });

  it("does not compare with what is no peer", () => {
    const results = someResults();
    bare(results, "flock only").median = 0.1;
    bare(results, "gateway-lock (sync)").median = 0.1;
    expect(goal(results, "bare").met).toBe(true);
  });
});

it("adds http.Server.listen to the floor of a gateway", () => {
  const results = someResults();
  const listen = measurementIn(results, "uncontended", "gateway", "acquire + close", "net.Server.listen");
  expect(goal(results, "gateway").value).toBe("1.41× (480 µs against 340 µs)");
  listen.median = 29;
  expect(goal(results, "gateway").met).toBe(false);
});

describe("throughput", () => {
  it.each([2, 64])("lets the worst number of processes decide: %i", (processes) => {
    const results = someResults();
    contended(results, processes, "acquisitions", "floor").median = 1e6;
    const [toFloor] = goal(results, "throughput").conditions;
    expect(toFloor.met).toBe(false);
    expect(toFloor.value).toContain(`at ${processes} processes`);
  });

  it("names the nearest peer", () => {
    const results = someResults();
    contended(results, 16, "acquisitions", "proper-lockfile").median = 1e6;
    const [, toPeers] = goal(results, "throughput").conditions;
    expect(toPeers.met).toBe(false);
    expect(toPeers.value).toMatch(/proper-lockfile at 16 processes$/);
  });

  it("is missed where some get too little", () => {
    const results = someResults();
    contended(results, 32, "fairness").median = 0.89;
    expect(goal(results, "throughput").value).toContain("0.89 at 32 processes");
    expect(goal(results, "throughput").met).toBe(false);
  });

  it("is about section 0 alone", () => {
    const results = someResults();
    measurementIn(results, "contention", "8 processes, section 1 ms", "acquisitions", "gateway-lock").median = 1;
    expect(goal(results, "throughput").met).toBe(true);
  });
});

describe("failover", () => {
  const of = (results: Results, subject: string) =>
    measurementIn(results, "failover", "SIGKILL to HTTP answer", "failover", subject);

  it("may take 20 ms more than flock(1)", () => {
    const results = someResults();
    of(results, "gateway-lock").median = 26;
    expect(goal(results, "failover").conditions[0].met).toBe(true);
    of(results, "gateway-lock").median = 26.1;
    expect(goal(results, "failover").conditions[0].met).toBe(false);
  });

  it("has every peer with a staleness timer 50 times slower", () => {
    const results = someResults();
    of(results, "lockfile").median = 199;
    expect(goal(results, "failover").met).toBe(false);
    expect(goal(results, "failover").sentence).toContain("lockfile takes 49.8×");
  });

  it("has it so in whatever way that is set", () => {
    const results = someResults();
    of(results, "proper-lockfile (stale 2 s)").median = 199;
    expect(goal(results, "failover").sentence).toContain("proper-lockfile (stale 2 s) takes 49.8×");
    expect(goal(results, "failover").met).toBe(false);
  });
});

describe("restart", () => {
  const of = (results: Results, metric: string) =>
    measurementIn(results, "restart", "clients connected", metric, "gateway-lock");

  it("is missed by a single refused bind", () => {
    const results = someResults();
    of(results, "refused binds").median = 1;
    expect(goal(results, "restart")).toMatchObject({ met: false, value: "1 in 100" });
  });

  it("does not take 20 restarts for a hundred", () => {
    const results = someResults();
    of(results, "restarts").median = 20;
    expect(goal(results, "restart")).toMatchObject({ met: null, value: "0 in 20: too few to tell" });
  });
});

it("weighs at most 3,000,000 bytes and 15 ms", () => {
  const results = someResults();
  const memory = measurementIn(results, "weight", "import", "resident memory", "gateway-lock");
  memory.median = 3_000_000;
  expect(goal(results, "weight").met).toBe(true);
  memory.median = 3_000_001;
  expect(goal(results, "weight").met).toBe(false);
  memory.median = 1;
  measurementIn(results, "weight", "import", "import", "gateway-lock").median = 15.1;
  expect(goal(results, "weight")).toMatchObject({ met: false, value: "15.1 ms; 1 B" });
});
