// Many of everything: locks, waiters, reserved ports, and sockets of others.

import { mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Child, endAll, startNode, timeProcess } from "../harness/processes.mjs";
import { interleave } from "../harness/rounds.mjs";
import { summarize, summarizeTimes } from "../harness/samples.mjs";
import { freePorts } from "../harness/temporary.mjs";

export const name = "scale";
export const seconds = { full: 39, quick: 15, smoke: 2 };

const PLAN = {
  full: { rounds: 5, locks: 10_000, waiters: 1000, gateways: 30, connections: 5000, looks: 30 },
  quick: { rounds: 1, locks: 10_000, waiters: 1000, gateways: 8, connections: 5000, looks: 6 },
  smoke: { rounds: 1, locks: 100, waiters: 10, gateways: 1, connections: 50, looks: 1 },
};
const DESCRIPTORS = 32_768;
const RESERVED = 100;

const harness = (file) => fileURLToPath(new URL(`../harness/${file}`, import.meta.url));
const command = fileURLToPath(new URL("../../dist/gateway-lock.cjs", import.meta.url));

export async function run(bench) {
  const plan = PLAN[bench.mode];
  await measureLocks(bench, plan);
  await measureWaiters(bench, plan);
  await measureReserved(bench, plan);
  await measureStatus(bench, plan);
}

/** With as many descriptors as it needs, or as it may have. */
function startLarge(what, program, args) {
  const script = `ulimit -n ${DESCRIPTORS} 2>/dev/null || ulimit -n "$(ulimit -H -n)" && exec "$@"`;
  return new Child(what, "sh", ["-c", script, "sh", program, ...args.map(String)]);
}

function startWorker(bench, subject, operation, path) {
  if (subject === "floor") return startLarge(subject, bench.floor, [`many-${operation}`, path]);
  return startLarge(subject, process.execPath, ["--expose-gc", harness("many-worker.mjs"), subject, operation, path]);
}

async function measureLocks(bench, { rounds, locks }) {
  const where = (metric, unit, subject) => ({ case: "10,000 locks in one process", metric, unit, subject });
  const directory = bench.temporary.directory("many");
  for (let i = 0; i < locks; i++) writeFileSync(`${directory}/${i}`, "", { mode: 0o600 });
  for (const subject of ["floor", "gateway-lock (sync)", "fs-ext", "fs-native-extensions", "os-lock"]) {
    bench.progress.at("10,000 locks", subject);
    const found = { acquire: [], release: [], memory: [] };
    for (let round = 0; round < rounds; round++) {
      // A process of its own for each: memory that is freed is not given back.
      const worker = startWorker(bench, subject, "locks", directory);
      const answer = await worker.ask(`many ${locks}`);
      await worker.end();
      found.acquire.push(answer.acquire);
      found.release.push(answer.release);
      found.memory.push([Math.max(0, answer.memory / locks)]);
    }
    const named = subject === "gateway-lock (sync)" ? "gateway-lock" : subject;
    bench.results.measured(where("acquire each", "us", named), summarizeTimes(found.acquire, "us"));
    bench.results.measured(where("release each", "us", named), summarizeTimes(found.release, "us"));
    bench.results.measured(where("memory each", "bytes", named), summarize(found.memory));
  }
}

const NO_WAITERS = {
  "os-lock": "its locks are those of the process: within one, nobody waits",
  "proper-lockfile": "it polls: a thousand timers are no queue",
  lockfile: "it polls: a thousand timers are no queue",
};

async function measureWaiters(bench, { rounds, waiters }) {
  const where = (metric, unit, subject) => ({ case: "1,000 waiters in one process", metric, unit, subject });
  for (const subject of ["floor", "gateway-lock", "fs-ext", "fs-native-extensions"]) {
    bench.progress.at("1,000 waiters", subject);
    const found = { start: [], memory: [], drain: [] };
    for (let round = 0; round < rounds; round++) {
      const worker = startWorker(bench, subject, "waiters", bench.temporary.name("awaited"));
      const { start } = await worker.ask(`waiters ${waiters}`);
      const { drain, memory } = await worker.ask("drain");
      await worker.end();
      found.start.push(start);
      found.memory.push([Math.max(0, memory / waiters)]);
      found.drain.push([drain / waiters]);
    }
    bench.results.measured(where("start each", "us", subject), summarizeTimes(found.start, "us"));
    bench.results.measured(where("memory each", "bytes", subject), summarize(found.memory));
    bench.results.measured(where("drain each", "us", subject), summarizeTimes(found.drain, "us"));
  }
  for (const [subject, reason] of Object.entries(NO_WAITERS)) {
    bench.results.missing(where("start each", "us", subject), reason);
    bench.results.missing(where("memory each", "bytes", subject), reason);
    bench.results.missing(where("drain each", "us", subject), reason);
  }
  bench.results.note(
    "1,000 waiters: fs-ext's wait on Node's pool of 4 threads, with all of its other work behind them; the others have a thread each, in the kernel's queue.",
  );
}

async function measureReserved(bench, { gateways }) {
  const port = await freePorts(RESERVED + 2);
  const start = (reserved, first) => {
    const args = ["claim", bench.temporary.directory("reserving"), first, reserved];
    return startNode("gateway-lock", harness("gateway-worker.mjs"), args);
  };
  const workers = { "100 reserved ports": start(RESERVED, port), "no reserved ports": start(0, port + RESERVED + 1) };
  const batches = await interleave(Object.keys(workers), gateways, (one) => {
    bench.progress.at(one, "gateway-lock");
    return workers[one].ask("batch 2");
  });
  await endAll(Object.values(workers));
  for (const [one, samples] of batches) {
    const where = { case: one, metric: "acquire + close", unit: "ms", subject: "gateway-lock" };
    bench.results.measured(where, summarizeTimes([samples.flat()], "ms"));
  }
}

async function measureStatus(bench, { connections, looks }) {
  const [stateDir, port] = [bench.temporary.name("state"), await freePorts()];
  mkdirSync(stateDir, { mode: 0o700 });
  const owner = startNode("the owner", harness("server.mjs"), ["gateway-lock", stateDir, port]);
  while ((await owner.next()).event !== "serving");
  const look = async () => {
    const args = [command, "status", "--state-dir", stateDir, "--port", String(port)];
    return (await timeProcess("gateway-lock status", process.execPath, args)).ns;
  };
  const series = async (one) => {
    const times = [];
    await look();
    for (let i = 0; i < looks; i++) {
      bench.progress.at(one, "gateway-lock");
      times.push(await look());
    }
    const where = { case: one, metric: "whole process", unit: "ms", subject: "gateway-lock" };
    bench.results.measured(where, summarizeTimes([times], "ms"));
  };
  await series("status with none");
  const crowd = startLarge("the crowd", process.execPath, [harness("crowd.mjs"), connections]);
  await crowd.next();
  await series("status with 10,000 sockets on the host");
  await endAll([crowd, owner]);
}
