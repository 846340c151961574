// The command behind `npm run bench`.

import { relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, InvalidArgumentError } from "commander";
import { run, SCENARIOS } from "./run.mjs";

const NAMES = SCENARIOS.map(({ name }) => name);
const RESULTS = { full: "results", quick: "results-quick", smoke: "results-smoke" };

const program = new Command("npm run bench --")
  .description("The lock-contention suite: gateway-lock, its peers and a C floor, side by side")
  .addHelpText(
    "after",
    () => `
Options of run:
${measure.options.map(({ flags, description }) => `  ${flags.padEnd(20)} ${description}`).join("\n")}

Scenarios: ${NAMES.join(", ")}

Examples:
  npm run bench                                       all, for the record: 14 minutes
  npm run bench -- --quick                            all, good enough to compare: 3 minutes
  npm run bench -- --smoke                            does it work? figures mean nothing
  npm run bench -- --only contention,handoff --out new
  npm run bench -- compare bench/results new          what has changed
  npm run bench -- report                             the report again, from the figures that are there

Exit code 1: an error, or a proof that failed (sections of gateway-lock overlapped).`,
  );

const measure = program
  .command("run", { isDefault: true })
  .description("measure, and write figures, plots and a report")
  .option("--quick", "fewer and shorter rounds, within 3 minutes")
  .option("--smoke", "everything once, within half a minute")
  .option("--only <scenarios>", "some of them, separated by commas", readScenarios, NAMES)
  .option("--out <directory>", "where to write (default: bench/results, bench/results-quick, bench/results-smoke)")
  .action(async ({ quick, smoke, only, out }) => {
    if (quick && smoke) program.error("error: --quick and --smoke exclude each other; give one of them");
    const mode = smoke ? "smoke" : quick ? "quick" : "full";
    const directory = out === undefined ? defaultDirectory(mode) : resolve(out);
    const holds = await run({ mode, scenarios: only, out: directory });
    console.error(`written to ${relative(process.cwd(), directory) || "."}`);
    if (!holds) process.exitCode = 1;
  });

program
  .command("compare <old> <new>")
  .description("the ratios between two runs: two directories, or two files of one scenario")
  .action(async (before, after) => {
    const { compare } = await import("./report/compare.mjs");
    try {
      await compare(resolve(before), resolve(after), { log: console.log });
    } catch (error) {
      program.error(`error: ${error.message}`); // what was given is at fault
    }
  });

program
  .command("report [directory]")
  .description("write report.md and the plots again")
  .action(async (directory = defaultDirectory("full")) => {
    const { report } = await import("./report/index.mjs");
    await report(resolve(directory), { log: console.log });
  });

function defaultDirectory(mode) {
  return fileURLToPath(new URL(RESULTS[mode], import.meta.url));
}

function readScenarios(text) {
  const given = text.split(",").filter((name) => name !== "");
  const unknown = given.find((name) => !NAMES.includes(name));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`there is no scenario '${unknown}'; choose from ${NAMES.join(", ")}.`);
  }
  if (given.length === 0) throw new InvalidArgumentError(`choose from ${NAMES.join(", ")}.`);
  return given;
}

try {
  await program.parseAsync();
} catch (error) {
  console.error(`bench: ${error.stack}`);
  process.exit(1);
}
