// The portable tests on this Node: scripts/test-platforms.mjs runs the same files on others.

import { readdirSync } from "node:fs";
import { expect, it } from "vitest";
import { TestProcess } from "./support/processes.ts";

const FOLDER = new URL("portable/", import.meta.url);
const FILES = readdirSync(FOLDER).filter((name) => name.endsWith(".test.mjs"));
const LIMIT = 180_000; // ms; only reached when something is wrong

it.each(FILES)("test/portable/%s", { timeout: LIMIT }, async (name) => {
  const run = new TestProcess(process.execPath, ["--test-reporter=tap", new URL(name, FOLDER).pathname]);
  let output = "";
  run.child.stdout?.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  const { code } = await run.exited;
  expect(code, `${output}\n${run.stderr}`).toBe(0);
  expect(output).toMatch(/^# pass [1-9]/m);
  if (process.env.GATEWAY_LOCK_REQUIRE_ALL === "1") expect(output).toMatch(/^# skipped 0$/m);
});
