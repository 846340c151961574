// Proves that GATEWAY_LOCK_PREBUILD leads to no addon from outside of the package.

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../support/temporary.ts";

const ROOT = join(import.meta.dirname, "..", "..");

/** Imports this package and tries one lock; says the code and message of what is thrown, and which addons are mapped. */
const TRY = `
import { readFileSync } from "node:fs";
const lock = await import(process.argv[1]);
let refusal = null;
try { lock.tryLockFile(process.argv[2]).release(); } catch ({ code, message }) { refusal = { code, message }; }
const addons = [...new Set(process.platform === "linux" ? readFileSync("/proc/self/maps", "utf8").match(/\\/.*\\.node$/gm) ?? [] : [])];
console.log(JSON.stringify({ refusal, addons }));
`;

function load(env: NodeJS.ProcessEnv, file: string) {
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ["--input-type=module", "-e", TRY, join(ROOT, "dist", "index.js"), file],
    { encoding: "utf8", env: { ...process.env, ...env } },
  );
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout) as { refusal: { code: string; message: string } | null; addons: string[] };
}

test("GATEWAY_LOCK_PREBUILD is refused by name, what it leads to is not loaded, and nothing is made", () => {
  const directory = temporaryDirectory();
  const planted = join(directory, "planted");
  mkdirSync(planted);
  const here = readdirSync(ROOT).filter((name) => ["build", "prebuilds"].includes(name));
  for (const name of here) cpSync(join(ROOT, name), join(planted, name), { recursive: true });
  const file = join(directory, "file.lock");
  const { refusal, addons } = load({ GATEWAY_LOCK_PREBUILD: planted }, file);
  expect(refusal?.code).toBe("ERR_GATEWAY_LOCK_ADDON");
  expect(refusal?.message).toContain("GATEWAY_LOCK_PREBUILD is set in its environment: unset it");
  expect(addons.filter((path) => path.startsWith(planted))).toEqual([]);
  expect(existsSync(file)).toBe(false);
});

test("without it the addon is the package's own", () => {
  const directory = temporaryDirectory();
  const { refusal, addons } = load({ GATEWAY_LOCK_PREBUILD: "" }, join(directory, "file.lock"));
  expect(refusal).toBeNull();
  expect(addons).not.toEqual([]);
  expect(addons.filter((path) => !path.startsWith(ROOT))).toEqual([]);
});
