// Proves that nobody notices a handover: under load, one after the other, no request fails and no connection is refused; and the state directory
// has one writer at any time, and its locks an owner.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux && hasPython, "needs python3 on Linux");
const HANDOVERS = 10;
/** Answers, of all clients together. `GATEWAY_LOCK_REQUESTS=100000` for the long form. */
const REQUESTS = Number(process.env.GATEWAY_LOCK_REQUESTS ?? 8000);

interface Entry {
  readonly pid: number;
  readonly word: "begin" | "tick" | "end";
  readonly at: number;
}

/** From the first to the last entry of each owner, in the order in which they wrote. */
function intervalsIn(journal: string): { pid: number; first: number; last: number; ended: boolean }[] {
  const intervals: { pid: number; first: number; last: number; ended: boolean }[] = [];
  for (const line of readFileSync(journal, "utf8").trim().split("\n")) {
    const { pid, word, at } = JSON.parse(line) as Entry;
    const current = intervals.find((interval) => interval.pid === pid);
    if (current === undefined) intervals.push({ pid, first: at, last: at, ended: false });
    else Object.assign(current, { last: at, ended: word === "end" });
  }
  return intervals;
}

describe("ten handovers in a row under load", () => {
  it("lose no request, refuse nobody, and leave the state directory one writer at any time", async () => {
    const stateDir = temporaryDirectory();
    const journal = join(stateDir, "journal");
    const options = { stateDir, port: await freePort() };
    const start = () => startFixture("handover-gateway.mjs", { options, journal, quiet: true });
    let owner = start();
    await owner.next("acquired");

    const locks = ["", "locks/gateway.state.lock"].map((name) => join(stateDir, name));
    const rival = new TestProcess("python3", [fixturePath("handover-rival.py"), ...locks]);
    await rival.next("trying");
    const clients = startFixture("handover-clients.mjs", { port: options.port, connections: 10, sockets: 5, fresh: 3 });
    await clients.next("started");

    const untilAnswered = async (count: number) => {
      for (;;) if ((await clients.next("progress")).requests >= count) return;
    };
    for (let handover = 1; handover <= HANDOVERS; handover++) {
      await untilAnswered((handover / (HANDOVERS + 1)) * REQUESTS);
      const successor = start();
      await successor.next("acquired");
      await owner.next("handed-over");
      expect(await owner.exited).toEqual({ code: 0, signal: null });
      owner = successor;
    }
    await untilAnswered(REQUESTS);
    clients.send("rest");
    const { requests, autocannon, websockets, fresh } = await clients.next("rest");
    rival.child.stdin?.end();
    const { tries, got } = await rival.next("tried");
    owner.send("close");
    await owner.next("closed");

    console.log(
      `${HANDOVERS} handovers, ${requests} answers: ${JSON.stringify({ autocannon, websockets, fresh, rival: { tries, got } })}`,
    );
    expect(requests).toBeGreaterThanOrEqual(REQUESTS);
    expect(autocannon).toMatchObject({ failed: 0, timeouts: 0, non2xx: 0, mismatches: 0, errors: {} });
    expect(fresh).toMatchObject({ failures: {}, pids: HANDOVERS + 1 });
    expect(websockets.failures).toEqual({});
    expect(websockets.opened).toBeGreaterThanOrEqual(5 * HANDOVERS);
    expect(tries).toBeGreaterThan(0);
    expect(got).toEqual([]);

    const intervals = intervalsIn(journal);
    expect(intervals).toHaveLength(HANDOVERS + 1);
    for (const [index, { ended, last }] of intervals.entries()) {
      expect(ended).toBe(true);
      const next = intervals[index + 1];
      if (next !== undefined) expect(next.first).toBeGreaterThan(last);
    }
  }, 300_000);
});
