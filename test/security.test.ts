// Proves that every test which SECURITY.md names is there, and that no attack stands there without one.

import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

const root = new URL("..", import.meta.url);
const model = readFileSync(new URL("SECURITY.md", root), "utf8");
const rows = model
  .split("\n")
  .filter((line) => line.startsWith("| ") && !line.startsWith("| attack") && !line.startsWith("| ---"));

it("every attack names the test that makes it, and the test is there", () => {
  expect(rows.length).toBeGreaterThan(20);
  for (const row of rows) {
    const names = [...row.matchAll(/\[(test\/[^\]]+)\]/g)].flatMap(([, list = ""]) => list.split(", "));
    expect(names.length, row).toBeGreaterThan(0);
    for (const name of names) {
      const isThere = ["", ".test.ts", ".test.mjs"].some((end) => existsSync(fileURLToPath(new URL(name + end, root))));
      expect(isThere, `${name} of: ${row}`).toBe(true);
    }
  }
});
