// Who is measured. Their names are those in the results.

import { spawnSync } from "node:child_process";

/** `module`: the adapter beside this file; `package`: what a user installs. */
export const PEERS = {
  "gateway-lock": { module: "gateway-lock", package: "gateway-lock" },
  "gateway-lock (sync)": { module: "gateway-lock-sync", package: "gateway-lock" },
  "fs-ext": { module: "fs-ext", package: "fs-ext" },
  "fs-native-extensions": { module: "fs-native-extensions", package: "fs-native-extensions" },
  "os-lock": { module: "os-lock", package: "os-lock" },
  "proper-lockfile": { module: "proper-lockfile", package: "proper-lockfile" },
  lockfile: { module: "lockfile", package: "lockfile" },
  "flock(1)": { module: "flock-command" },
  "PID file": { module: "pid-file" },
};

/** Those with an npm package of their own. */
export const PACKAGES = ["fs-ext", "fs-native-extensions", "os-lock", "proper-lockfile", "lockfile"];

export function load(subject) {
  return import(`./${PEERS[subject].module}.mjs`);
}

let flockVersion;

/** For example "util-linux 2.38.1"; null where there is none. */
export function flockCommand() {
  flockVersion ??= spawnSync("flock", ["--version"], { encoding: "utf8" }).stdout?.trim().replace("flock from ", "");
  return flockVersion ?? null;
}
