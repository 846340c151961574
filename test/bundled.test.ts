// Proves that a program which bundles the library starts, and that what needs the addon says that it is not there.

import { spawnSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";
import { expect, test } from "vitest";
import { temporaryDirectory } from "./support/temporary.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const PROGRAM = `
import { EXIT, inspectGateway, resolveProfile, tryLockFile } from "gateway-lock";
const codeOf = (error) => error.code;
const seen = [EXIT.DUPLICATE, resolveProfile({ home: "/home", env: {} }).port];
try { tryLockFile("file"); } catch (error) { seen.push(error.code); }
seen.push(await inspectGateway({ stateDir: "state" }).catch(codeOf));
console.log(JSON.stringify(seen));
`;

test("a bundle of the library has all that needs no addon", async () => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, "node_modules"));
  symlinkSync(ROOT, join(directory, "node_modules", "gateway-lock"));
  writeFileSync(join(directory, "program.mjs"), PROGRAM);
  const bundle = await rolldown({ input: join(directory, "program.mjs"), platform: "node", logLevel: "silent" });
  await bundle.write({ dir: join(directory, "out"), entryFileNames: "bundled.mjs" });
  await bundle.close();
  const { stdout, stderr } = spawnSync(process.execPath, ["out/bundled.mjs"], { cwd: directory, encoding: "utf8" });
  expect(stderr).toBe("");
  const missing = "ERR_GATEWAY_LOCK_ADDON";
  expect(JSON.parse(stdout)).toEqual([75, 18789, missing, missing]);
});
