// A fresh process that loads one module and says how long that took, and how large it is then: import-once.mjs <URL of an ES module | name>

import { createRequire } from "node:module";

const [specifier] = process.argv.slice(2);
const require = createRequire(import.meta.url);

const start = process.hrtime.bigint();
// By import(), a CommonJS package would have Node's parser of its exports loaded too, 5 MB of WebAssembly.
if (specifier.startsWith("file:")) await import(specifier);
else require(specifier);
const ns = Number(process.hrtime.bigint() - start);
process.stdout.write(`${JSON.stringify({ ns, resident: process.memoryUsage().rss })}\n`);
