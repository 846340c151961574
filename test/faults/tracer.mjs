// One walk of a path under strace(1): which system calls its main thread makes between the two marks, and which of them was refused. In namespaces of its own,
// where no port is taken and /proc has nobody else: a walk is like another one.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CALLS } from "./calls.mjs";
import { MARK, PATHS } from "./paths.mjs";

export const ALONE = [
  ...["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"],
  ...["sh", "-ec", 'ip link set lo up; exec "$@"', "sh"],
];
const fileOf = (name) => fileURLToPath(new URL(name, import.meta.url));
const LIMIT = 60_000; // ms; only reached when something hangs
const PORT = 18789;

/**
 * What the subject has told, and the calls within the marks: `{ name, nth, line, injected }`. `fault` is `{ name, errno, nth }`.
 *
 * @throws `interrupted.reason`
 */
export async function walk(name, { fault, interrupted }) {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "gateway-lock-faults-")));
  const log = join(directory, "trace");
  const { needsOwner, spawns } = PATHS[name];
  const place = (part, port) => ({
    ...{ stateDir: join(directory, part, "state"), port },
    ...(needsOwner === undefined ? {} : { owner: { stateDir: join(directory, part, "owner"), port: port + 2 } }),
  });
  const places = { here: place("here", PORT), elsewhere: place("elsewhere", PORT + 4) };
  const inject = fault === undefined ? [] : ["-e", `inject=${fault.name}:error=${fault.errno}:when=${fault.nth}`];
  // Its threads are traced too, because only so strace leaves all other calls alone; their lines are left out. Its children are not to be.
  const threads = spawns ? [] : ["-f", "--seccomp-bpf"];
  const trace = [...threads, "-e", "signal=none", "-e", `trace=access,${Object.keys(CALLS).join(",")}`, ...inject];
  const subject = [process.execPath, fileOf("subject.mjs"), JSON.stringify({ path: name, ...places })];
  const traced = ["strace", "-qq", "-o", log, ...trace, ...subject];
  const owners = Object.values(places).flatMap(({ owner }) =>
    owner === undefined ? [] : [{ ...owner, handover: needsOwner === "handover" }],
  );
  const beside = [process.execPath, fileOf("beside.mjs"), JSON.stringify({ owners, command: traced })];
  const [command, ...args] = [...ALONE, ...(owners.length === 0 ? traced : beside)];
  const end = { signal: interrupted, killSignal: "SIGKILL" };
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...end });
  let [output, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text) => {
    errors += text;
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT);
  try {
    const [code, signal] = await new Promise((resolve, reject) => {
      child.on("error", (error) => error.name !== "AbortError" && reject(error));
      child.once("close", (...outcome) => resolve(outcome));
    });
    interrupted.throwIfAborted();
    const story = output.startsWith("{") ? JSON.parse(output) : null;
    return { story, calls: callsIn(readFileSync(log, "utf8")), code, signal, errors };
  } finally {
    clearTimeout(timer);
    rmSync(directory, { recursive: true, force: true });
  }
}

function callsIn(log) {
  const counts = new Map();
  const calls = [];
  let isWithin = false;
  // Without threads, no line has a number.
  const [main] = /^\d+(?= )/.exec(log) ?? [];
  for (const entry of log.split("\n")) {
    const [, pid, line, name] = /^(?:(\d+) +)?((\w+)\(.*)$/.exec(entry) ?? [];
    if (name === undefined) continue;
    if (pid !== main) {
      if (line.includes("(INJECTED)")) calls.push({ name, nth: 0, line, injected: true, isWithin: false });
      continue;
    }
    if (name === "access") {
      if (!line.includes(MARK)) continue;
      isWithin = !isWithin;
      continue;
    }
    const nth = (counts.get(name) ?? 0) + 1;
    counts.set(name, nth);
    const injected = line.includes("(INJECTED)");
    if (isWithin || injected) calls.push({ name, nth, line, injected, isWithin });
  }
  return calls;
}
