// Compiles the C floor into a cache, once for each version of its source.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const source = fileURLToPath(new URL("../floor/floor.c", import.meta.url));
const cache = fileURLToPath(new URL("../.cache", import.meta.url));
const FLAGS = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"];

let built;

/** The path of the program. */
export function buildFloor() {
  built ??= build();
  return built;
}

function build() {
  const hash = createHash("sha256").update(readFileSync(source)).update(FLAGS.join(" ")).update(process.arch);
  const program = join(cache, `floor-${hash.digest("hex").slice(0, 12)}`);
  if (existsSync(program)) return program;
  mkdirSync(cache, { recursive: true });
  const draft = `${program}.${process.pid}`;
  const compiler = process.env.CC ?? "cc";
  const { error, status, stderr } = spawnSync(compiler, [...FLAGS, "-o", draft, source], { encoding: "utf8" });
  if (error !== undefined || status !== 0) {
    throw new Error(
      `the C floor (${source}) can't be compiled; install a C compiler or set CC: ${error?.message ?? stderr}`,
    );
  }
  renameSync(draft, program);
  return program;
}
