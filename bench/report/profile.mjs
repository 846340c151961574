// Where the time of a goal's subject goes: its functions by V8's profiler, its system calls by strace, where that is there.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

/** `operations` takes a second or two; strace makes each many times slower, and needs fewer. */
const DRIVERS = {
  bare: { program: "bare", operations: 50_000, traced: 2000, partners: 0, operation: "take and release a bare lock" },
  gateway: { program: "gateway", operations: 1000, traced: 100, partners: 0, operation: "acquire and close a gateway" },
  refusal: {
    program: "refusal",
    operations: 2000,
    traced: 200,
    partners: 1,
    operation: "be refused by another process",
  },
  handoff: {
    program: "handed",
    operations: 1000,
    traced: 100,
    partners: 1,
    operation: "wait for a lock that another process has for 2 ms; without the waiting",
  },
  throughput: {
    program: "contended",
    operations: 20_000,
    traced: 1000,
    partners: 7,
    operation: "8 processes, take and release one lock",
  },
  weight: { program: "weight", operations: 1, traced: 1, partners: 0, operation: "start Node and import the package" },
};
const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SAMPLE_US = 100;
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };
const DEADLINE_MS = 60_000;
const ROWS = 8;
/** Less than that explains nothing. */
const LEAST_SHARE = 0.01;
const LEAST_CALLS = 0.5;
/** Their time is that of somebody else. */
const WAITS = new Set(["futex", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "restart_syscall"]);

/** What V8 calls it when there is nothing to do. */
const IDLE = "(idle)";

/** The goals that have a program to be profiled. */
export const PROFILED = Object.keys(DRIVERS);

/**
 * { operation, functions: [{ name, place, share }], systemCalls: [{ name, perOperation, share }], note? }, the largest shares first. Places are relative
 * to the package. Nothing that it starts is left, whatever fails.
 * @param {string} goalId
 * @param {{ log: (line: string) => void }} options
 */
export async function profile(goalId, { log }) {
  const driver = DRIVERS[goalId];
  if (driver === undefined)
    throw new Error(`goal ${goalId} has no program to be profiled; there is one for ${PROFILED.join(", ")}`);
  const directory = mkdtempSync(join(tmpdir(), "gateway-lock-profile-"));
  const partners = [];
  const end = () => {
    for (const partner of partners) partner.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  };
  const interrupt = (signal) => process.exit(SIGNALS[signal]);
  process.once("exit", end);
  for (const signal of Object.keys(SIGNALS)) process.once(signal, interrupt);
  try {
    log(`profiling ${goalId}: ${driver.operation}`);
    while (partners.length < driver.partners) partners.push(startPartner(driver, directory));
    await Promise.all(partners.map(isReady));
    const functions = await functionsOf(driver, directory);
    const { systemCalls, note } = await systemCallsOf(driver, directory, log);
    return { goal: goalId, operation: driver.operation, functions, systemCalls, ...(note && { note }) };
  } finally {
    process.off("exit", end);
    for (const signal of Object.keys(SIGNALS)) process.off(signal, interrupt);
    for (const partner of partners) partner.kill("SIGKILL");
    await Promise.all(partners.map(ended));
    end();
  }
}

function argumentsOf({ program }, role, directory, operations) {
  return [fileURLToPath(new URL(`profiles/${program}.mjs`, import.meta.url)), role, directory, String(operations)];
}

function startPartner(driver, directory) {
  return spawn(process.execPath, argumentsOf(driver, "partner", directory, 0), { stdio: ["pipe", "pipe", "inherit"] });
}

async function isReady(partner) {
  const failed = new AbortController();
  const ready = once(partner.stdout, "data", { signal: failed.signal });
  const exit = once(partner, "exit", { signal: failed.signal }).then(([code, signal]) => {
    throw new Error(`a process beside the profiled one ended before it was ready (${signal ?? code})`);
  });
  try {
    await Promise.race([ready, exit]);
  } finally {
    failed.abort();
    await Promise.allSettled([ready, exit]);
  }
}

async function ended(child) {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
}

/** In a process group of its own: what strace traces would survive it. */
async function run(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], detached: true });
  const kill = () => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
  };
  process.once("exit", kill);
  const deadline = setTimeout(kill, DEADLINE_MS);
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    said += text;
  });
  try {
    const [code, signal] = await once(child, "close");
    if (code !== 0) throw new Error(`${command} ended with ${signal ?? code}: ${said.trim() || "it said nothing"}`);
  } finally {
    clearTimeout(deadline);
    process.off("exit", kill);
  }
}

async function functionsOf(driver, directory) {
  const flags = ["--cpu-prof", `--cpu-prof-dir=${directory}`, `--cpu-prof-interval=${SAMPLE_US}`];
  await run(process.execPath, [...flags, ...argumentsOf(driver, "measured", directory, driver.operations)]);
  const file = readdirSync(directory).find((name) => name.endsWith(".cpuprofile"));
  return functionsIn(JSON.parse(readFileSync(join(directory, file), "utf8")));
}

/**
 * Of V8's profile: the time in each function itself, not in what it calls.
 * @returns {{ name: string, place: string, share: number }[]}
 */
export function functionsIn({ nodes, samples, timeDeltas }) {
  const times = new Map();
  for (const [index, id] of samples.entries()) times.set(id, (times.get(id) ?? 0) + timeDeltas[index]);
  const functions = new Map();
  for (const { id, callFrame } of nodes) {
    if (callFrame.functionName === IDLE) continue;
    const { name, place } = namesOf(callFrame);
    const known = functions.get(`${name} ${place}`) ?? { name, place, time: 0 };
    known.time += times.get(id) ?? 0;
    functions.set(`${name} ${place}`, known);
  }
  return largest([...functions.values()]);
}

function namesOf({ functionName, url, lineNumber }) {
  const name = functionName || "(anonymous)";
  if (url === "") return { name, place: "" };
  const path = url.startsWith("file:") ? relative(ROOT, fileURLToPath(url)) : url;
  return { name, place: `${path}:${lineNumber + 1}` };
}

async function systemCallsOf(driver, directory, log) {
  if (spawnSync("strace", ["-V"], { stdio: "ignore" }).status !== 0) {
    return { systemCalls: [], note: "System calls were not counted: there is no strace." };
  }
  const count = async (operations) => {
    const file = join(directory, `strace-${operations}`);
    await run("strace", [
      "-f",
      "-c",
      "-o",
      file,
      process.execPath,
      ...argumentsOf(driver, "measured", directory, operations),
    ]);
    return readFileSync(file, "utf8");
  };
  try {
    return { systemCalls: systemCallsIn(await count(0), await count(driver.traced), driver.traced) };
  } catch (error) {
    log(`profiling without system calls: ${error.message}`);
    return { systemCalls: [], note: "System calls were not counted: strace could not trace." };
  }
}

/** Of two summaries of strace, because a process that does nothing makes some thousand calls, too. */
export function systemCallsIn(idle, busy, operations) {
  const before = summaryIn(idle);
  const calls = [...summaryIn(busy)].map(([name, { calls, seconds }]) => {
    const { calls: idleCalls = 0, seconds: idleSeconds = 0 } = before.get(name) ?? {};
    const time = WAITS.has(name) ? 0 : Math.max(0, seconds - idleSeconds);
    return { name, perOperation: Number(((calls - idleCalls) / operations).toFixed(2)), time };
  });
  return largest(
    calls.filter(({ perOperation }) => perOperation > 0),
    ({ perOperation }) => perOperation >= LEAST_CALLS,
  );
}

/** `% time  seconds  usecs/call  calls  [errors]  syscall`. */
function summaryIn(text) {
  const summary = new Map();
  for (const line of text.split("\n")) {
    const [, seconds, calls, name] = /^\s*[\d.]+\s+([\d.]+)\s+\d*\s+(\d+)\s+(?:\d+\s+)?(\w+)$/.exec(line) ?? [];
    if (name !== undefined && name !== "total") summary.set(name, { calls: Number(calls), seconds: Number(seconds) });
  }
  return summary;
}

function largest(list, isWorthARow = () => false) {
  const whole = list.reduce((sum, { time }) => sum + time, 0);
  return list
    .map(({ time, ...rest }) => ({ ...rest, share: whole === 0 ? 0 : Number((time / whole).toFixed(4)) }))
    .filter((one) => one.share >= LEAST_SHARE || isWorthARow(one))
    .toSorted((a, b) => b.share - a.share)
    .slice(0, ROWS);
}
