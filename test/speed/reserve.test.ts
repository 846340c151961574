// Proves that a hundred reserved ports cost a start next to nothing.

import { expect, it } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { median, showTimes } from "../support/measures.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const ROUNDS = 41;
const LIMIT = 10; // ms
const PORTS = 100;
const CDP = 11;

/** Outside the range of freePort(), whose ports other tests have. */
async function baseWithRoom(): Promise<number> {
  for (let base = 11_000; base < 19_000; base += 120) {
    const options = { stateDir: temporaryDirectory(), port: base, reserve: derivedFrom(base) };
    const gateway = await acquireGateway(options).catch(() => null);
    await gateway?.close();
    if (gateway !== null) return base;
  }
  throw new Error(`no ${PORTS} ports in a row from 11000 to 19000`);
}

const derivedFrom = (base: number): number[] => Array.from({ length: PORTS }, (_, index) => base + CDP + index);

it("claims a hundred reserved ports, with their guards, in less than 10 ms more than none", async () => {
  const [stateDir, port, base] = [temporaryDirectory(), await freePort(), await baseWithRoom()];
  const times = { none: [] as number[], hundred: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, reserve] of [
      ["none", []],
      ["hundred", derivedFrom(base)],
    ] as const) {
      const started = performance.now();
      const gateway = await acquireGateway({ stateDir, port, reserve });
      times[name].push(performance.now() - started);
      await gateway.close();
    }
  }
  const [none, hundred] = [median(times.none), median(times.hundred)];
  showTimes(
    `acquire with no reserved port: ${none.toFixed(2)} ms; with ${PORTS}: ${hundred.toFixed(2)} ms; ${ROUNDS} rounds`,
  );
  expect(hundred - none).toBeLessThan(LIMIT);
});
