// A fresh process that imports one module and says how long that took, and how large it is then: import-once.mjs <specifier>

const start = process.hrtime.bigint();
await import(process.argv[2]);
const ns = Number(process.hrtime.bigint() - start);
process.stdout.write(`${JSON.stringify({ ns, resident: process.memoryUsage().rss })}\n`);
