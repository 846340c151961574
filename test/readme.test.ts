// Runs every JavaScript example of the README as it stands there, but for the port.

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { fixturePath, TestProcess } from "./support/processes.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");
const examples = [...readme.matchAll(/^```js\n(.*?)^```/gms)].map(([match, code = ""]) => ({
  line: readme.slice(0, readme.indexOf(match)).split("\n").length,
  code,
}));

it("has examples", () => expect(examples.length).toBeGreaterThan(5));

it.each(examples)("the example at line $line runs", async ({ code }) => {
  const project = temporaryDirectory();
  mkdirSync(join(project, "node_modules"));
  symlinkSync(root, join(project, "node_modules/gateway-lock"));
  for (const name of ["ws", "express", "fastify", "pino", "prom-client"]) {
    symlinkSync(join(root, "node_modules", name), join(project, "node_modules", name));
  }
  // With room above it, for an example that reserves a derived port.
  let port = await freePort();
  while (port % 100 > 90) port = await freePort();
  // Most examples leave the port out: give them one that does not meet a gateway of this machine.
  const own = code
    .replace(/(acquire|supervise)Gateway\(\{(?![^}]*port:)/g, `$1Gateway({ port: ${port},`)
    .replaceAll("18789", String(port))
    .replaceAll("18791", String(port + 2));
  writeFileSync(join(project, "example.mjs"), own);

  const run = new TestProcess(process.execPath, [fixturePath("run-snippet.mjs"), join(project, "example.mjs")], {
    cwd: project,
  });

  await run.next("ran");
  expect(await run.exited).toEqual({ code: 0, signal: null });
  expect(run.stderr).toBe("");
});
