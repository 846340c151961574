// A copy of this Node that starts with a sanitizer's runtime in it, whatever its environment: tests start it with empty ones, as other users, and in
// namespaces. Only Node: a shell or strace with it would be slow, and proves nothing.

import { chmodSync, cpSync, mkdirSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mustRun } from "../commands.mjs";

const LIMIT = 60_000; // ms, for each command

/**
 * The directory of its `node`. `runtimes` are libraries of the compiler, `options` what their manuals call flags, by the runtime's name; `source` is C that
 * is to be met before them.
 */
export async function makeNode(directory, { runtimes, options, source = "" }) {
  mkdirSync(directory, { recursive: true });
  const [node, ours] = [join(directory, "node"), join(directory, "ours.so")];
  cpSync(realpathSync(process.execPath), node);
  const functions = Object.entries(options).map(
    ([name, flags]) => `const char* __${name}_default_options(void) { return "${flags.join(":")}"; }\n`,
  );
  writeFileSync(join(directory, "ours.c"), source + functions.join(""));
  await mustRun("gcc", ["-shared", "-fPIC", "-o", ours, join(directory, "ours.c"), "-ldl"], { limit: LIMIT });
  // Each one is put before the others, ours before them all: a runtime has empty options of its own, and the first ones that are met count.
  for (const name of runtimes.toReversed()) {
    const path = (await mustRun("gcc", [`-print-file-name=${name}`], { limit: LIMIT })).trim();
    await mustRun("patchelf", ["--add-needed", realpathSync(path), node], { limit: LIMIT });
  }
  await mustRun("patchelf", ["--add-needed", ours, node], { limit: LIMIT });
  chmodSync(node, 0o755);
  return directory;
}
