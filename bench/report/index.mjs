// The report of a directory of results: goals, plots, and profiles of what was missed.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { goals as goalsOf } from "./goals.mjs";
import { markdown } from "./markdown.mjs";
import { plots as plotsOf } from "./plots.mjs";
import { PROFILED, profile } from "./profile.mjs";
import { readResults } from "./results.mjs";

/** Figures of a smoke run mean nothing, and need no explanation. */
const EXPLAINED = new Set(["full", "quick"]);

/**
 * Writes report.md and *.svg beside the <scenario>.json, and returns the goals.
 * @param {string} directory
 * @param {{ log?: (line: string) => void }} [options]
 */
export async function report(directory, { log = () => {} } = {}) {
  const results = readResults(directory);
  const goals = goalsOf(results);
  const profiles = await profilesOf(goals, results, directory, log);
  const plots = await plotsOf(results);
  for (const { file, svg } of plots) writeFileSync(join(directory, file), svg);
  writeFileSync(join(directory, "report.md"), markdown({ results, goals, plots, profiles }));
  return goals;
}

async function profilesOf(goals, results, directory, log) {
  const profiles = {};
  for (const { id, scenario, met } of goals) {
    if (met !== false || !PROFILED.includes(id)) continue;
    const found = await profileOf(id, results[scenario], join(directory, `profile-${id}.json`), log);
    if (found !== undefined) profiles[id] = found;
  }
  return profiles;
}

/** The stored one, if it is of this very run; dates of files would not outlive a checkout. */
async function profileOf(id, { mode, startedAt }, file, log) {
  const stored = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : undefined;
  if (stored?.resultsStartedAt === startedAt) return stored;
  if (!EXPLAINED.has(mode)) return undefined;
  try {
    const made = { resultsStartedAt: startedAt, ...(await profile(id, { log })) };
    writeFileSync(file, `${JSON.stringify(made, null, 2)}\n`);
    return made;
  } catch (error) {
    log(`no profile of ${id}: ${error.message}`);
    return undefined;
  }
}
