// Starts processes, talks to them line by line, and leaves none behind: whatever dies or keeps silent fails the run by name.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const PATIENCE = 30_000; // ms, for one answer

const running = new Set();

export class Child {
  #lines = [];
  #readers = [];
  #errors = "";
  #ended = null;

  /** `what` names it in errors. `environment` is added to ours. */
  constructor(what, command, args, { environment = {}, cwd } = {}) {
    this.what = what;
    // A group of its own, so that what it starts ends with it.
    this.process = spawn(command, args, { cwd, env: { ...process.env, ...environment }, detached: true });
    this.pid = this.process.pid;
    running.add(this);
    this.exited = new Promise((resolve) => {
      this.process.once("error", (error) => resolve(`it could not be started: ${error.message}`));
      this.process.once("exit", (code, signal) => resolve(`it ended with ${signal ?? `code ${code}`}`));
    });
    this.exited.then(async (how) => {
      // What it said last may still be in the pipe.
      await Promise.race([once(this.process, "close"), new Promise((resolve) => setTimeout(resolve, 1000))]);
      this.#end(how);
    });
    this.process.stdin.on("error", () => {});
    this.process.stderr?.setEncoding("utf8").on("data", (text) => {
      this.#errors = (this.#errors + text).slice(-4000);
    });
    createInterface({ input: this.process.stdout }).on("line", (line) => this.#hear(line));
  }

  /** Says `line`, and waits for one line of JSON. */
  ask(line, patience = PATIENCE) {
    this.tell(line);
    return this.next(patience);
  }

  tell(line) {
    this.process.stdin.write(`${line}\n`);
  }

  next(patience = PATIENCE) {
    if (this.#lines.length > 0) return Promise.resolve(this.#lines.shift());
    if (this.#ended !== null) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#readers.splice(this.#readers.indexOf(reader), 1);
        reject(new Error(`${this.what} (pid ${this.pid}) has not answered for ${patience / 1000} s ${this.#errors}`));
      }, patience);
      const reader = { resolve, reject, timer };
      this.#readers.push(reader);
    });
  }

  /** By its pid, or by the pid of the one in its group that is meant. */
  kill(signal = "SIGKILL", pid = this.pid) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }

  /** Ends it and all that it has started. */
  async end() {
    this.endNow();
    await this.exited;
  }

  endNow() {
    running.delete(this);
    if (this.pid !== undefined) this.kill("SIGKILL", -this.pid);
  }

  #hear(line) {
    let value;
    try {
      value = JSON.parse(line);
    } catch {
      value = { text: line };
    }
    const reader = this.#readers.shift();
    if (reader === undefined) return this.#lines.push(value);
    clearTimeout(reader.timer);
    reader.resolve(value);
  }

  #end(how) {
    this.#ended = new Error(
      `${this.what} (pid ${this.pid}) was expected to answer, but ${how}. ${this.#errors}`.trim(),
    );
    for (const { reject, timer } of this.#readers.splice(0)) {
      clearTimeout(timer);
      reject(this.#ended);
    }
  }
}

export function startNode(what, script, args = [], options = {}) {
  return new Child(what, process.execPath, [...(options.flags ?? []), script, ...args.map(String)], options);
}

export async function endAll(children = [...running]) {
  await Promise.all([...children].map((child) => child.end()));
}

/** At an exit that waits for nothing. */
export function killAll() {
  for (const child of running) child.endNow();
}

/** Runs one to its end; its ns, or an error if it does not end with `code`. */
export function timeProcess(what, command, args, { code = 0, environment = {} } = {}) {
  return new Promise((resolve, reject) => {
    const start = process.hrtime.bigint();
    const child = spawn(command, args, {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: PATIENCE,
      killSignal: "SIGKILL",
    });
    let end;
    let output = "";
    child.stdout.on("data", (text) => {
      output += text;
    });
    child.stderr.on("data", (text) => {
      output += text;
    });
    child.once("error", (error) => reject(new Error(`${what} could not be started: ${error.message}`)));
    child.once("exit", () => {
      end = process.hrtime.bigint();
    });
    child.once("close", (status, signal) => {
      if (status === code) return resolve({ ns: Number(end - start), output });
      reject(
        new Error(`${what} ended with ${signal ?? `code ${status}`} instead of code ${code}: ${output.slice(-2000)}`),
      );
    });
  });
}
