// Nobody else wants it: taken and freed, by each subject in a process of its own.

import { fileURLToPath } from "node:url";
import { Child, endAll, startNode } from "../harness/processes.mjs";
import { interleave } from "../harness/rounds.mjs";
import { summarizeTimes } from "../harness/samples.mjs";
import { freePorts } from "../harness/temporary.mjs";
import { flockCommand, PEERS } from "../peers/index.mjs";

export const name = "uncontended";
export const seconds = { full: 13, quick: 6, smoke: 2 };

const PLAN = {
  full: { rounds: 40, batch: 1000 },
  quick: { rounds: 5, batch: 1000 },
  smoke: { rounds: 1, batch: 2 },
};
/** A program that has just begun is compiled while it runs. */
const WARM_UPS = 3;
/** Of a batch: what takes longer gets fewer. */
const SHARE = { "flock(1)": 0.02, "PID file": 0.2, "proper-lockfile": 0.1, lockfile: 0.2 };
const FILES = 0.2;
const GATEWAYS = 0.1;

const lockWorker = fileURLToPath(new URL("../harness/lock-worker.mjs", import.meta.url));
const gatewayWorker = fileURLToPath(new URL("../harness/gateway-worker.mjs", import.meta.url));

const LOCK = { case: "bare lock", metric: "acquire + release" };
const RECORD = { case: "lock with record", metric: "acquire + release" };
const GATEWAY = { case: "gateway", metric: "acquire + close" };

export async function run(bench) {
  await measureCase(bench, LOCK, startLocks(bench), (subject) => SHARE[subject] ?? 1);
  await measureCase(bench, RECORD, startRecords(bench), () => FILES);
  await measureCase(bench, GATEWAY, await startGateways(bench), () => GATEWAYS);
  bench.results.note("os-lock's locks are those of a process: within one process they exclude nobody.");
}

async function measureCase(bench, where, workers, shareOf) {
  const { rounds, batch } = PLAN[bench.mode];
  const measure = (subject) => {
    bench.progress.at(where.case, subject);
    const count = Math.max(2, Math.round(batch * shareOf(subject)));
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

function startLocks(bench) {
  const { floor, temporary } = bench;
  return {
    floor: new Child("floor", floor, ["lock", temporary.name("lock")]),
    "flock only": new Child("flock only", floor, ["flock-only", temporary.name("lock")]),
    ...startPeers(bench, LOCK, "lock", ({ module }) => {
      return module === "flock-command" && flockCommand() === null ? "there is no flock(1) here" : null;
    }),
  };
}

function startRecords(bench) {
  return {
    floor: new Child("floor", bench.floor, ["record", bench.temporary.name("record")]),
    ...startPeers(bench, RECORD, "record", ({ record }) => {
      return record ? null : "it has no file to keep a record in";
    }),
  };
}

function startPeers({ results, temporary }, where, operation, absence) {
  const workers = {};
  for (const [subject, peer] of Object.entries(PEERS)) {
    // With a record it is what gateway-lock is: that has to be taken by tryLockFile.
    if (where === RECORD && subject === "gateway-lock (sync)") continue;
    const reason = absence(peer);
    if (reason !== null) results.missing({ ...where, unit: "us", subject }, reason);
    else workers[subject] = startNode(subject, lockWorker, [subject, operation, temporary.name(operation)]);
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
