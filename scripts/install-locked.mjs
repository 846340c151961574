// Installs what a package-lock.json of ours says into its own folder, unless it is there already: large tools that most do not need.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Throws if npm fails; `flags` are for npm ci. */
export function installLocked(folder, progress, ...flags) {
  if (versionsIn(join(folder, "node_modules/.package-lock.json")) === versionsIn(join(folder, "package-lock.json")))
    return;
  progress();
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", ...flags];
  const { status } = spawnSync("npm", args, { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  if (status !== 0) throw new Error(`npm ${args.join(" ")} failed in ${folder}`);
}

function versionsIn(file) {
  if (!existsSync(file)) return "";
  const packages = Object.entries(JSON.parse(readFileSync(file, "utf8")).packages);
  // What is optional may be for another system.
  const required = packages.filter(([path, { optional }]) => path !== "" && !optional);
  return required.map(([path, { version }]) => `${path}@${version} `).join("");
}
