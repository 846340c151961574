// Survey 2.

import { appendFileSync, writeFileSync } from "node:fs";
import { casesOf } from "../test/faults/cases.mjs";
import { PATHS } from "../test/faults/paths.mjs";
import { walk } from "../test/faults/tracer.mjs";

const only = process.argv[2];
const cases = [];
const port = 17000;
for (const name of Object.keys(PATHS)) {
  if (only && !name.includes(only)) continue;
  const { calls } = await walk(name, port);
  cases.push(...casesOf(name, calls));
}
console.log(cases.length);
const started = performance.now();
let next = 0;
async function lane(port) {
  for (;;) {
    const c = cases[next++];
    if (!c) return;
    let r;
    try {
      r = await walk(c.path, port, c);
    } catch (error) {
      console.log("ERR", c, error.message);
      continue;
    }
    const { story, calls, code, signal, errors } = r;
    const hit = calls.filter((call) => call.injected);
    console.log(
      JSON.stringify({
        path: c.path,
        name: c.name,
        errno: c.errno,
        nth: c.nth,
        shape: c.shape,
        hit: hit.length === 1 && hit[0].isWithin,
        hitShape: hit[0] && hit[0].line,
        story,
        code,
        signal,
        errors: errors.slice(0, 300),
      }),
    );
    if (next % 100 === 0) console.error(next, cases.length, Math.round(performance.now() - started));
  }
}
await Promise.all([lane(17000), lane(17100), lane(17200)]);
