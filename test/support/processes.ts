// Real processes: started, listened to, and reaped when their test ends, whatever came of it.

import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";

/** One line of JSON that a fixture prints. */
export interface FixtureEvent {
  readonly event: string;
  // biome-ignore lint/suspicious/noExplicitAny: each fixture has its own fields
  readonly [field: string]: any;
}

const EVENT_DEADLINE = 20_000; // ms; only reached when something is wrong

/** A child process that prints JSON events, one a line, and takes commands on its standard input, one a line. */
export class TestProcess {
  readonly child: ChildProcess;
  /** Settles when it has ended and been reaped. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  stderr = "";
  readonly #events: FixtureEvent[] = [];
  #wake: () => void = () => {};
  #ended = false;

  /** `passed` are its descriptors from 3 on. */
  constructor(command: string, args: readonly string[], options: SpawnOptions = {}, passed: readonly number[] = []) {
    this.child = spawn(command, args, { ...options, stdio: ["pipe", "pipe", "pipe", ...passed] });
    this.exited = once(this.child, "close").then(([code, signal]) => {
      this.#ended = true;
      this.#wake();
      return { code, signal };
    });
    this.child.on("error", (error) => {
      this.stderr += `${error}\n`;
    });
    this.child.stdin?.on("error", () => {});
    this.child.stderr?.setEncoding("utf8").on("data", (text) => {
      this.stderr += text;
    });
    if (this.child.stdout) {
      createInterface({ input: this.child.stdout }).on("line", (line) => {
        this.#events.push(line.startsWith("{") ? JSON.parse(line) : { event: "text", text: line });
        this.#wake();
      });
    }
    onTestFinished(() => this.kill());
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** The next event of one of these names; events in between are dropped. */
  async next(...names: string[]): Promise<FixtureEvent> {
    const deadline = Date.now() + EVENT_DEADLINE;
    for (;;) {
      for (let event = this.#events.shift(); event !== undefined; event = this.#events.shift()) {
        if (names.includes(event.event)) return event;
      }
      const left = deadline - Date.now();
      if (this.#ended || left <= 0) {
        throw new Error(
          `no '${names.join("' or '")}' from pid ${this.pid}${this.#ended ? ", which ended" : ""}\n${this.stderr}`,
        );
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  send(command: string): void {
    this.child.stdin?.write(`${command}\n`);
  }

  /** SIGKILL unless another signal is named; resolves when it is gone. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (!this.#ended) this.child.kill(signal);
    await this.exited;
  }
}

export function fixturePath(name: string): string {
  return fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
}

/** Starts `test/fixtures/<name>` with one JSON argument. */
export function startFixture(name: string, argument: unknown = {}, options: SpawnOptions = {}): TestProcess {
  return new TestProcess(process.execPath, [fixturePath(name), JSON.stringify(argument)], options);
}

/** Starts a gateway process with the options of acquireGateway; see test/fixtures/gateway.mjs for its events. */
export function startGateway(options: unknown, spawnOptions: SpawnOptions = {}): TestProcess {
  return startFixture("gateway.mjs", options, spawnOptions);
}
