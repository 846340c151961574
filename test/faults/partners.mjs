// Starts partners, and hears what they say.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export class Partner {
  #child;
  #lines;
  #exited;
  constructor(role, options) {
    const file = fileURLToPath(new URL("partner.mjs", import.meta.url));
    this.#child = spawn(process.execPath, [file, JSON.stringify({ role, options })], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#exited = once(this.#child, "exit");
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }
  get pid() {
    return this.#child.pid;
  }
  /** What it says next. */
  async next() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`partner ${this.pid} has ended`);
    return JSON.parse(value);
  }
  go() {
    this.#child.stdin.write("go\n");
  }
  async end() {
    this.#child.stdin.end();
    await this.#exited;
  }
}
