// A copy of this project whose addon is built in another way, in .cache/sanitize: an instrumented addon must never lie where a user's would.

import { spawnSync } from "node:child_process";
import { appendFileSync, cpSync, existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { mustRun } from "../commands.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const LIMIT = 600_000; // ms, for each command
/** Of the addon: what is planted is appended to it. */
const BED = "native/linux/wake.cc";

/** The directory of a copy that is built with these flags, with the text of the file `plant` in the addon. */
export async function makeTree(name, flags, plant) {
  const tree = join(root, ".cache", "sanitize", name);
  // What make has built of the same sources stays: it goes by their times.
  for (const entry of existsSync(tree) ? readdirSync(tree) : [])
    if (entry !== "build") rmSync(join(tree, entry), { recursive: true });
  for (const path of sources()) cpSync(join(root, path), join(tree, path), { preserveTimestamps: true });
  await mustRun("cp", ["-al", "node_modules", tree], { cwd: root, limit: LIMIT });
  if (plant !== undefined) appendFileSync(join(tree, BED), readFileSync(plant));

  const prefix = dirname(dirname(process.execPath));
  const headers = existsSync(join(prefix, "include/node/node_api.h")) ? { npm_config_nodedir: prefix } : {};
  // Node exports functions of the C++ library, which are not instrumented, and would come before the addon's own: a count of references is one.
  const env = {
    ...headers,
    CXXFLAGS: `${flags} -g -fno-omit-frame-pointer`,
    LDFLAGS: `${flags} -Wl,-Bsymbolic-functions`,
  };
  const gyp = join(tree, "node_modules/node-gyp/bin/node-gyp.js");
  await mustRun(process.execPath, [gyp, "configure", "build", "--jobs=max"], { cwd: tree, env, limit: LIMIT });
  // The bundler tries what it has made, and this Node can't load that addon.
  const withoutAddon = { PREBUILDS_ONLY: "1" };
  await mustRun("npm", ["run", "--silent", "build:ts"], { cwd: tree, env: withoutAddon, limit: LIMIT });
  // For tests that make a copy of their own, of what is installed.
  const installed = join(tree, "prebuilds", `linux-${process.arch}`, "gateway-lock.glibc.node");
  cpSync(join(tree, "build/Release/gateway_lock.node"), installed);
  return tree;
}

/** What git has, and what it would take. */
function sources() {
  const args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const { stdout, status } = spawnSync("git", args, { cwd: root, encoding: "utf8" });
  if (status !== 0) throw new Error("git ls-files failed: a copy is made of what git knows");
  return stdout.split("\0").filter((path) => existsSync(join(root, path)) && path !== "");
}
