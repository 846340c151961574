// Proves that looking refuses nobody and changes nothing, and raises no false alarm, while gateways start and end as fast as they can.
//
// GATEWAY_LOCK_SHOW_TIMES=1 shows how many there were. GATEWAY_LOCK_STARTS=100000 makes it 100,000 starts of both kinds, which takes minutes.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { hasStrace, isLinux, itWhere } from "../support/capabilities.ts";
import { startReady, traceOf } from "../support/inspections.ts";
import { showTimes } from "../support/measures.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux, "needs Linux");
const itWithStrace = itWhere(hasStrace, "needs strace");
const STARTS = Number(process.env.GATEWAY_LOCK_STARTS ?? 0);
/** Without that: for how long. ms */
const BRIEFLY = 2500;
const LONG = 3_600_000; // ms
const LOOKERS = 2;

for (const what of ["locks", "gateways"]) {
  const title = `refuses none of ${STARTS === 0 ? "many" : STARTS} starts of ${what}, raises no false alarm, and changes nothing`;
  it(title, { timeout: LONG }, async () => {
    const options = { stateDir: join(temporaryDirectory(), "state"), port: await freePort() };
    const never = ["split", "foreign-listener", "unhealthy"];
    const lookers = Array.from({ length: LOOKERS }, () => startFixture("inspect-loop.mjs", { options, never }));
    for (const looker of lookers) await looker.next("looking");
    const limits = STARTS === 0 ? { count: 1e9, ms: BRIEFLY } : { count: STARTS };
    const starter = startFixture("inspect-starts.mjs", { options, what, ...limits });
    await starter.exited;
    const { starts, refused, ms } = await starter.next("started");
    for (const looker of lookers) looker.child.stdin?.end();
    const looked = await Promise.all(lookers.map((looker) => looker.next("looked")));
    const verdicts = looked.map((each) => each.verdicts);
    showTimes(`${starts} starts of ${what} in ${Math.round(ms)} ms, looked at meanwhile: ${JSON.stringify(verdicts)}`);
    expect(refused).toEqual([]);
    expect(looked.flatMap(({ alarms }) => alarms)).toEqual([]);
    expect(Math.min(...looked.map(({ looks }) => looks))).toBeGreaterThan(0);
  });
}

itWithStrace("locks nothing, makes nothing, deletes nothing and opens nothing for writing", async () => {
  const base = temporaryDirectory();
  const options = {
    stateDir: join(base, "state"),
    configPath: join(base, "config", "my.json"),
    port: await freePort(),
  };
  const gateway = await startReady(options);
  const log = join(temporaryDirectory(), "log");
  const changing =
    "flock,fcntl,mkdir,mkdirat,rmdir,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat";
  const trace = [
    "-f",
    "-o",
    log,
    "-e",
    `trace=${changing},openat,utimensat,fchmod,fchmodat,fchown,ftruncate,truncate,kill,tgkill`,
  ];
  for (const stateDir of [options.stateDir, join(base, "missing")]) {
    const before = traceOf(base);
    const argument = JSON.stringify({ options: { ...options, stateDir } });
    const looker = new TestProcess("strace", [...trace, process.execPath, fixturePath("inspect-once.mjs"), argument]);
    await looker.next("report");
    await looker.exited;
    expect(traceOf(base)).toEqual(before);
    const calls = readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line.includes(base));
    expect(calls.filter((line) => !/openat\(.*O_RDONLY/.test(line))).toEqual([]);
    expect(calls.filter((line) => /O_CREAT|O_TRUNC/.test(line))).toEqual([]);
    // flock takes a descriptor, not a path.
    expect(readFileSync(log, "utf8")).not.toMatch(/\bflock\(|F_SETLK|F_OFD_SETLK/);
  }
  await gateway.kill();
});
