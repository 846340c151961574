// Nobody else wants it: taken and freed, by each subject in a process of its own.

import { fileURLToPath } from "node:url";
import { Child, endAll, startNode } from "../harness/processes.mjs";
import { interleave } from "../harness/rounds.mjs";
import { summarizeTimes } from "../harness/samples.mjs";
import { freePorts } from "../harness/temporary.mjs";
import { flockCommand, load, PEERS } from "../peers/index.mjs";

export const name = "uncontended";
export const seconds = { full: 20, quick: 8, smoke: 2 };

const PLAN = {
  full: { rounds: 40, batch: 1000 },
  quick: { rounds: 5, batch: 1000 },
  smoke: { rounds: 1, batch: 2 },
};
/** A program that has just begun is compiled while it runs. */
const WARM_UPS = 3;
/**
 * Of a batch. Whoever makes and deletes files gets fewer: ext4 does not use an inode again for some minutes, and after some thousand of
 * them looks for a free one so long that it hides all else.
 */
const SHARE = { "flock(1)": 0.02, "PID file": 0.03, "proper-lockfile": 0.03, lockfile: 0.03 };
const FILES = 0.04;
const GATEWAYS = 0.05;

const lockWorker = fileURLToPath(new URL("../harness/lock-worker.mjs", import.meta.url));
const gatewayWorker = fileURLToPath(new URL("../harness/gateway-worker.mjs", import.meta.url));

export async function run(bench) {
  await measureCase(bench, { case: "bare lock", metric: "acquire + release" }, startLocks(bench, "lock"), SHARE);
  await measureCase(
    bench,
    { case: "lock with record", metric: "acquire + release" },
    await startRecords(bench),
    {},
    FILES,
  );
  await measureCase(bench, { case: "gateway", metric: "acquire + close" }, await startGateways(bench), {}, GATEWAYS);
  bench.results.note("os-lock's locks are those of a process: within one process they exclude nobody.");
}

async function measureCase(bench, where, workers, shares, share = 1) {
  const { rounds, batch } = PLAN[bench.mode];
  const measure = (subject) => {
    bench.progress.at(where.case, subject);
    const count = Math.max(2, Math.round(batch * (shares[subject] ?? share)));
    return workers[subject].ask(`batch ${count}`);
  };
  const warmUp = async (subject) => {
    for (let i = 0; i < WARM_UPS; i++) await measure(subject);
  };
  const batches = await interleave(Object.keys(workers), rounds, measure, { warmUp });
  await endAll(Object.values(workers));
  for (const [subject, samples] of batches) {
    bench.results.measured({ ...where, unit: "us", subject }, summarizeTimes(samples, "us"));
  }
}

function startLocks(bench, operation) {
  const workers = {
    floor: new Child("floor", bench.floor, ["lock", bench.temporary.name("lock")]),
    "flock only": new Child("flock only", bench.floor, ["flock-only", bench.temporary.name("lock")]),
  };
  for (const subject of Object.keys(PEERS)) {
    if (subject === "flock(1)" && flockCommand() === null) {
      bench.results.missing(
        { case: "bare lock", metric: "acquire + release", unit: "us", subject },
        "there is no flock(1) here",
      );
      continue;
    }
    workers[subject] = startNode(subject, lockWorker, [subject, operation, bench.temporary.name("lock")]);
  }
  return workers;
}

async function startRecords(bench) {
  const workers = { floor: new Child("floor", bench.floor, ["record", bench.temporary.name("record")]) };
  for (const subject of Object.keys(PEERS)) {
    if (subject === "gateway-lock (sync)") continue; // as without it: the record is written by hand in both
    if ((await load(subject)).acquireWithRecord === undefined) {
      bench.results.missing(
        { case: "lock with record", metric: "acquire + release", unit: "us", subject },
        "it has no file to keep a record in",
      );
      continue;
    }
    workers[subject] = startNode(subject, lockWorker, [subject, "record", bench.temporary.name("record")]);
  }
  return workers;
}

async function startGateways(bench) {
  const [ours, floor] = [bench.temporary.directory("gateway"), bench.temporary.directory("gateway")];
  const port = await freePorts(2);
  return {
    floor: new Child("floor", bench.floor, ["gateway", floor, `${floor}/gateway.json`]),
    "gateway-lock": startNode("gateway-lock", gatewayWorker, ["gateway", ours, port]),
    "net.Server.listen": startNode("net.Server.listen", gatewayWorker, ["server", ours, port + 1]),
  };
}
