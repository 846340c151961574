// Proves that to find who holds locks and sockets takes hardly longer than to look at every descriptor there is.

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect } from "vitest";
import { isFailure, native } from "../../lib/native.ts";
import { isLinux, itWhere } from "../support/capabilities.ts";
import { bound } from "../support/listener-tools.ts";
import { showTimes } from "../support/measures.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";
import { aFile, hasCompiler, lock } from "../support/waits.ts";

const it = itWhere(isLinux && hasCompiler, "needs procfs and a C compiler");

const PROCESSES = 1000;
const SOCKETS_EACH = 10;
const LOCKS = 4;
/** Of processor time; others on this machine can only add to it, and the quickest one is the truth. */
const ROUNDS = 15;
const TIMES_THE_FLOOR = 1.3;
const HINTED_PART_OF_THE_FLOOR = 0.1;
const NOBODY = 2 ** 40;

it("finds the holders of several locks, or of sockets, among 1,000 processes with 10,000 sockets", async () => {
  const crowd = join(temporaryDirectory(), "crowd");
  execFileSync("cc", ["-O2", "-o", crowd, fixturePath("holders-crowd.c")]);
  await new TestProcess(crowd, ["crowd", String(PROCESSES), String(SOCKETS_EACH)]).next("crowded");
  const paths = Array.from({ length: LOCKS }, aFile);
  for (const path of paths) lock(path);
  const { port } = bound({ host: "127.0.0.1", port: await freePort() });
  const sockets = native().findPortSockets(port, "listening");
  if (isFailure(sockets)) throw new Error("no socket");
  const ids = sockets.map(({ id }) => id);

  const looks: Record<string, () => unknown> = {
    [`${LOCKS} locks`]: () => native().findLockHolders(paths, [], false),
    "a socket, and one that nobody has": () => native().findSocketOwners([...ids, NOBODY], []),
    "a lock, hinted": () => native().findLockHolders(paths, [process.pid], true),
    "a socket, hinted": () => native().findSocketOwners(ids, [process.pid]),
  };
  let floor = Number.POSITIVE_INFINITY;
  const least = new Map(Object.keys(looks).map((name) => [name, Number.POSITIVE_INFINITY]));
  for (let round = 0; round < ROUNDS; round++) {
    floor = Math.min(floor, Number(execFileSync(crowd, ["walk"])) / 1e6);
    for (const [name, look] of Object.entries(looks)) {
      const before = process.cpuUsage();
      look();
      const { user, system } = process.cpuUsage(before);
      least.set(name, Math.min(least.get(name) ?? 0, (user + system) / 1000));
    }
  }
  showTimes(`every link read: ${floor.toFixed(1)} ms`);
  for (const [name, ms] of least) showTimes(`${name}: ${ms.toFixed(2)} ms, ${(ms / floor).toFixed(3)} of that`);

  expect(native().findLockHolders(paths, [], false)).toEqual(
    paths.map(() => ({ locked: true, holders: [process.pid] })),
  );
  expect(native().findSocketOwners([...ids, NOBODY], [])).toEqual([process.pid, null]);
  for (const [name, ms] of least) {
    expect(ms / floor, name).toBeLessThan(name.endsWith("hinted") ? HINTED_PART_OF_THE_FLOOR : TIMES_THE_FLOOR);
  }
});
