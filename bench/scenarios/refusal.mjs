// Somebody else has it: how long it takes to know.

import { fileURLToPath } from "node:url";
import { Child, endAll, startNode, timeProcess } from "../harness/processes.mjs";
import { interleave } from "../harness/rounds.mjs";
import { summarizeTimes } from "../harness/samples.mjs";
import { freePorts } from "../harness/temporary.mjs";
import { flockCommand, PEERS } from "../peers/index.mjs";

export const name = "refusal";
export const seconds = { full: 32, quick: 8, smoke: 3 };

const PLAN = {
  full: { rounds: 15, batch: 200, processes: 30 },
  quick: { rounds: 4, batch: 100, processes: 5 },
  smoke: { rounds: 1, batch: 2, processes: 1 },
};
const SLOW = 1 / 10;
const REFUSED = 75;

const harness = (file) => fileURLToPath(new URL(`../harness/${file}`, import.meta.url));

export async function run(bench) {
  const subjects = Object.keys(PEERS).filter((subject) => !["gateway-lock (sync)", "flock(1)"].includes(subject));
  const hasFlock = flockCommand() !== null;
  const owners = {};
  const port = await freePorts(subjects.length + 1);
  for (const [i, subject] of [...subjects, ...(hasFlock ? ["flock(1)"] : [])].entries()) {
    const path = subject === "gateway-lock" ? bench.temporary.directory("state") : bench.temporary.name("owned");
    const child = startNode(`the owner of ${subject}`, harness("server.mjs"), [subject, path, port + i]);
    owners[subject] = { child, path, port: port + i };
  }
  for (const { child } of Object.values(owners)) {
    while ((await child.next()).event !== "serving");
  }
  await measureInProcess(bench, owners);
  await measureProcesses(bench, owners);
  await endAll(Object.values(owners).map(({ child }) => child));
}

/** What a contender in C needs of the gateway. */
function floorArguments({ path, port }) {
  return [path, `${path}/locks/gateway.state.lock`, String(port)];
}

async function measureInProcess(bench, owners) {
  const { rounds, batch } = PLAN[bench.mode];
  const ours = owners["gateway-lock"];
  const gateway = (subject, operation) =>
    startNode(subject, harness("gateway-worker.mjs"), [operation, ours.path, ours.port]);
  const workers = {
    floor: new Child("floor", bench.floor, ["refusal", ...floorArguments(ours)]),
    "gateway-lock": gateway("gateway-lock", "refused"),
    "net.Server.listen": gateway("net.Server.listen", "refused-server"),
  };
  for (const [subject, { path }] of Object.entries(owners)) {
    workers[subject] ??= startNode(subject, harness("lock-worker.mjs"), [subject, "refused", path]);
  }
  const batches = await interleave(Object.keys(workers), rounds, (subject) => {
    bench.progress.at("in process", subject);
    return workers[subject].ask(`batch ${Math.max(2, Math.round(batch * (subject === "flock(1)" ? SLOW : 1)))}`);
  });
  await endAll(Object.values(workers));
  for (const [subject, samples] of batches) {
    const where = { case: "in process", metric: "time to know", unit: "us", subject };
    bench.results.measured(where, summarizeTimes(samples, "us"));
  }
}

async function measureProcesses(bench, owners) {
  const commands = {
    "bare Node": [process.execPath, [harness("empty.mjs")], 0],
    floor: [bench.floor, ["refused", ...floorArguments(owners["gateway-lock"])], REFUSED],
  };
  for (const [subject, { path, port }] of Object.entries(owners)) {
    const adapter = new URL(`../peers/${PEERS[subject].module}.mjs`, import.meta.url).href;
    commands[subject] = [process.execPath, [harness("try-once.mjs"), adapter, path], REFUSED];
    if (subject === "flock(1)") commands[subject] = ["flock", ["-n", path, "true"], 1];
    if (subject === "gateway-lock") {
      commands[subject] = [process.execPath, [harness("try-gateway.mjs"), path, String(port)], REFUSED];
    }
  }
  const batches = await interleave(Object.keys(commands), PLAN[bench.mode].processes, async (subject) => {
    bench.progress.at("whole process", subject);
    const [command, args, code] = commands[subject];
    return [(await timeProcess(`${subject}, refused`, command, args, { code })).ns];
  });
  for (const [subject, samples] of batches) {
    const where = { case: "whole process", metric: "spawn to exit", unit: "ms", subject };
    bench.results.measured(where, summarizeTimes([samples.flat()], "ms"));
  }
}
