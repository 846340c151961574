// Directs rounds of chaos, one after the other, as it is told on its standard input: a seed a line, a round for each. Answers with one line of JSON.

import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { makeRandom } from "../support/random.mjs";
import { inspectAftermath, isDead, possessions, processesOf } from "./aftermath.mjs";
import { startDoomed } from "./fate.mjs";
import { judge, lastDeeds } from "./judge.mjs";
import { spoil, vandalise } from "./vandal.mjs";
import { makeWorld, note, readNotes } from "./world.mjs";

const ACTORS = 10;
const KILLS = 60; // in each round
const ROUND_LIMIT = 60_000; // ms; only reached when something is wrong
const BURIAL = 10_000; // ms, for what was killed to be gone

async function runRound(seed) {
  const random = makeRandom(seed);
  const world = await makeWorld(tmpdir(), random);
  current = world;
  const killed = [];
  const findings = [];
  const programs = new Set();
  const alive = new Set();
  const start = () => {
    const doomed = startDoomed(world, random);
    alive.add(doomed);
    void doomed.ended.then((end) => {
      alive.delete(doomed);
      killed.push(end);
      if (end.run !== undefined) note(world.journal, "orphaned", { run: end.run });
      if (end.program > 0) {
        programs.add(end.program);
        setTimeout(kill, random.between(0, 300), end.program);
      }
      // Of `run`, whose program may never have started.
      const isRefusal = end.kind === "run" && end.signal === null;
      if (end.signal !== "SIGKILL" && !isRefusal) findings.push(`a process ended by itself: ${JSON.stringify(end)}`);
      if (isRefusal) killed.pop();
      if (killed.length + alive.size < KILLS) start();
    });
  };
  for (let i = 0; i < ACTORS; i++) start();
  const limit = performance.now() + ROUND_LIMIT;
  while (alive.size > 0) {
    await pause(random.between(5, 40));
    vandalise(world, random);
    if (random.chance(0.2)) spoil(world, random);
    if (performance.now() < limit) continue;
    findings.push(`the round has not come to its end in ${ROUND_LIMIT} ms`);
    break;
  }
  // Programs of `run` outlive it, and strace its tracee.
  const doomed = new Set([...programs, ...killed.map(({ pid }) => pid)]);
  const limitOfBurial = performance.now() + BURIAL;
  for (;;) {
    const left = processesOf(world);
    for (const pid of left) {
      doomed.add(pid);
      kill(pid);
    }
    const dying = [...doomed].filter((pid) => !isDead(pid));
    if (left.length === 0 && dying.length === 0) break;
    if (performance.now() > limitOfBurial) {
      findings.push(`processes that do not end: ${[...left, ...dying].join(", ")}`);
      break;
    }
    await pause(2);
  }
  const entries = readNotes(world.journal);
  const { ownerships, violations, exposed } = judge(entries);
  for (const { event, pid, what, cause } of entries)
    if (event === "finding") findings.push(`pid ${pid}: ${what}${cause === undefined ? "" : ` (${cause})`}`);
  for (const { resource, one, other } of violations)
    findings.push(`two owners of ${resource}: ${JSON.stringify(one)} and ${JSON.stringify(other)}`);
  findings.push(...(await inspectAftermath(world)));
  const errors = readFileSync(world.errors, "utf8");
  const deeds = lastDeeds(entries);
  const points = {};
  for (const { pid, kind } of killed) {
    const point = kind === "run" ? "of gateway-lock run" : (deeds.get(pid) ?? "before its first word");
    points[point] = (points[point] ?? 0) + 1;
  }
  const kinds = {};
  for (const { kind } of killed) kinds[kind] = (kinds[kind] ?? 0) + 1;
  const count = (event) => entries.filter((entry) => entry.event === event).length;
  const handovers = entries.filter(
    ({ event, role, step }) => event === "handover" && role === "successor" && step === "taken",
  ).length;
  if (findings.length === 0) rmSync(world.root, { recursive: true });
  const evidence = findings.length === 0 ? {} : { root: world.root, errors: errors.slice(-4000) };
  return {
    ...{ seed, kills: killed.length, points, kinds, ownerships, exposed, handovers, vandalisms: count("vandal") },
    ...{ refusals: count("refused"), waits: count("wait"), findings, ...evidence },
  };
}

function kill(pid) {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It is gone.
  }
}

/** The world of the round that goes on. */
let current;

function stop() {
  if (current !== undefined) {
    for (let left; left === undefined || left.length > 0; left.forEach(kill)) left = processesOf(current);
    rmSync(current.root, { recursive: true, force: true });
  }
  process.exit(1);
}
// Who has ended us at a terminal has ended all others too. Without whoever asks for rounds, none is wanted.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, stop);
process.stdin.once("end", () => current !== undefined && stop());

// The first gateway of a process opens what stays open, and starts what goes on.
let before;
for await (const line of createInterface({ input: process.stdin })) {
  const result = await runRound(Number(line));
  current = undefined;
  const after = possessions();
  if (before !== undefined && (after.descriptors > before.descriptors || after.threads > before.threads))
    result.findings.push(`left in a process that has lived: ${JSON.stringify({ before, after })}`);
  before ??= after;
  console.log(JSON.stringify(result));
}
