// How long a look takes, alone and in a crowd, beside the floor: reading the name of every descriptor that is open on this machine.

import { mkdirSync, readdirSync, readlinkSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { expect } from "vitest";
import { inspectGateway } from "../../lib/inspect/status.ts";
import { waitForGateway } from "../../lib/inspect/wait.ts";
import type { InspectOptions } from "../../lib/options.ts";
import { hasPython, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { acquire } from "../support/gateways.ts";
import { startReady, startStranger } from "../support/inspections.ts";
import { median, showTimes } from "../support/measures.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux && isRoot && hasPython, "needs Linux, root and Python");
const SOCKETS = 10_000;
const PROCESSES = 1000;
const LOOKS = 9;
/** Walks through all processes for one verdict: where the holder has been found, to find all of them; where a stranger listens, in each of two looks, once for the locks and once for the socket. */
const WALKS = { expected: 1, free: 1, "foreign-listener": 4 };
/** A walk asks more of each process than the names of its descriptors, and less of each descriptor. */
const FACTOR = 1.5;
/** What has nothing to do with the crowd: the pause of an alarm, the health probe, /proc/locks. ms */
const REST = 60;

async function timesOf(action: () => unknown): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < LOOKS; round++) {
    const started = performance.now();
    await action();
    times.push(performance.now() - started);
  }
  return median(times);
}

function readAllDescriptors(): number {
  let count = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d/.test(name))) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) if (readlinkSync(`/proc/${pid}/fd/${fd}`) !== "") count++;
    } catch {
      // It has gone, or closed one meanwhile.
    }
  }
  return count;
}

it(`finds holders and listeners among ${SOCKETS} sockets and ${PROCESSES} processes`, async () => {
  const options = { stateDir: join(temporaryDirectory(), "state"), port: await freePort() };
  const gateway = await acquire(options);
  await gateway.listen(createServer(gateway.healthz));
  const free = { stateDir: join(temporaryDirectory(), "free"), port: await freePort() };
  mkdirSync(free.stateDir); // or there would be nothing to look for
  const foreign = { ...free, port: await freePort() };
  await startStranger(foreign.port);
  const looks: [verdict: keyof typeof WALKS, options: InspectOptions][] = [
    ["expected", options],
    ["free", free],
    ["foreign-listener", foreign],
  ];
  const look = async (each: InspectOptions, verdict: string) =>
    expect((await inspectGateway(each)).verdict).toBe(verdict);
  const quiet: number[] = [];
  for (const [verdict, each] of looks) quiet.push(await timesOf(() => look(each, verdict)));

  const crowd = new TestProcess("python3", [fixturePath("inspect-crowd.py"), String(SOCKETS), String(PROCESSES)]);
  await crowd.next("text");
  const floor = await timesOf(readAllDescriptors);
  const count = readAllDescriptors();
  for (const [index, [verdict, each]] of looks.entries()) {
    const crowded = await timesOf(() => look(each, verdict));
    const times = `${crowded.toFixed(1)} ms, in a quiet place ${quiet[index]?.toFixed(1)} ms`;
    showTimes(`${verdict}: ${times}; ${count} descriptors read by name ${floor.toFixed(1)} ms`);
    expect(crowded).toBeLessThan(REST + WALKS[verdict] * FACTOR * floor);
  }
  crowd.child.stdin?.end();
  await crowd.exited;
});

it("hears of the end of an owner within milliseconds, however it ends", async () => {
  const BOUND = 100; // ms; a fifth of what a look twice a second could take
  const times: number[] = [];
  for (let round = 0; round < LOOKS; round++) {
    const options = { stateDir: join(temporaryDirectory(), "state"), port: await freePort() };
    const owner = await startReady(options);
    let waiting: ReturnType<typeof waitForGateway> | undefined;
    await new Promise<void>((resolve) => {
      waiting = waitForGateway({ ...options, for: "free", onChange: () => resolve() });
    });
    const started = performance.now();
    if (round % 2 === 0) owner.child.kill("SIGKILL");
    else owner.send("close");
    expect(await waiting).toMatchObject({ verdict: round % 2 === 0 ? "stale-record" : "free" });
    times.push(performance.now() - started);
  }
  showTimes(`an owner's end is heard after ${times.map((ms) => ms.toFixed(1)).join(", ")} ms`);
  expect(median(times)).toBeLessThan(BOUND);
});
