// Nobody else wants it: taken and freed, by each subject in a process of its own.

import { fileURLToPath } from "node:url";
import { Child, endAll, startNode } from "../harness/processes.mjs";
import { interleave } from "../harness/rounds.mjs";
import { summarizeTimes } from "../harness/samples.mjs";
import { freePorts } from "../harness/temporary.mjs";
import { flockCommand, load, PEERS } from "../peers/index.mjs";

export const name = "uncontended";
export const seconds = { full: 45, quick: 8, smoke: 2 };

const PLAN = {
  full: { rounds: 20, batch: 500 },
  quick: { rounds: 5, batch: 200 },
  smoke: { rounds: 1, batch: 2 },
};
/** Of whoever needs a millisecond for one. */
const SLOW = 1 / 20;

const lockWorker = fileURLToPath(new URL("../harness/lock-worker.mjs", import.meta.url));
const gatewayWorker = fileURLToPath(new URL("../harness/gateway-worker.mjs", import.meta.url));

export async function run(bench) {
  await measureCase(bench, { case: "bare lock", metric: "acquire + release" }, startLocks(bench, "lock"));
  await measureCase(bench, { case: "lock with record", metric: "acquire + release" }, await startRecords(bench));
  await measureCase(bench, { case: "gateway", metric: "acquire + close" }, await startGateways(bench), 1 / 4);
  bench.results.note("os-lock's locks are those of a process: within one process they exclude nobody.");
}

async function measureCase(bench, where, workers, share = 1) {
  const { rounds, batch } = PLAN[bench.mode];
  const batches = await interleave(Object.keys(workers), rounds, (subject) => {
    bench.progress.at(where.case, subject);
    const count = Math.max(2, Math.round(batch * share * (subject === "flock(1)" ? SLOW : 1)));
    return workers[subject].ask(`batch ${count}`);
  });
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
