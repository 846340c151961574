// The suite under one sanitizer: what its tests say, and what the sanitizer has written down about any process of theirs.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { delimiter, join } from "node:path";

/** vitest's, as test/support/plain-reporter.ts prints them. */
const TOTALS = /^(\d+) passed, (\d+) failed, (\d+) skipped$/m;

/** A directory for reports, which every user's process may write. */
export function makeReports(directory) {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  chmodSync(directory, 0o1777);
  return directory;
}

export function readReports(directory) {
  return readdirSync(directory).map((name) => readFileSync(join(directory, name), "utf8"));
}

/** Runs vitest in `tree` with the Node that lies in `bin`. */
export async function runSuite({ tree, bin, prefix, args, interrupted }) {
  const environment = { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}`, npm_config_nodedir: prefix };
  const vitest = join(tree, "node_modules/vitest/vitest.mjs");
  const child = spawn(join(bin, "node"), [vitest, "run", ...args], {
    cwd: tree,
    env: environment,
    stdio: ["ignore", "pipe", "inherit"],
  });
  // vitest ends what its tests have started.
  const stop = () => child.kill();
  interrupted.addEventListener("abort", stop);
  let end = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    process.stdout.write(text);
    end = (end + text).slice(-10_000);
  });
  const [code] = await once(child, "close");
  interrupted.removeEventListener("abort", stop);
  const [, passed = 0, failed = 0, skipped = 0] = TOTALS.exec(end) ?? [];
  return { passed: Number(passed), failed: Number(failed), skipped: Number(skipped), code };
}
