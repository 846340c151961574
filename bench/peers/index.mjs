// Who is measured. Their names are those in the results.

import { spawnSync } from "node:child_process";

/** `module`: the adapter beside this file; `package`: what a user installs; `record`: whether its lock is a file that can keep one. */
export const PEERS = {
  "gateway-lock": { module: "gateway-lock", package: "gateway-lock", record: true },
  "gateway-lock (sync)": { module: "gateway-lock-sync", package: "gateway-lock" },
  "fs-ext": { module: "fs-ext", package: "fs-ext", record: true },
  "fs-native-extensions": { module: "fs-native-extensions", package: "fs-native-extensions", record: true },
  "os-lock": { module: "os-lock", package: "os-lock", record: true },
  "proper-lockfile": { module: "proper-lockfile", package: "proper-lockfile" },
  lockfile: { module: "lockfile", package: "lockfile" },
  "flock(1)": { module: "flock-command" },
  "PID file": { module: "pid-file", record: true },
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
