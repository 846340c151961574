// A pm2 of our own, with its files in a temporary directory, and ended with everything it runs.

import { execFile } from "node:child_process";
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Tools } from "./tools.ts";

const COMMAND_DEADLINE = 30_000; // ms

/** What pm2 says of a program. */
export interface Pm2App {
  readonly pid: number;
  readonly status: string;
  readonly restarts: number;
  readonly exitCode: number;
}

export class Pm2 {
  readonly #home: string = realpathSync(mkdtempSync(join(tmpdir(), "gateway-lock-pm2-")));

  readonly #cli: string;

  constructor(tools: Tools) {
    this.#cli = tools.path("pm2/bin/pm2");
  }

  /** A command of pm2(1); answers its output. */
  async run(...args: readonly string[]): Promise<string> {
    const env = {
      PATH: process.env.PATH,
      HOME: this.#home,
      PM2_HOME: join(this.#home, "pm2"),
      PM2_DISCRETE_MODE: "true",
    };
    const options = { env, timeout: COMMAND_DEADLINE };
    return (await promisify(execFile)(process.execPath, [this.#cli, ...args], options)).stdout;
  }

  /** Starts one program of an ecosystem file. */
  async start(app: { readonly name: string; readonly [field: string]: unknown }): Promise<void> {
    const file = join(this.#home, `${app.name}.config.json`);
    writeFileSync(file, JSON.stringify({ apps: [app] }));
    await this.run("start", file);
  }

  async app(name: string): Promise<Pm2App> {
    const output = await this.run("jlist");
    const list = JSON.parse(output.slice(output.indexOf("[")));
    const { pid, pm2_env } = list.find((app: { name: string }) => app.name === name);
    return { pid, status: pm2_env.status, restarts: pm2_env.restart_time, exitCode: pm2_env.exit_code };
  }

  /** Ends what it runs, and itself. */
  async end(): Promise<void> {
    await this.run("kill");
    rmSync(this.#home, { recursive: true, force: true });
  }
}
