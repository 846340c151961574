// Each waits for the one before: from a release to the next owner.

import { absence, CONTENDERS, Crew, OverlapProof } from "../harness/crew.mjs";
import { summarizeTimes } from "../harness/samples.mjs";

export const name = "handoff";
export const seconds = { full: 130, quick: 24, smoke: 5 };

const MS = 1e6; // ns
const HOLD = 2 * MS;
/** Until one asks again: the next one is to have it first. */
const PAUSE = MS;
/** Longer than they wait between two looks, or the only ones to be seen would be those who looked at the right moment. */
const PAUSE_OF_POLLERS = 12 * MS;
const POLLERS = ["proper-lockfile", "lockfile"];

const PLAN = {
  full: { counts: [2, 8], duration: 1000, rounds: 3, ours: 6 },
  quick: { counts: [2, 8], duration: 400, rounds: 1, ours: 3 },
  smoke: { counts: [2], duration: 60, rounds: 1, ours: 1 },
};

export async function run(bench) {
  const plan = PLAN[bench.mode];
  const floor = new Crew(bench, "floor");
  await floor.start(Math.max(...plan.counts));
  const floorProof = new OverlapProof();
  for (const subject of CONTENDERS) {
    const reason = absence(subject);
    if (reason !== null) {
      for (const count of plan.counts) bench.results.missing(where(count, subject), reason);
      continue;
    }
    const crew = new Crew(bench, subject);
    await crew.start(Math.max(...plan.counts));
    const proof = new OverlapProof();
    await measureBeside(bench, plan, { crew, proof }, { crew: floor, proof: floorProof });
    await crew.end();
    bench.results.proved(proof.of(subject));
  }
  await floor.end();
  bench.results.proved(floorProof.of("floor"));
  bench.results.note(
    "Counted where the next owner was waiting already. Holders sleep for 2 ms, and pause for 1 ms before they ask again; 12 ms with proper-lockfile and lockfile, which look every 10 ms.",
  );
}

async function measureBeside(bench, { counts, duration, rounds, ours }, subject, floor) {
  const isOurs = subject.crew.subject === "gateway-lock";
  const pause = POLLERS.includes(subject.crew.subject) ? PAUSE_OF_POLLERS : PAUSE;
  await subject.crew.block(counts[0], { duration: duration / 2, section: HOLD, pause });
  for (const count of counts) {
    const found = { subject: [], floor: [] };
    for (let round = 0; round < (isOurs ? ours : rounds); round++) {
      const sides = [["subject", subject]];
      // Its figures come from blocks next to ours.
      if (isOurs) sides.push(["floor", floor]);
      if (round % 2 === 1) sides.reverse();
      for (const [side, { crew, proof }] of sides) {
        bench.progress.at(`${count} processes`, crew.subject);
        const block = await crew.block(count, { duration, section: HOLD, pause });
        proof.add(block);
        found[side].push(block.handoffs);
      }
    }
    report(bench, count, subject.crew.subject, found.subject);
    if (isOurs) report(bench, count, "floor", found.floor);
  }
}

function where(processes, subject) {
  const parameters = { processes };
  return { case: `${processes} processes`, metric: "release to next owner", unit: "us", subject, parameters };
}

function report(bench, count, subject, batches) {
  if (batches.every((batch) => batch.length === 0)) {
    return bench.results.missing(where(count, subject), "the lock never went from one process to another that waited");
  }
  bench.results.measured(where(count, subject), summarizeTimes(batches, "us"));
}
