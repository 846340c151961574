// Proves that whichever side dies or stops, at each step of a handover, the other one has all of the gateway or the first one still has it; never both, and
// never a state in which nobody could start.

import { get } from "node:http";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect } from "vitest";
import { readOwner } from "../../lib/lock/record.ts";
import { isLinux, itWhere } from "../support/capabilities.ts";
import { lockFilesIn } from "../support/gateways.ts";
import { startFixture, type TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux, "needs procfs");

type Side = "owner" | "successor";
/** Who has it in the end. `nobody`: the successor had it already when it died. */
type Heir = Side | "nobody";

interface Case {
  readonly side: Side;
  readonly step: string;
  readonly heir: Heir;
}

interface Row extends Case {
  /** ms */
  readonly longestWait: number;
  readonly failures: Readonly<Record<string, number>>;
}

const DEATHS: readonly Case[] = [
  // Nothing was given yet: the kernel frees what the owner had, and the successor takes that as anybody could.
  { side: "owner", step: "asked", heir: "successor" },
  { side: "owner", step: "drained", heir: "successor" },
  { side: "owner", step: "written", heir: "successor" },
  // The successor has it all, and sees that the owner has gone without a word.
  { side: "owner", step: "sent", heir: "successor" },
  { side: "owner", step: "confirmed", heir: "successor" },
  { side: "owner", step: "released", heir: "successor" },
  { side: "successor", step: "connected", heir: "owner" },
  { side: "successor", step: "draining", heir: "owner" },
  { side: "successor", step: "received", heir: "owner" },
  { side: "successor", step: "checked", heir: "owner" },
  { side: "successor", step: "taken", heir: "owner" },
  { side: "successor", step: "published", heir: "owner" },
  { side: "successor", step: "confirmed", heir: "nobody" },
];

const STOPS: readonly Case[] = [
  { side: "owner", step: "asked", heir: "owner" },
  { side: "owner", step: "written", heir: "owner" },
  { side: "owner", step: "sent", heir: "successor" },
  { side: "owner", step: "confirmed", heir: "successor" },
  { side: "successor", step: "draining", heir: "owner" },
  { side: "successor", step: "received", heir: "owner" },
  { side: "successor", step: "checked", heir: "owner" },
  { side: "successor", step: "taken", heir: "successor" },
  { side: "successor", step: "published", heir: "successor" },
];

/** Clients with a connection each, one after the other. */
class Visitor {
  readonly failures: Record<string, number> = {};
  longestWait = 0;
  last = 0;
  #runs = true;
  readonly #ended: Promise<void>;

  constructor(port: number) {
    this.#ended = this.#run(port);
  }

  async #run(port: number): Promise<void> {
    while (this.#runs) {
      const began = performance.now();
      const answer = await visit(port);
      if (typeof answer === "number") {
        this.last = answer;
        this.longestWait = Math.max(this.longestWait, performance.now() - began);
      } else {
        this.failures[answer] = (this.failures[answer] ?? 0) + 1;
        await delay(1);
      }
    }
  }

  async stop(): Promise<void> {
    this.#runs = false;
    await this.#ended;
  }
}

/** The pid of who answers, or how it failed. */
function visit(port: number): Promise<number | string> {
  return new Promise((resolve) => {
    const request = get({ port, host: "127.0.0.1", agent: false, timeout: 15_000 }, (response) => {
      let body = "";
      response.on("data", (data) => {
        body += data;
      });
      response.on("end", () => resolve(Number(body)));
      response.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    request.on("timeout", () => request.destroy());
  });
}

/** Resolves when the visitor is answered by `pid`. */
async function answeredBy(pid: number, visitor: Visitor): Promise<void> {
  for (let tries = 0; visitor.last !== pid; tries++) {
    if (tries > 3000) throw new Error(`pid ${pid} does not answer, but ${visitor.last}`);
    await delay(5);
  }
}

async function acquired(process: TestProcess): Promise<void> {
  const { event, message } = await process.next("acquired", "refused");
  expect({ event, message }).toEqual({ event: "acquired" });
}

interface Scene {
  readonly stateDir: string;
  readonly port: number;
  start(more?: object): TestProcess;
}

async function scene(): Promise<Scene> {
  const stateDir = temporaryDirectory();
  const options = { stateDir, port: await freePort() };
  return {
    stateDir,
    port: options.port,
    start: (more = {}) => startFixture("handover-gateway.mjs", { options, ...more }),
  };
}

/** The heir alone is the owner, by the kernel and by the record, serves, and can be handed over; at the end nothing is left. */
async function expectWhole({ stateDir, port, start }: Scene, heir: TestProcess, visitor: Visitor): Promise<void> {
  await answeredBy(heir.pid, visitor);
  await visitor.stop();
  const { record, holders, torn } = readOwner(join(stateDir, "locks/gateway.state.lock"));
  expect(torn).toBe(false);
  expect(record).toMatchObject({ pid: heir.pid, phase: "ready" });
  expect(holders).toEqual([heir.pid]);
  const next = start();
  await acquired(next);
  await heir.next("handed-over");
  await heir.exited;
  expect(await visit(port)).toBe(next.pid);
  next.send("close");
  await next.next("closed");
  expect(lockFilesIn(stateDir)).toEqual([]);
}

async function die({ side, step, heir }: Case, stage: Scene): Promise<Row> {
  const stopAt = `${side} ${step}`;
  const owner = stage.start(side === "owner" ? { stopAt } : {});
  await acquired(owner);
  const visitor = new Visitor(stage.port);
  await answeredBy(owner.pid, visitor);
  const successor = stage.start(side === "successor" ? { stopAt } : {});
  const victim = side === "owner" ? owner : successor;
  expect(await victim.exited).toEqual({ code: null, signal: "SIGKILL" });
  if (heir === "nobody") {
    await owner.exited;
    const third = stage.start();
    await acquired(third);
    await expectWhole(stage, third, visitor);
  } else {
    if (heir === "successor") await acquired(successor);
    else if (step !== "connected") await owner.next("owner resumed");
    await expectWhole(stage, heir === "owner" ? owner : successor, visitor);
  }
  return { side, step, heir, longestWait: visitor.longestWait, failures: visitor.failures };
}

/** It is stopped at that step, and goes on when the other side has decided. */
async function freeze({ side, step, heir }: Case, stage: Scene): Promise<Row> {
  const stop = { stopAt: `${side} ${step}`, signal: "SIGSTOP" };
  const owner = stage.start(side === "owner" ? stop : {});
  await acquired(owner);
  const visitor = new Visitor(stage.port);
  await answeredBy(owner.pid, visitor);
  const successor = stage.start(side === "successor" ? stop : {});
  if (side === "owner" && heir === "owner") {
    const { code, message } = await successor.next("refused");
    expect(code).toBe("HANDOVER_FAILED");
    expect(message).toBe("the running gateway did not hand over: the other process says nothing");
  } else if (side === "owner") await acquired(successor);
  else if (heir === "owner") await owner.next("owner resumed");
  else await owner.next("handed-over");
  (side === "owner" ? owner : successor).child.kill("SIGCONT");
  if (side === "successor" && heir === "owner") expect((await successor.next("refused")).code).toBe("HANDOVER_FAILED");
  else if (side === "successor") await acquired(successor);
  else if (heir === "owner") await owner.next("owner resumed");
  else await owner.next("handed-over");
  await expectWhole(stage, heir === "owner" ? owner : successor, visitor);
  return { side, step, heir, longestWait: visitor.longestWait, failures: visitor.failures };
}

async function all(cases: readonly Case[], atOnce: number, play: (each: Case, stage: Scene) => Promise<Row>) {
  const rows: Row[] = [];
  for (let first = 0; first < cases.length; first += atOnce) {
    const batch: Promise<Row>[] = [];
    for (const each of cases.slice(first, first + atOnce)) batch.push(play(each, await scene()));
    rows.push(...(await Promise.all(batch)));
  }
  const lines = rows.map(({ side, step, heir, longestWait, failures }) =>
    [
      side,
      step,
      heir,
      `${longestWait.toFixed(0)} ms`,
      Object.entries(failures)
        .map(([name, count]) => `${count} ${name}`)
        .join(", ") || "none",
    ].join(" | "),
  );
  console.log(["side | step | who owns afterwards | longest wait of a client | failed clients", ...lines].join("\n"));
  return rows;
}

describe("a handover, of which one side is killed at a step,", () => {
  it("leaves everything to the other one", async () => {
    const rows = await all(DEATHS, 4, die);
    // Only the death of who alone had the sockets is felt by clients.
    for (const { side, step, failures } of rows) {
      const isCrash = (side === "owner" && ["asked", "drained", "written"].includes(step)) || step === "confirmed";
      if (!isCrash) expect({ side, step, failures }).toEqual({ side, step, failures: {} });
    }
  }, 120_000);
});

describe("a handover, of which one side is stopped at a step,", () => {
  it("is over at a deadline, and whoever was stopped knows when it goes on", async () => {
    const rows = await all(STOPS, STOPS.length, freeze);
    for (const { side, step, failures } of rows) expect({ side, step, failures }).toEqual({ side, step, failures: {} });
  }, 120_000);
});
