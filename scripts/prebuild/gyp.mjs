// Asks gyp, the one that comes with node-gyp, what binding.gyp says for one system: sources and flags are listed once.
import { execFileSync } from "node:child_process";
import { ROOT, TOOLS } from "./paths.mjs";

const TARGET = "binding.gyp:gateway_lock#target";
const OS = { linux: "linux", darwin: "mac", win32: "win" };
// What node-gyp says to Visual Studio and Xcode. zig understands cflags and ldflags for every system.
const IGNORED = new Set(["msvs_settings", "xcode_settings", "default_configuration", "dependencies"]);
const KNOWN = new Set(["type", "target_name", "toolset", "sources", "libraries", "configurations"]);
const KNOWN_FLAGS = new Set(["defines", "include_dirs", "cflags", "cflags_cc", "ldflags", "library_dirs"]);

export function readGyp({ platform }) {
  const python = process.env.npm_config_python ?? process.env.PYTHON ?? "python3";
  const args = ["-B", "node_modules/node-gyp/gyp/gyp_main.py", "--format", "scripts/prebuild/gyp_json.py"];
  args.push("--depth", ".", "-I", "scripts/prebuild/common.gypi", "-D", `OS=${OS[platform]}`);
  // gyp takes settings from ~/.gyp and from variables; a python may be found with the help of HOME.
  const env = { PATH: process.env.PATH, HOME: process.env.HOME, GYP_CONFIG_DIR: TOOLS };
  const targets = JSON.parse(execFileSync(python, [...args, "binding.gyp"], { cwd: ROOT, env, encoding: "utf8" }));
  const target = targets[TARGET];
  const flags = target.configurations.Default;
  refuseUnknown(target, KNOWN);
  refuseUnknown(flags, KNOWN_FLAGS);
  return {
    sources: target.sources,
    compile: [
      ...(flags.defines ?? []).map((define) => `-D${define}`),
      // clang's -Wconversion finds more than g++'s in what is not ours.
      ...(flags.include_dirs ?? []).map((path) => (path.startsWith("node_modules/") ? `-isystem${path}` : `-I${path}`)),
      ...(flags.cflags ?? []),
      ...(flags.cflags_cc ?? []),
    ],
    link: [
      ...(flags.ldflags ?? []),
      ...(flags.library_dirs ?? []).map((directory) => `-L${directory}`),
      // "-framework Name" is one entry in gyp, two arguments here.
      ...(target.libraries ?? []).flatMap((library) => library.split(" ")),
    ],
  };
}

// What we do not know how to pass on would be left out in silence, and the binary would differ from node-gyp's.
function refuseUnknown(settings, known) {
  for (const key of Object.keys(settings)) {
    // gyp keeps what 'sources!' took out under 'sources_excluded'.
    if (known.has(key) || IGNORED.has(key) || key.endsWith("_excluded")) continue;
    throw new Error(`native/addon.gypi sets '${key}', which zig does not get: add it to scripts/prebuild/gyp.mjs`);
  }
}
