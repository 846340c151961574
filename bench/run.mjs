// Runs scenarios in order, writes what each has found, and has it reported.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describeEnvironment } from "./environment.mjs";
import { buildFloor } from "./harness/floor.mjs";
import { endAll, killAll } from "./harness/processes.mjs";
import { Progress } from "./harness/progress.mjs";
import { Results } from "./harness/results.mjs";
import { Temporary } from "./harness/temporary.mjs";
import * as contention from "./scenarios/contention.mjs";
import * as failover from "./scenarios/failover.mjs";
import * as handoff from "./scenarios/handoff.mjs";
import * as refusal from "./scenarios/refusal.mjs";
import * as restart from "./scenarios/restart.mjs";
import * as scale from "./scenarios/scale.mjs";
import * as uncontended from "./scenarios/uncontended.mjs";
import * as weight from "./scenarios/weight.mjs";

export const SCENARIOS = [uncontended, refusal, contention, handoff, failover, restart, scale, weight];

/** Whose overlap is a fault of ours, or of the proof itself. */
const MUST_EXCLUDE = ["gateway-lock", "floor"];

const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };

/** Resolves to whether every proof held. */
export async function run({ mode, scenarios, out }) {
  const chosen = SCENARIOS.filter(({ name }) => scenarios.includes(name));
  const temporary = new Temporary();
  // Whatever ends us: nothing is left behind.
  const cleanUp = () => {
    killAll();
    temporary.remove();
  };
  process.once("exit", cleanUp);
  // Not once: a terminal says it to us, and whoever has started us says it again.
  for (const [signal, code] of Object.entries(SIGNALS)) process.on(signal, () => process.exit(code));

  const progress = new Progress(chosen.reduce((sum, { seconds }) => sum + seconds[mode], 0));
  const shared = { mode, temporary, progress, floor: buildFloor() };
  const environment = describeEnvironment(temporary.path);
  mkdirSync(out, { recursive: true });
  const failed = [];
  try {
    const prepared = new Map(chosen.map((scenario) => [scenario, scenario.prepare?.(shared)]));
    for (const scenario of chosen) {
      progress.scenario(scenario.name);
      const results = new Results();
      const [startedAt, start] = [new Date().toISOString(), performance.now()];
      await scenario.run({ ...shared, results }, prepared.get(scenario));
      const durationMs = Math.round(performance.now() - start);
      const { measurements, proofs, notes } = results;
      const head = { scenario: scenario.name, mode, startedAt, durationMs, environment, notes };
      writeFileSync(join(out, `${scenario.name}.json`), format({ ...head, measurements, proofs }));
      failed.push(...proofs.filter(({ subject, violations }) => violations > 0 && MUST_EXCLUDE.includes(subject)));
    }
  } finally {
    await endAll();
    process.off("exit", cleanUp);
    cleanUp();
  }
  for (const { claim, subject, checked, violations } of failed) {
    progress.log(`${subject}: NOT TRUE that ${claim}: ${violations} of ${checked}`);
  }
  await writeReport(out, progress);
  return failed.length === 0;
}

async function writeReport(out, progress) {
  const { report } = await import("./report/index.mjs");
  await report(out, { log: (line) => progress.log(line) });
}

/** A measurement a line, so that a difference between runs can be read. */
function format({ measurements, proofs, ...head }) {
  const list = (entries) => `[${entries.map((entry) => `\n    ${JSON.stringify(entry)}`).join(",")}\n  ]`;
  const text = JSON.stringify(head, null, 2).replace(/\n}$/, "");
  return `${text},\n  "measurements": ${list(measurements)},\n  "proofs": ${list(proofs)}\n}\n`;
}
