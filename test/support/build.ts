// Compiles lib/ to dist/ before the first test: the fixtures run what users run.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

export function setup(): void {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  execFileSync("npm", ["run", "--silent", "build:ts"], { cwd: root, stdio: "inherit" });
}
