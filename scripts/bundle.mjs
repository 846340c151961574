// Makes few files of the many modules, and CommonJS, whose `require` is quicker than `import`: Node looks up, reads and compiles ES modules one by
// one, waiting for a thread each time, and evaluates every getter of each of its own modules that they name. The import of the library would take
// five times as long, `gateway-lock status` half as long again.

import { chmodSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, extname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { rolldown } from "rolldown";

const root = fileURLToPath(new URL("..", import.meta.url));
const dist = join(root, "dist");
const index = join(dist, "index.js");
const LIBRARY = "library.cjs";

for (const name of readdirSync(dist).filter((name) => /\.[cm]js$/.test(name))) rmSync(join(dist, name));
await bundle("lib/index.ts", LIBRARY);
await bundle("lib/cli/main.ts", "gateway-lock.cjs");
// For bundlers, which can't follow the require below ("module" among the exports of package.json).
await bundle("lib/index.ts", "library.mjs");
chmodSync(join(dist, "gateway-lock.cjs"), 0o755);

// In the place of the module that tsc has just made, beside its declarations.
const names = Object.keys(await import(pathToFileURL(index)));
writeFileSync(
  index,
  `import { createRequire } from "node:module";
export const { ${names.join(", ")} } = createRequire(import.meta.url)("./${LIBRARY}");
`,
);

/** Into dist/, where the modules lie too: they find the package by their own place. */
async function bundle(entry, file) {
  const built = await rolldown({
    input: join(root, entry),
    platform: "node",
    external: ["commander", "node-gyp-build"],
    logLevel: "warn",
    // What is needed at once is one file, whoever else may need it later.
    preserveEntrySignatures: "allow-extension",
  });
  const extension = extname(file);
  await built.write({
    dir: dist,
    format: extension === ".cjs" ? "cjs" : "esm",
    entryFileNames: file,
    chunkFileNames: `${basename(file, extension)}-[name]${extension}`,
    dynamicImportInCjs: false,
    comments: false,
  });
  await built.close();
}
