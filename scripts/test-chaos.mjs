// Kills gateways, waiters, standbys and both sides of handovers at random points, thousands of times, while somebody spoils their lock files, and judges by
// their own journals whether two ever owned the same.

import { spawn, spawnSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { randomSeed, readArguments } from "./arguments.mjs";
import { interrupted } from "./interruption.mjs";

const USAGE = `npm run test:chaos                        10,000 kills: some twenty minutes on two processors
npm run test:chaos -- --kills 500         as CI does
npm run test:chaos -- --seed 4711         the same choices again; what the kernel makes of them may differ
npm run test:chaos -- --round 815         one round, by the seed that a failure names

  --seconds N   ends after so long, with what it has (default 1800)

A round is 60 kills, and each processor plays its own: there may be some more than were asked for. "exposed" counts the owners of one config whose lock file
somebody had deleted, within the seconds in which that may be: see docs/proof.md.

Linux, and strace.`;

const { whole, fail } = readArguments("test-chaos", USAGE, {
  kills: { type: "string" },
  seed: { type: "string" },
  round: { type: "string" },
  seconds: { type: "string" },
});
const seed = whole("seed", randomSeed());
const kills = whole("kills", 10_000);
const onlyRound = whole("round");
const end = performance.now() + whole("seconds", 1800) * 1000;
if (kills === 0) fail("--kills is at least 1");
if (process.platform !== "linux" || spawnSync("strace", ["-V"]).error !== undefined)
  fail("this needs Linux and strace");

/** For each kill. */
const LEAST_OWNERSHIPS = 0.1;
const totals = { rounds: 0, kills: 0, ownerships: 0, handovers: 0, refusals: 0, waits: 0, vandalisms: 0, exposed: 0 };
const points = {};
const kinds = {};
let failed = 0;
let nextRound = 0;

function add(into, from) {
  for (const [name, value] of Object.entries(from)) into[name] = (into[name] ?? 0) + value;
}

/** Rounds, one by one in one process, until there are enough. */
async function direct() {
  const director = spawn(process.execPath, [fileURLToPath(new URL("../test/chaos/director.mjs", import.meta.url))], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  // It ends its round first.
  interrupted.addEventListener("abort", () => director.kill());
  const answers = createInterface({ input: director.stdout })[Symbol.asyncIterator]();
  while (failed === 0 && totals.kills < kills && performance.now() < end && !interrupted.aborted) {
    const round = onlyRound ?? (seed + nextRound++) % 2 ** 31;
    director.stdin.write(`${round}\n`);
    const { value, done } = await answers.next();
    if (interrupted.aborted) return;
    if (done) throw new Error(`the director of round ${round} has died`);
    report(JSON.parse(value));
    if (onlyRound !== undefined) break;
  }
  director.stdin.end();
}

function report({ seed: round, findings, root, errors, points: where, kinds: how, ...counts }) {
  add(totals, { rounds: 1, ...counts });
  add(points, where);
  add(kinds, how);
  if (findings.length > 0) {
    failed++;
    console.error(`\ntest-chaos: round ${round} (npm run test:chaos -- --round ${round}); its journal is in ${root}`);
    for (const finding of findings.slice(0, 20)) console.error(`- ${finding}`);
    if (errors) console.error(`what its processes have said:\n${errors}`);
  }
  if (totals.rounds % 10 === 0) progress();
}

function progress() {
  console.log(
    `test-chaos: ${totals.kills} of ${kills} kills, ${totals.ownerships} ownerships, ${failed} failed rounds`,
  );
}

console.log(onlyRound === undefined ? `test-chaos: seed ${seed}, ${kills} kills` : `test-chaos: round ${onlyRound}`);
const started = performance.now();
await Promise.all(Array.from({ length: onlyRound === undefined ? Math.max(2, availableParallelism()) : 1 }, direct));
const table = (counts) =>
  Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `  ${String(count).padStart(6)}  ${name}`)
    .join("\n");
if (interrupted.aborted) {
  console.error(`test-chaos: ${interrupted.reason.message} after ${totals.kills} kills`);
  process.exit();
}
console.log(
  `\ntest-chaos: seed ${onlyRound ?? seed}, in ${Math.round((performance.now() - started) / 1000)} s\n${table(totals)}`,
);
console.log(
  `meant to be killed after a time, at a word or at a system call\n${table(kinds)}\nkilled\n${table(points)}`,
);
if (totals.kills < kills && failed === 0 && onlyRound === undefined) {
  console.error(`test-chaos: time is up after ${totals.kills} of ${kills} kills`);
  process.exit(1);
}
// Where the machine was so busy that hardly anything began, nothing is proved.
const isHollow = onlyRound === undefined && totals.ownerships < totals.kills * LEAST_OWNERSHIPS;
if (isHollow)
  console.error(
    `test-chaos: only ${totals.ownerships} ownerships: this machine is too busy for ${totals.kills} kills to prove anything`,
  );
console.log(`test-chaos: ${failed > 0 ? `FAILED, ${failed} rounds` : isHollow ? "FAILED" : "passed"}`);
process.exit(failed === 0 && !isHollow ? 0 : 1);
