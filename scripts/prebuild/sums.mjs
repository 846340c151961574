// Keeps prebuilds/SHA256SUMS, in the format of sha256sum: what the sources make, byte for byte.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./paths.mjs";

const FILE = join(ROOT, "prebuilds/SHA256SUMS");

export function readSums() {
  if (!existsSync(FILE)) return new Map();
  const lines = readFileSync(FILE, "utf8").split("\n").filter(Boolean);
  return new Map(lines.map((line) => line.split("  ").reverse()));
}

export function writeSums(sums) {
  const sorted = [...sums].sort(([a], [b]) => (a < b ? -1 : 1));
  writeFileSync(FILE, sorted.map(([file, hash]) => `${hash}  ${file}\n`).join(""));
}
