// One process of the chaos: takes, waits for, hands over and gives back whatever its seed tells it, and says in the journal what it owns. It never ends by
// itself; { world, seed, mark }. It writes a dot to its standard output when it begins, and at each `mark`, so that it can be killed there.

import { subscribe } from "node:diagnostics_channel";
import { writeSync } from "node:fs";
import { createServer, get } from "node:http";
import { setTimeout as pause, setImmediate as turn } from "node:timers/promises";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { acquireGateway, lockFile, superviseGateway, tryLockFile } from "../../dist/index.js";
import { makeRandom } from "../support/random.mjs";
import { claimsOf, note, resourcesOf } from "./world.mjs";

const { world, seed, mark } = isMainThread ? JSON.parse(process.argv[2]) : workerData;
const random = makeRandom(seed);
const claims = claimsOf(world);
/** What a contender may be told here. All else is a finding. */
const REFUSALS = new Set(["ALREADY_LISTENING", "ALREADY_RUNNING", "HANDOVER_FAILED", "NOT_HEALTHY"]);
const FOR_EVER = 2 ** 31 - 1; // ms

function say(event, fields) {
  note(world.journal, event, { thread: isMainThread ? 0 : 1, ...fields });
  if (event === mark || event === "born") writeSync(1, ".");
}

subscribe("gateway-lock:wait", () => say("wait"));
subscribe("gateway-lock:handover-step", ({ role, step }) => say("handover", { role, step }));
process.on("unhandledRejection", (error) => say("finding", { what: `unhandled: ${error.stack}` }));
process.on("uncaughtException", (error) => say("finding", { what: `uncaught: ${error.stack}` }));

let ownerships = 0;
/** From `own` to the last `beat`, this process acts as if it were alone. */
class Ownership {
  #id = `${process.pid}.${isMainThread ? 0 : 1}.${ownerships++}`;
  #over = false;
  constructor(resources, by) {
    say("own", { id: this.#id, resources, by });
  }
  get over() {
    return this.#over;
  }
  /** What an owner does that must not be done by two. */
  beat() {
    if (!this.#over) say("beat", { id: this.#id });
  }
  end(why) {
    if (this.#over) return;
    this.#over = true;
    say("disown", { id: this.#id, why });
  }
}

async function holdFor(ms, isOwner) {
  const end = performance.now() + ms;
  while (performance.now() < end && isOwner()) await pause(1);
}

function answerOf(port) {
  return new Promise((resolve) => {
    get({ host: "127.0.0.1", port, agent: false, timeout: 5000 }, (response) => {
      response
        .setEncoding("utf8")
        .once("data", resolve)
        .once("error", () => resolve(null));
    }).once("error", () => resolve(null));
  });
}

/** Acquires by `acquire`, serves for a while, and gives back. */
async function own(claim, acquire) {
  const resources = resourcesOf(claim);
  let ownership;
  const handover = random.chance(0.7) && {
    onHandover: async () => ownership?.end("handover"),
    onResume: async () => {
      ownership = new Ownership(resources);
    },
  };
  const timeout = random.weighted([
    [5, 0],
    [3, random.integer(1, 300)],
    [2, FOR_EVER],
  ]);
  say("acquire", { claim, timeout, handover: handover !== false });
  let gateway;
  try {
    gateway = await acquire({ ...claim, timeout, handover });
  } catch (error) {
    say("refused", { code: error.code });
    if (!REFUSALS.has(error.code)) say("finding", { what: `refused by ${error.stack}`, cause: error.cause?.message });
    return;
  }
  if (gateway === null) return say("refused", { code: "left in control" });
  ownership = new Ownership(resources);
  gateway.lost.addEventListener("abort", () => ownership.end(`lost: ${gateway.lost.reason.message}`));
  const beating = setInterval(() => ownership.beat(), 1);
  const me = `${process.pid} ${gateway.owner.ownerId}`;
  const server = createServer((request, response) => {
    if (request.url === "/healthz") gateway.healthz(request, response);
    else response.end(me);
  });
  try {
    await gateway.listen(server);
    gateway.ready();
    const answer = await answerOf(claim.port);
    if (answer !== null && answer !== me && !ownership.over && handover === false)
      say("finding", { what: `port ${claim.port} of ${me} is answered by ${answer}` });
    if (random.chance(0.2)) gateway.update({ metadata: { round: random.integer(0, 9) } });
    await holdFor(random.between(0, 60), () => !gateway.lost.aborted && !gateway.handedOver.aborted);
  } catch (error) {
    // Handed over, or lost, in the middle of it.
    if (!gateway.handedOver.aborted && !gateway.lost.aborted && !ownership.over)
      say("finding", { what: `after its acquisition: ${error.stack}` });
  }
  ownership.end("close");
  clearInterval(beating);
  if (!gateway.handedOver.aborted) say("close");
  await gateway.close(random.chance(0.5) ? { force: true } : {});
  if (server.listening) server.close();
  say("closed");
}

async function supervised(claim) {
  process.env.GATEWAY_LOCK_SUPERVISOR = "pm2";
  await own(claim, async (options) => {
    const result = await superviseGateway({
      ...options,
      timeout: 0,
      health: { timeout: 100 },
      retry: { interval: 20, limit: 300 },
      onDuplicate: random.pick(["leave", "standby"]),
    });
    return result.outcome === "acquired" ? result.gateway : null;
  });
}

async function plainLock() {
  const remove = random.chance(0.5);
  say("acquire");
  let lock;
  try {
    lock = random.chance(0.5)
      ? tryLockFile(world.plainLock, { remove })
      : await lockFile(world.plainLock, { remove, timeout: random.integer(1, 200) });
  } catch (error) {
    say("refused", { code: error.code });
    if (!REFUSALS.has(error.code)) say("finding", { what: `refused by ${error.stack}` });
    return;
  }
  if (lock === null) return say("refused", { code: null });
  const ownership = new Ownership([`file ${world.plainLock}`]);
  for (let beats = random.integer(1, 20); beats > 0; beats--) {
    ownership.beat();
    await turn();
  }
  ownership.end("release");
  say("close");
  lock.release();
  say("closed");
}

/** A gateway in a thread that is ended wherever it is. */
async function inWorker() {
  const worker = new Worker(new URL(import.meta.url), { workerData: { world, seed: random.integer(0, 2 ** 31) } });
  worker.on("error", (error) => say("finding", { what: `a worker: ${error.stack}` }));
  await Promise.race([pause(random.between(20, 150)), new Promise((resolve) => worker.once("message", resolve))]);
  await worker.terminate();
}

/** A program that asks for no lock, and has the port if nobody else has. */
async function stranger({ port }) {
  const server = createServer((_, response) => response.end("stranger"));
  const host = random.pick(["127.0.0.1", "0.0.0.0", "::1", "::"]);
  const listening = await new Promise((resolve) => {
    server.once("listening", () => resolve(true)).once("error", () => resolve(false));
    server.listen({ port, host, exclusive: true });
  });
  if (!listening) return;
  const ownership = new Ownership([`port ${port}`], `a stranger on ${host}`);
  await holdFor(random.between(0, 20), () => {
    ownership.beat();
    return true;
  });
  ownership.end("close");
  await new Promise((resolve) => server.close(resolve));
}

if (isMainThread) {
  // Whoever directs it has died.
  process.stdin.resume().once("end", () => process.kill(process.pid, "SIGKILL"));
  say("born");
  for (;;) {
    // Often the same one, so that owners and successors of one gateway meet.
    const claim = random.chance(0.4) ? claims[0] : random.pick(claims);
    const act = random.weighted([
      [60, () => own(claim, acquireGateway)],
      [10, () => supervised(claim)],
      [12, plainLock],
      [10, inWorker],
      [8, () => stranger(claim)],
    ]);
    await act();
    await pause(random.between(0, 4));
  }
} else {
  await own(random.pick(claims), acquireGateway);
  parentPort.postMessage("done");
}
