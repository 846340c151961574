// Many processes want one lock, and each takes it as often as it can.

import { absence, CONTENDERS, Crew, OverlapProof } from "../harness/crew.mjs";
import { summarize, summarizeTimes } from "../harness/samples.mjs";

export const name = "contention";
export const seconds = { full: 530, quick: 55, smoke: 2 };

const US = 1000; // ns
const SECTIONS = { 0: "0", 100: "100 us", 1000: "1 ms" };

/** Each may have its turn often enough to judge fairness: of more processes than this, blocks are longer in proportion. */
const CROWD = 8;

/** `ours`: rounds of gateway-lock, which the goals are about: each of its blocks has one of the floor before or after it. ms */
const PLAN = {
  full: { counts: [2, 4, 8, 16, 32, 64], sections: [0, 100, 1000], duration: 450, rounds: 2, ours: 4 },
  quick: { counts: [2, 8, 32], sections: [0, 100], duration: 200, rounds: 1, ours: 2 },
  smoke: { counts: [2], sections: [0], duration: 40, rounds: 1, ours: 1 },
};

export async function run(bench) {
  const plan = PLAN[bench.mode];
  const most = Math.max(...plan.counts);
  const floor = new Crew(bench, "floor");
  await floor.start(most);
  const floorProof = new OverlapProof();
  for (const subject of CONTENDERS) {
    const reason = absence(subject);
    if (reason !== null) {
      for (const combination of combinationsOf(plan)) reportMissing(bench, combination, subject, reason);
      continue;
    }
    bench.progress.at(`${most} processes start`, subject);
    const crew = new Crew(bench, subject);
    await crew.start(most);
    const proof = new OverlapProof();
    await measureBeside(bench, plan, { crew, proof }, { crew: floor, proof: floorProof });
    await crew.end();
    bench.results.proved(proof.of(subject));
  }
  await floor.end();
  bench.results.proved(floorProof.of("floor"));
  bench.results.note(
    "proper-lockfile and lockfile poll every 10 ms, their fastest sensible. flock(1) runs a program in C while it has the lock; its acquisitions include that.",
  );
}

function combinationsOf({ counts, sections }) {
  return counts.flatMap((processes) => sections.map((section) => ({ processes, section })));
}

/** Blocks of the floor and of gateway-lock in turn: A B, B A, …; the other subjects alone. */
async function measureBeside(bench, plan, subject, floor) {
  const isOurs = subject.crew.subject === "gateway-lock";
  const rounds = isOurs ? plan.ours : plan.rounds;
  await subject.crew.block(Math.max(...plan.counts), { duration: plan.duration / 2, section: 0 });
  const found = new Map(combinationsOf(plan).map((combination) => [combination, { subject: [], floor: [] }]));
  for (let round = 0; round < rounds; round++) {
    for (const [combination, blocks] of found) {
      const { processes, section } = combination;
      const sides = [["subject", subject]];
      if (isOurs) sides.push(["floor", floor]);
      if (round % 2 === 1) sides.reverse();
      for (const [side, { crew, proof }] of sides) {
        bench.progress.at(caseOf(combination), crew.subject);
        const duration = plan.duration * Math.max(1, processes / CROWD);
        const block = await crew.block(processes, { duration, section: section * US });
        proof.add(block);
        blocks[side].push(block);
      }
    }
  }
  for (const [combination, blocks] of found) {
    reportBlocks(bench, combination, subject.crew.subject, blocks.subject);
    if (isOurs) reportBlocks(bench, combination, "floor", blocks.floor);
  }
}

function caseOf({ processes, section }) {
  return `${processes} processes, section ${SECTIONS[section]}`;
}

const METRICS = { acquisitions: "1/s", wait: "us", fairness: "ratio", "CPU per acquisition": "us" };

function reportMissing(bench, combination, subject, reason) {
  for (const [metric, unit] of Object.entries(METRICS)) {
    bench.results.missing({ case: caseOf(combination), metric, unit, subject, parameters: combination }, reason);
  }
}

function reportBlocks(bench, combination, subject, blocks) {
  const where = (metric) => ({
    case: caseOf(combination),
    metric,
    unit: METRICS[metric],
    subject,
    parameters: combination,
  });
  const each = (value) => summarize(blocks.map((block) => [value(block)]));
  if (blocks.every(({ rate }) => rate === 0)) {
    return reportMissing(bench, combination, subject, "nobody got the lock within a block");
  }
  const rates = each(({ rate }) => rate);
  bench.results.measured(where("acquisitions"), rates, "more");
  const waits = blocks.map(({ waits }) => waits);
  bench.results.measured(where("wait"), summarizeTimes(waits, "us"));
  const fairness = each(({ fairness }) => fairness);
  bench.results.measured(where("fairness"), fairness, "more");
  const cpu = each(({ cpu }) => cpu);
  bench.results.measured(where("CPU per acquisition"), cpu);
}
