// A real systemd in namespaces of its own: booted once for a test file, told what to run, asked what became of it, and ended.

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isRoot } from "./capabilities.ts";
import { fixturePath } from "./processes.ts";

const SYSTEMD = "/lib/systemd/systemd";
const BOOT_DEADLINE = 20_000; // ms
const COMMAND_DEADLINE = 20_000; // ms
const LOOK_INTERVAL = 20; // ms
/** Where the namespaces have this package and the Node that runs the tests. */
export const PACKAGE = "/run/lab/package";
export const NODE = "/run/lab/node";

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class Systemd {
  /** Of the booted systemd, as this machine counts. */
  readonly pid: number;
  readonly #boot: ChildProcess;
  readonly #ended: Promise<unknown>;

  private constructor(pid: number, boot: ChildProcess, ended: Promise<unknown>) {
    this.pid = pid;
    this.#boot = boot;
    this.#ended = ended;
  }

  /** A running system, or why there can be none. */
  static async boot(): Promise<Systemd | string> {
    if (!isRoot) return "needs root, to boot a systemd";
    if (!existsSync(SYSTEMD)) return `needs ${SYSTEMD}`;
    const root = fileURLToPath(new URL("../..", import.meta.url));
    const boot = spawn("sh", [fixturePath("systemd-boot.sh"), root, process.execPath], { stdio: "pipe" });
    let stderr = "";
    boot.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    const ended = once(boot, "close");
    const [line] = await Promise.race([
      once(createInterface({ input: boot.stdout }), "line"),
      ended,
      delay(BOOT_DEADLINE, []),
    ]);
    const systemd = new Systemd(Number(line), boot, ended);
    if (typeof line === "string" && (await systemd.#isUp())) return systemd;
    await systemd.end();
    return `systemd does not boot here: ${stderr.trim() || "no answer"}`;
  }

  async #isUp(): Promise<boolean> {
    const deadline = performance.now() + BOOT_DEADLINE;
    while (performance.now() < deadline) {
      const { stdout } = await this.run("systemctl", "is-system-running", "--wait");
      if (stdout.trim() === "running") return true;
      if (this.#boot.exitCode !== null) return false;
      await delay(LOOK_INTERVAL); // it has not opened its socket yet
    }
    return false;
  }

  /** Kills it, and with it everything that runs in it; resolves when nothing is left. */
  async end(): Promise<void> {
    this.#boot.stdin?.end();
    await this.#ended;
  }

  /** Runs a command in its namespaces, to the end. */
  async run(command: string, ...args: readonly string[]): Promise<Outcome> {
    const inside = ["-t", `${this.pid}`, "-m", "-p", "-u", "-i", "-C", "--", command, ...args];
    const options = { timeout: COMMAND_DEADLINE, env: { PATH: process.env.PATH } };
    return await new Promise((resolve) => {
      const child = execFile("nsenter", inside, options, (_, stdout, stderr) =>
        resolve({ status: child.exitCode, stdout, stderr }),
      );
    });
  }

  /** Runs a command in a terminal of its own, to the end. */
  async onTerminal(command: string): Promise<void> {
    await this.run("script", "-qec", command, "/dev/null");
  }

  /** As `run`, for what must succeed; answers its output. */
  async must(command: string, ...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(command, ...args);
    if (status !== 0) throw new Error(`${command} ${args.join(" ")}: exit code ${status}\n${stderr}${stdout}`);
    return stdout;
  }

  async systemctl(...args: readonly string[]): Promise<string> {
    return await this.must("systemctl", ...args);
  }

  /** The pid of a service's main process, as this machine counts. */
  async mainProcessOf(unit: string): Promise<number> {
    const { MainPID } = await this.show(unit, "MainPID");
    const procs = readFileSync(this.path(`/sys/fs/cgroup/system.slice/${unit}/cgroup.procs`), "utf8");
    for (const pid of procs.trim().split("\n")) {
      if (new RegExp(`^NSpid:.*\\t${MainPID}$`, "m").test(readFileSync(`/proc/${pid}/status`, "utf8")))
        return Number(pid);
    }
    throw new Error(`${unit} does not run`);
  }

  /** Where this machine finds a file of its root. */
  path(inside: string): string {
    return `/proc/${this.pid}/root${inside}`;
  }

  /** Makes it known under `name`; drop-ins are named `<unit>.d/<name>.conf`. */
  async install(units: { readonly [name: string]: string }): Promise<void> {
    for (const [name, text] of Object.entries(units)) {
      const path = this.path(`/run/systemd/system/${name}`);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
    await this.systemctl("daemon-reload");
  }

  /** Stops and forgets units that a test installed. */
  async remove(...names: readonly string[]): Promise<void> {
    await this.run("systemctl", "kill", "--signal=SIGKILL", ...names);
    await this.run("systemctl", "stop", ...names);
    await this.run("systemctl", "reset-failed", ...names);
    for (const name of names) {
      for (const path of [name, `${name}.d`])
        rmSync(this.path(`/run/systemd/system/${path}`), { recursive: true, force: true });
    }
    await this.systemctl("daemon-reload");
  }

  /** Properties of a unit, as systemctl(1) shows them. */
  async show<Name extends string>(
    unit: string,
    ...names: readonly Name[]
  ): Promise<{ readonly [name in Name]: string }> {
    const shown = await this.systemctl("show", unit, ...names.map((name) => `--property=${name}`));
    const pairs = shown
      .trim()
      .split("\n")
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]);
    return Object.fromEntries(pairs);
  }

  /** Resolves when a unit's properties satisfy `test`. */
  async until<Name extends string>(
    unit: string,
    names: readonly Name[],
    test: (shown: { readonly [name in Name]: string }) => boolean,
  ): Promise<void> {
    const deadline = performance.now() + COMMAND_DEADLINE;
    for (;;) {
      const shown = await this.show(unit, ...names);
      if (test(shown)) return;
      if (performance.now() > deadline) throw new Error(`${unit} stays as it is: ${JSON.stringify(shown)}`);
      await delay(LOOK_INTERVAL);
    }
  }

  /** What a unit has printed, and what systemd has said about it. */
  async journal(unit: string): Promise<string[]> {
    await this.must("journalctl", "--sync");
    return (await this.must("journalctl", "--output=cat", `--unit=${unit}`)).trim().split("\n");
  }
}
