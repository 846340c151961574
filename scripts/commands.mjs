// Runs commands that may be foreign, slow or stuck: to an end or a time limit, with their output, and nothing left behind.

import { spawn, spawnSync } from "node:child_process";
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const running = new Set();
let isStopped = false;

/** Output goes to a file, because Node for Windows under Wine can't write to every pipe and terminal. */
export async function run(command, args, { cwd, env, limit }) {
  if (isStopped) throw new Error("interrupted");
  const directory = mkdtempSync(join(tmpdir(), "gateway-lock-output-"));
  const fd = openSync(join(directory, "output"), "w+");
  const remove = () => rmSync(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  // The descriptor is enough, and leaves nothing behind; on Windows, a file that is open stays.
  if (process.platform !== "win32") remove();
  // In a group of its own, so that it ends with all that it has started.
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", fd, fd],
    detached: process.platform !== "win32",
  });
  running.add(child);
  const timer = setTimeout(() => killGroup(child), limit);
  const started = performance.now();
  try {
    const { status, error } = await new Promise((resolve) => {
      child.once("error", (error) => resolve({ status: null, error }));
      child.once("exit", (code) => resolve({ status: code }));
    });
    const isLate = status === null && error === undefined && performance.now() - started >= limit;
    const why =
      error !== undefined ? `${error.message}\n` : isLate ? `ended after ${Math.round(limit / 1000)} s\n` : "";
    return { status, output: contentOf(fd) + why };
  } finally {
    clearTimeout(timer);
    killGroup(child);
    running.delete(child);
    closeSync(fd);
    remove();
  }
}

/** As `run`, for what must succeed: throws with its output. */
export async function mustRun(command, args, options) {
  const { status, output } = await run(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} failed:\n${output.trimEnd()}`);
  return output;
}

const NPM_LIMIT = 600_000; // ms

/** By the file that npm itself was started from: on Windows its command is a script of the shell. */
export async function npm(args, cwd) {
  const { npm_execpath: cli } = process.env;
  const [command, first] = cli?.endsWith("npm-cli.js") ? [process.execPath, [cli]] : ["npm", []];
  return await mustRun(command, [...first, "--loglevel=error", ...args], { cwd, limit: NPM_LIMIT });
}

/** From the start, wherever the writers have left the position that they share with us. */
function contentOf(fd) {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  readSync(fd, bytes, 0, bytes.length, 0);
  return bytes.toString("utf8");
}

/** Ends what runs, and lets nothing more begin. */
export function stopAll() {
  isStopped = true;
  for (const child of running) killGroup(child);
}

function killGroup(child) {
  try {
    if (process.platform === "win32") spawnSync("taskkill", ["/T", "/F", "/PID", `${child.pid}`]);
    else process.kill(-child.pid, "SIGKILL");
  } catch {
    // It is gone, or never was.
  }
}
