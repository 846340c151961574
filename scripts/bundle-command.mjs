// Makes the command one CommonJS program of few files, beside the modules of the library. Node looks up, reads and compiles forty ES modules one by
// one, waiting for a thread each time: `gateway-lock status` would take half as long again.

import { chmodSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
const dist = join(root, "dist");

for (const name of readdirSync(dist).filter((name) => name.endsWith(".cjs"))) rmSync(join(dist, name));
const bundle = await rolldown({
  input: { "gateway-lock": join(root, "lib/cli/main.ts") },
  platform: "node",
  external: ["commander", "node-gyp-build"],
  logLevel: "warn",
});
await bundle.write({
  dir: dist, // where the library's modules lie too: they find the package by their own place
  format: "cjs",
  entryFileNames: "[name].cjs",
  chunkFileNames: "gateway-lock-[name].cjs",
  dynamicImportInCjs: false,
  comments: false,
});
await bundle.close();
chmodSync(join(dist, "gateway-lock.cjs"), 0o755);
