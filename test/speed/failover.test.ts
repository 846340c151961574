// Proves that a standby serves almost as soon as the kernel alone would have told it that the owner is dead.

import { expect } from "vitest";
import { hasFlockCommand, itWhere } from "../support/capabilities.ts";
import { median, showTimes } from "../support/measures.ts";
import { startFixture } from "../support/processes.ts";
import { startServing, startWaiting } from "../support/standbys.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(hasFlockCommand, "there is no flock(1)");

const ROUNDS = 15;
const LIMIT = 20; // ms
const CROWD = 60_000; // ms, for tests that start many processes

it(
  "answers its first request within 20 ms of the moment at which flock(1) would have had the lock of a killed owner",
  async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const observer = startFixture("standby-observer.mjs");
    const heard: number[] = [];
    const answered: number[] = [];
    let owner = await startServing({ stateDir, port });
    for (let round = 0; round < ROUNDS; round++) {
      observer.send(JSON.stringify({ command: "hear", pid: owner.pid, path: stateDir }));
      heard.push((await observer.next("heard")).ms);

      owner = await startServing({ stateDir, port });
      const standby = await startWaiting({ stateDir, port });
      observer.send(JSON.stringify({ command: "ask", pid: owner.pid, port }));
      const { ms, body } = await observer.next("answered");
      expect(body).toBe(`pid ${standby.pid}`);
      answered.push(ms);
      owner = standby;
    }
    showTimes(
      `SIGKILL → flock(1): ${median(heard).toFixed(1)} ms; → first answer: ${median(answered).toFixed(1)} ms; ${ROUNDS} rounds`,
    );
    expect(median(answered) - median(heard)).toBeLessThan(LIMIT);
  },
  CROWD,
);
