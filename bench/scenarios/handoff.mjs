// Each waits for the one before: from a release to the next owner.

import { absence, CONTENDERS, Crew, OverlapProof } from "../harness/crew.mjs";
import { summarizeTimes } from "../harness/samples.mjs";

export const name = "handoff";
export const seconds = { full: 96, quick: 17, smoke: 2 };

const MS = 1e6; // ns
/** How long one holds it, and pauses before it asks again: the next one is to have it first. */
const TURN = { section: 2 * MS, pause: MS };
/** They look every 10 ms. With shorter turns, only those would count who happened to look at the right moment. */
const TURN_OF_POLLERS = { section: 20 * MS, pause: 12 * MS };
const POLLERS = ["proper-lockfile", "lockfile"];
/** How much longer their blocks are. */
const PATIENCE = 3;

const PLAN = {
  full: { counts: [2, 8], duration: 1000, rounds: 3, ours: 6 },
  quick: { counts: [2, 8], duration: 300, rounds: 1, ours: 3 },
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
    "Counted where the next owner was waiting already. Holders sleep for 2 ms, and pause for 1 ms before they ask again; for 20 ms and 12 ms with proper-lockfile and lockfile, which look every 10 ms.",
  );
}

async function measureBeside(bench, { counts, duration, rounds, ours }, subject, floor) {
  const isOurs = subject.crew.subject === "gateway-lock";
  const isPoller = POLLERS.includes(subject.crew.subject);
  const turn = isPoller ? { ...TURN_OF_POLLERS, duration: duration * PATIENCE } : { ...TURN, duration };
  await subject.crew.block(counts[0], { ...turn, duration: turn.duration / 2 });
  for (const count of counts) {
    const found = { subject: [], floor: [] };
    for (let round = 0; round < (isOurs ? ours : rounds); round++) {
      const sides = [["subject", subject]];
      // Its figures come from blocks next to ours.
      if (isOurs) sides.push(["floor", floor]);
      if (round % 2 === 1) sides.reverse();
      for (const [side, { crew, proof }] of sides) {
        bench.progress.at(`${count} processes`, crew.subject);
        const block = await crew.block(count, turn);
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
