// The processes of one subject that contend for one file: started once, used for every block.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { flockCommand } from "../peers/index.mjs";
import { countOverlaps, handoffs, jain, mergeTurns } from "./intervals.mjs";
import { Child, endAll, startNode } from "./processes.mjs";

const MS = 1e6; // ns
const HEAD_START = 20; // ms, for all to read their line before the start
/** Of one process, were it alone with another one: two of them are compiled at a time. */
const WARM_UP = 60; // ms
const PATIENCE = 60_000; // ms, also for 64 processes of Node to start

const contender = fileURLToPath(new URL("contender.mjs", import.meta.url));

/** Who can be in a crew, and wait. */
export const CONTENDERS = [
  "gateway-lock",
  "fs-ext",
  "fs-native-extensions",
  "os-lock",
  "proper-lockfile",
  "lockfile",
  "flock(1)",
];

/** Why one can't take part; null if it can. */
export function absence(subject) {
  return subject === "flock(1)" && flockCommand() === null ? "there is no flock(1) here" : null;
}

export class Crew {
  #children = [];

  constructor(bench, subject) {
    this.subject = subject;
    this.bench = bench;
    this.path = bench.temporary.name("contended");
    this.logs = bench.temporary.directory("turns");
  }

  async start(count) {
    for (let i = 0; i < count; i++) this.#children.push(this.#startOne(i));
    // Programs in C are there at once.
    if (this.subject === "floor" || this.subject === "flock(1)") return;
    await Promise.all(this.#children.map((child) => child.next(PATIENCE)));
    const warmUp = (child, i) => child.ask(`warm ${this.path}-${i} ${(WARM_UP * count) / 2}`, PATIENCE);
    await Promise.all(this.#children.map(warmUp));
  }

  #startOne(i) {
    const what = `contender ${i} of ${this.subject}`;
    if (this.subject === "floor") return new Child(what, this.bench.floor, ["contend"]);
    if (this.subject === "flock(1)") return new Child(what, this.bench.floor, ["contend-by-command"]);
    return startNode(what, contender, [this.subject]);
  }

  /** `count` of them take turns for `duration` ms; `section` and `pause` in ns. */
  async block(count, { duration, section, pause = 0 }) {
    const start = process.hrtime.bigint() + BigInt(Math.round((HEAD_START + count) * MS));
    const logOf = (i) => `${this.logs}/${i}`;
    const answers = await Promise.all(
      this.#children.slice(0, count).map((child, i) => {
        const words = [this.path, start, duration * MS, section, pause, logOf(i)];
        return child.ask(`block ${words.join(" ")}`, duration + PATIENCE);
      }),
    );
    const logs = answers.map((_, i) => turnsIn(logOf(i)));
    const turns = mergeTurns(logs, start);
    const inTime = turns.filter(({ acquired }) => acquired < duration * MS);
    const shares = Array.from({ length: count }, () => 0);
    for (const { owner } of inTime) shares[owner]++;
    return {
      checked: turns.length,
      overlaps: countOverlaps(turns),
      rate: (inTime.length * 1000) / duration,
      waits: inTime.map(({ asked, acquired }) => acquired - asked),
      handoffs: handoffs(inTime),
      fairness: jain(shares),
      cpu: answers.reduce((sum, { cpu }) => sum + cpu, 0) / Math.max(1, turns.length),
    };
  }

  end() {
    return endAll(this.#children.splice(0));
  }
}

function turnsIn(path) {
  const bytes = readFileSync(path);
  return new BigInt64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

/** Adds up what blocks have proved. */
export class OverlapProof {
  #checked = 0;
  #violations = 0;

  add({ checked, overlaps }) {
    this.#checked += checked;
    this.#violations += overlaps;
  }

  of(subject) {
    const claim = "no two critical sections overlap";
    return { claim, subject, checked: this.#checked, violations: this.#violations };
  }
}
