// Killed with clients connected, and started again on the same port: how long the bind is refused.

import { fileURLToPath } from "node:url";
import { askOnce, connectClients } from "../harness/http.mjs";
import { Child, startNode } from "../harness/processes.mjs";
import { single, summarize, summarizeTimes } from "../harness/samples.mjs";
import { freePorts } from "../harness/temporary.mjs";

export const name = "restart";
export const seconds = { full: 21, quick: 7, smoke: 1 };

const PLAN = {
  full: { "gateway-lock": 100, "net.Server.listen": 30 },
  quick: { "gateway-lock": 20, "net.Server.listen": 5 },
  smoke: { "gateway-lock": 1, "net.Server.listen": 1 },
};
const CLIENTS = 5;
const PATIENCE = 150_000; // ms: TIME_WAIT lasts 60 s
const CASE = "clients connected";

const restarted = fileURLToPath(new URL("../harness/restarted.mjs", import.meta.url));

/** A minute in which it only tries: it goes on beside other scenarios. */
export function prepare(bench) {
  if (bench.mode === "smoke") return { strict: null };
  const strict = freePorts().then((port) =>
    restart("strict bind", 1, port, () => new Child("strict bind", bench.floor, ["strict-bind", String(port)])),
  );
  // Whoever awaits it later hears of it.
  strict.catch(() => {});
  return { strict };
}

export async function run(bench, { strict }) {
  for (const [subject, count] of Object.entries(PLAN[bench.mode])) {
    const [port, stateDir] = [await freePorts(), bench.temporary.directory("state")];
    const start = () => startNode(subject, restarted, [subject, stateDir, port]);
    const note = (done) => bench.progress.at(`restart ${done} of ${count}`, subject);
    report(bench, subject, await restart(subject, count, port, start, note));
  }
  bench.progress.at("waits for the end of TIME_WAIT", "strict bind");
  if (strict !== null) return report(bench, "strict bind", await strict);
  const units = { blocked: "ms", "refused binds": "count", restarts: "count" };
  for (const [metric, unit] of Object.entries(units)) {
    bench.results.missing({ case: CASE, metric, unit, subject: "strict bind" }, "takes a minute");
  }
}

/** The next one is ready to bind when the one before is killed, and does so as soon as that one is dead. */
async function restart(subject, count, port, start, note = () => {}) {
  const found = [];
  let [current, next] = [start(), start()];
  await Promise.all([current.next(), next.next()]);
  await current.ask("go");
  for (let i = 0; i < count; i++) {
    note(i + 1);
    const clients = await connectClients(port, CLIENTS);
    await next.ready;
    await current.end();
    const { pid, blocked, refused } = await next.ask("go", PATIENCE);
    found.push({ blocked, refused });
    if ((await askOnce(port)) !== pid) throw new Error(`${subject} (pid ${pid}) does not answer after its restart`);
    for (const client of clients) client.destroy();
    current = next;
    if (i + 1 === count) break;
    next = start();
    next.ready = next.next();
    next.ready.catch(() => {});
  }
  await current.end();
  return found;
}

function report(bench, subject, found) {
  const where = (metric, unit) => ({ case: CASE, metric, unit, subject, parameters: { clients: CLIENTS } });
  bench.results.measured(where("blocked", "ms"), summarizeTimes([found.map(({ blocked }) => blocked)], "ms"));
  const refused = found.reduce((sum, one) => sum + one.refused, 0);
  bench.results.measured(where("refused binds", "count"), single(refused));
  bench.results.measured(where("restarts", "count"), summarize([[found.length]]), "more");
}
