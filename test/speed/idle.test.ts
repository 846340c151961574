// Proves that to hold a claim, and to wait for one, costs next to nothing.

import { expect, it } from "vitest";
import { showTimes } from "../support/measures.ts";
import { startFixture } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const SETTLE = 500; // ms
const MS = 1000;
const TIMES = 11;
const ALLOWED = MS / 1000;

it("an idle owner costs less than a thousandth of a processor, and one who waits for it nothing", async () => {
  const options = { stateDir: temporaryDirectory(), port: await freePort() };
  const roles = ["owner", "waiter", "neither"];
  const processes = [];
  for (const role of roles) {
    const idle = startFixture("standby-idle.mjs", { role, options, settle: SETTLE, ms: MS, times: TIMES });
    await idle.next("idle");
    processes.push(idle);
  }
  const used = await Promise.all(processes.map(async (idle) => (await idle.next("used")).cpu as number));
  const [owner = 0, waiter = 0, neither = 0] = used;
  showTimes(`ms of CPU in ${MS} ms: owner ${owner}, waiter ${waiter}, neither ${neither}`);
  expect(owner - neither).toBeLessThan(ALLOWED);
  expect(waiter - neither).toBeLessThan(ALLOWED);
});
