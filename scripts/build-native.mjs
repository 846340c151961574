// Builds the addon for this machine into prebuilds/, by prebuildify, and leaves no build/ behind: node-gyp-build would
// prefer it to every prebuilt binary, for ever, however old it is.
import { spawnSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

// Node comes with its own headers nearly everywhere; only where it does not, node-gyp has to download them. Node-API
// makes the binary fit every later version.
const prefix = dirname(dirname(process.execPath));
const env = { ...process.env };
if (existsSync(join(prefix, "include/node/node_api.h"))) env.npm_config_nodedir ??= prefix;
const args = ["--napi", "--target", `node@${process.versions.node}`];
if (process.platform === "linux") args.push("--tag-libc"); // elsewhere prebuildify would call it glibc
if (spawnSync("strip", ["--version"]).error === undefined) args.push("--strip");
// An installed package has none, so that npm does not build by itself.
const gyp = join(root, "binding.gyp");
const isOurs = !existsSync(gyp);
if (isOurs) writeFileSync(gyp, '{ "includes": ["native/addon.gypi"] }\n');
const run = spawnSync(process.execPath, ["node_modules/prebuildify/bin.js", ...args], {
  cwd: root,
  env,
  encoding: "utf8",
  maxBuffer: 1 << 28,
});
if (isOurs) rmSync(gyp);
rmSync(join(root, "build"), { recursive: true, force: true });
if (run.status !== 0) {
  process.stderr.write(`${run.stdout}${run.stderr}`);
  process.exit(1);
}
const warnings = `${run.stdout}${run.stderr}`.split("\n").filter((line) => /\bwarning:/.test(line));
process.stderr.write(warnings.map((line) => `${line}\n`).join(""));
