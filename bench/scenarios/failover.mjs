// The owner is killed with a standby waiting: when does somebody answer again?

import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { askOnce, untilAnotherAnswers } from "../harness/http.mjs";
import { untilWaiting } from "../harness/kernel.mjs";
import { Child, startNode } from "../harness/processes.mjs";
import { summarizeTimes } from "../harness/samples.mjs";
import { freePorts } from "../harness/temporary.mjs";
import { flockCommand } from "../peers/index.mjs";

export const name = "failover";
export const seconds = { full: 45, quick: 21, smoke: 4 };

const PLAN = {
  full: { trials: 20, stale: 8 },
  quick: { trials: 6, stale: 3 },
  smoke: { trials: 1, stale: 1 },
};
const PATIENCE = 60_000; // ms
const WHERE = { case: "SIGKILL to HTTP answer", metric: "failover", unit: "ms" };

const server = fileURLToPath(new URL("../harness/server.mjs", import.meta.url));

/** They are woken by the kernel. */
const WOKEN = ["floor", "gateway-lock", "fs-ext", "fs-native-extensions", "os-lock", "flock(1)", "flock(1), then node"];

/** They look how old the lock is. `heartbeat`: how often an owner renews it, in ms; a kill comes at any time between two. */
const STALE = [
  { subject: "proper-lockfile", peer: "proper-lockfile", environment: {}, heartbeat: 5000, slow: true },
  {
    subject: "proper-lockfile (stale 2 s)",
    peer: "proper-lockfile",
    environment: { BENCH_STALE: "2" },
    heartbeat: 1000,
  },
  { subject: "lockfile", peer: "lockfile", environment: { BENCH_STALE: "10" }, heartbeat: 0, slow: true },
];

export async function run(bench) {
  const { trials, stale } = PLAN[bench.mode];
  const woken = WOKEN.filter((subject) => !subject.startsWith("flock(1)") || flockCommand() !== null);
  const times = new Map(woken.map((subject) => [subject, []]));
  for (let trial = 0; trial < trials; trial++) {
    for (let i = 0; i < woken.length; i++) {
      const subject = woken[(i + trial) % woken.length];
      bench.progress.at(`trial ${trial + 1} of ${trials}`, subject);
      times.get(subject).push(await attempt(bench, { subject, peer: subject, port: await freePorts() }));
    }
  }
  for (const subject of WOKEN) report(bench, subject, times.get(subject), "there is no flock(1) here");
  await measureStale(bench, stale);
  bench.results.note(
    "proper-lockfile: kills spread over the interval of its heartbeat. lockfile has none: with stale = 10 s, a standby takes a lock of a living owner too, 10 s after it was made.",
  );
}

/** All at once: they idle. */
async function measureStale(bench, trials) {
  const attempted = STALE.filter(({ slow }) => bench.mode !== "smoke" || !slow);
  bench.progress.at("staleness timers", attempted.map(({ subject }) => subject).join(", "));
  const first = await freePorts(attempted.length * trials);
  const times = await Promise.all(
    attempted.map((one, i) =>
      Promise.all(
        Array.from({ length: trials }, (_, trial) =>
          attempt(bench, { ...one, port: first + i * trials + trial, wait: ((trial + 0.5) / trials) * one.heartbeat }),
        ),
      ),
    ),
  );
  for (const one of STALE) report(bench, one.subject, times[attempted.indexOf(one)], "takes too long for a smoke test");
}

function report(bench, subject, times, reason) {
  if (times === undefined) bench.results.missing({ ...WHERE, subject }, reason);
  else bench.results.measured({ ...WHERE, subject }, summarizeTimes([times], "ms"));
}

/** ns from the kill to an answer of the standby. */
async function attempt(bench, { subject, peer, environment = {}, port, wait = 0 }) {
  const path = peer === "gateway-lock" ? bench.temporary.directory("state") : bench.temporary.name("lock");
  const start = (role) => {
    const what = `the ${role} of ${subject}`;
    if (peer === "floor") return new Child(what, bench.floor, ["standby", path, String(port)]);
    const args = [server, peer, path, String(port)];
    if (peer === "flock(1), then node") return new Child(what, "flock", [path, process.execPath, ...args]);
    return startNode(what, args[0], args.slice(1), { environment });
  };
  const owner = start("owner");
  const { pid } = await served(owner);
  const standby = start("standby");
  // What flock(1) is to start is not there yet to say anything.
  if (peer !== "flock(1), then node") await standby.next();
  if (WOKEN.includes(peer)) await untilWaiting(path, 1);
  if ((await askOnce(port)) !== pid) throw new Error(`the owner of ${subject} (pid ${pid}) does not answer`);
  // When in the life of a heartbeat the owner dies is what is varied.
  if (wait > 0) await pause(wait);
  const killed = process.hrtime.bigint();
  owner.kill("SIGKILL", pid);
  const answered = await untilAnotherAnswers(port, pid, standby, PATIENCE);
  await Promise.all([owner.end(), standby.end()]);
  return Number(answered - killed);
}

async function served(child) {
  for (;;) {
    const { event, pid } = await child.next(PATIENCE);
    if (event === "serving") return { pid };
  }
}
