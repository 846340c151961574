// How a process of the chaos dies: by SIGKILL after a while, at a word of its own, or at a system call that strace(1) counts.

import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { resourcesOf } from "./world.mjs";

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const CLI = fileURLToPath(new URL("../../dist/gateway-lock.cjs", import.meta.url));
/** A process that its fate has not met by then is killed all the same. */
const LONGEST = 600; // ms
const LONGEST_START = 3000; // ms
/** Calls that nothing but the addon makes in such a process. Each kills before the kernel has done anything. */
const CALLS = ["flock", "bind", "listen", "unlink", "pwrite64", "ftruncate", "sendmsg", "shutdown", "unlinkat"];
const MARKS = ["acquire", "own", "wait", "handover", "disown", "close"];

/** Starts one; `ended` resolves with what has killed it, and the pid of the program that has outlived it. */
export function startDoomed(world, random, kinds = ["time", "time", "mark", "mark", "call"]) {
  const isRun = random.chance(0.06);
  const kind = isRun ? "time" : random.pick(kinds);
  const seed = random.integer(0, 2 ** 31 - 1);
  const mark = kind === "mark" ? random.pick(MARKS) : undefined;
  const own = isRun ? runArguments(world, random) : [file("actor.mjs"), JSON.stringify({ world, seed, mark })];
  const call = random.pick(CALLS);
  // As a grandchild of the process that it traces, so that this one stays our child.
  const strace = ["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", `trace=${call}`];
  const inject = ["-e", "signal=none", "-e", `inject=${call}:signal=SIGKILL:when=${random.integer(1, 12)}`];
  const [command, args] =
    kind === "call" ? ["strace", [...strace, ...inject, process.execPath, ...own]] : [process.execPath, own];
  const errors = openSync(world.errors, "a");
  // What is left of a `run` that was killed tells by this whose it was.
  const run = isRun ? `${seed}` : undefined;
  const env = isRun ? { ...process.env, CHAOS_RUN: run } : process.env;
  const child = spawn(command, args, { stdio: ["pipe", "pipe", errors], env });
  closeSync(errors);
  const kill = () => child.kill("SIGKILL");
  // One in ten does not live to its first word.
  let timer = setTimeout(kill, random.chance(0.1) ? random.between(0, 100) : LONGEST_START);
  let marks = kind === "mark" ? random.integer(1, 3) : Infinity;
  const life = kind === "time" ? random.between(0, 200) : LONGEST; // ms
  const delay = random.chance(0.5) ? 0 : random.between(0, 4); // ms
  let program;
  child.stdout.once("data", (text) => {
    program = Number(text);
    clearTimeout(timer);
    timer = setTimeout(kill, life);
    child.stdout.on("data", () => {
      if (--marks > 0) return;
      if (delay === 0) kill();
      else setTimeout(kill, delay);
    });
  });
  const ended = new Promise((resolve, reject) => {
    child.once("error", reject).once("exit", (code, signal) => {
      clearTimeout(timer);
      resolve({ pid: child.pid, kind: isRun ? "run" : kind, code, signal, run, program });
    });
  });
  return { child, kill, ended };
}

function runArguments(world, random) {
  const claim = {
    stateDir: random.pick(world.stateDirs),
    configPath: random.pick(world.configs),
    port: random.pick(world.ports),
  };
  const program = JSON.stringify({ journal: world.journal, resources: resourcesOf(claim) });
  const { stateDir, configPath, port } = claim;
  const options = ["--state-dir", stateDir, "--config", configPath, "--port", `${port}`, "--timeout", "200"];
  const handover = random.chance(0.5) ? ["--handover"] : [];
  return [CLI, "run", ...options, ...handover, "--", process.execPath, file("program.mjs"), program];
}
