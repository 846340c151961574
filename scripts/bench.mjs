// `npm run bench`: installs the peers if they are not there yet, and runs the suite.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { installLocked } from "./install-locked.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const bench = fileURLToPath(new URL("../bench", import.meta.url));

if (process.platform !== "linux") {
  console.error("bench: it runs on Linux only: the floor and the proofs are made of its system calls");
  process.exit(1);
}
if (!existsSync(`${root}/dist/index.js`)) {
  console.error("bench: there is no dist/ to measure; run npm ci, which compiles it");
  process.exit(1);
}
// Two of the peers are compiled by their install scripts, with Node's own headers where they are there: node-gyp would download them.
const prefix = dirname(dirname(process.execPath));
if (existsSync(join(prefix, "include/node/node_api.h"))) process.env.npm_config_nodedir ??= prefix;
const args = process.argv.slice(2);
if (!args.includes("--help") && !args.includes("-h"))
  installLocked(bench, () => console.error("installing the peers, once"), "--ignore-scripts=false");
const child = spawn(process.execPath, [`${bench}/main.mjs`, ...args], { stdio: "inherit" });
// It cleans up by itself, and we end when it has.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.once("exit", (code, signal) => process.exit(signal === null ? code : 1));
