// One walk of a path under strace(1): which system calls its main thread makes between the two marks, and which of them was refused.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CALLS } from "./calls.mjs";
import { Partner } from "./partners.mjs";
import { MARK, PATHS } from "./paths.mjs";

const SUBJECT = fileURLToPath(new URL("subject.mjs", import.meta.url));
const LIMIT = 60_000; // ms; only reached when something hangs

/** What the subject has told, and the calls within the marks: `{ name, nth, line, injected }`. `fault` is `{ name, errno, nth }`. */
export async function walk(name, port, fault) {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "gateway-lock-faults-")));
  const log = join(directory, "trace");
  const owners = [];
  const placeOf = async (part, ownPort) => {
    const place = { stateDir: join(directory, part, "state"), port: ownPort };
    if (!PATHS[name].needsOwner) return place;
    const owner = { stateDir: join(directory, part, "owner"), port: ownPort + 2 };
    const handover = PATHS[name].needsOwner === "handover";
    const partner = new Partner("owner", { ...owner, handover });
    owners.push(partner);
    const { event, message } = await partner.next();
    if (event !== "owns") throw new Error(`no owner for '${name}': ${message}`);
    return { ...place, owner };
  };
  try {
    const argument = { path: name, here: await placeOf("here", port), elsewhere: await placeOf("elsewhere", port + 4) };
    const inject = fault === undefined ? [] : ["-e", `inject=${fault.name}:error=${fault.errno}:when=${fault.nth}`];
    // Its threads are traced too, because only so strace leaves all other calls alone; their lines are left out.
    const args = [
      "-qq",
      "-f",
      "--seccomp-bpf",
      "-o",
      log,
      "-e",
      "signal=none",
      "-e",
      `trace=access,${Object.keys(CALLS).join(",")}`,
      ...inject,
    ];
    const child = spawn("strace", [...args, process.execPath, SUBJECT, JSON.stringify(argument)], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let [output, errors] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      errors += text;
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT);
    const [code, signal] = await once(child, "close");
    clearTimeout(timer);
    const story = output.startsWith("{") ? JSON.parse(output) : null;
    return { story, calls: callsIn(readFileSync(log, "utf8")), code, signal, errors, directory };
  } finally {
    for (const owner of owners) await owner.end();
    rmSync(directory, { recursive: true, force: true });
  }
}

function callsIn(log) {
  const counts = new Map();
  const calls = [];
  let isWithin = false;
  const [main] = /^\d+/.exec(log) ?? [];
  for (const entry of log.split("\n")) {
    const [, pid, line, name] = /^(\d+) +((\w+)\(.*)$/.exec(entry) ?? [];
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
