// A pm2 of our own, with its files in a temporary directory, and ended with everything it runs.

import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Tools } from "./tools.ts";

/** What pm2 says of a program; `pm2 jlist` prints the same. */
export interface Pm2App {
  readonly pid: number;
  readonly status: string;
  readonly restarts: number;
  /** Of its last run; `null` where that is the first one. */
  readonly exitCode: number | null;
}

/** Of pm2's own API, what we use. */
interface Api {
  connect(done: (error?: Error) => void): void;
  start(app: object, done: (error?: Error) => void): void;
  stop(name: string, done: (error?: Error) => void): void;
  delete(name: string, done: (error?: Error) => void): void;
  list(
    done: (error: Error | null, list: { name: string; pid: number; pm2_env: Record<string, unknown> }[]) => void,
  ): void;
  killDaemon(done: (error?: Error) => void): void;
}

export class Pm2 {
  readonly #home: string;
  readonly #api: Api;

  private constructor(home: string, api: Api) {
    this.#home = home;
    this.#api = api;
  }

  /** Starts its daemon. */
  static async start(tools: Tools): Promise<Pm2> {
    const home = realpathSync(mkdtempSync(join(tmpdir(), "gateway-lock-pm2-")));
    const { custom } = createRequire(import.meta.url)(tools.path("pm2"));
    const api: Api = new custom({ pm2_home: home });
    await promisify(api.connect.bind(api))();
    return new Pm2(home, api);
  }

  /** Starts one program of an ecosystem file. */
  async run(app: { readonly name: string; readonly [field: string]: unknown }): Promise<void> {
    await promisify(this.#api.start.bind(this.#api))({ apps: [app] });
  }

  async stop(name: string): Promise<void> {
    await promisify(this.#api.stop.bind(this.#api))(name);
  }

  async deleteAll(): Promise<void> {
    await promisify(this.#api.delete.bind(this.#api))("all");
  }

  async app(name: string): Promise<Pm2App> {
    const list = await promisify(this.#api.list.bind(this.#api))();
    const { pid = 0, pm2_env: env = {} } = list.find((app) => app.name === name) ?? {};
    const { status, restart_time: restarts, exit_code: exitCode = null } = env;
    return { pid, status: String(status), restarts: Number(restarts), exitCode: exitCode as number | null };
  }

  /** Ends what it runs, and itself: `pm2 kill`. */
  async end(): Promise<void> {
    await promisify(this.#api.killDaemon.bind(this.#api))();
    rmSync(this.#home, { recursive: true, force: true });
  }
}
