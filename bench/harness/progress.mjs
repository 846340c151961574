// The line that says what is being measured, and how long it will take: rewritten in place on a terminal, else a line for each scenario.

export class Progress {
  #start = performance.now();
  #scenario = "";
  #stream;

  constructor(estimate, stream = process.stderr) {
    this.estimate = estimate;
    this.#stream = stream;
  }

  scenario(name) {
    this.#scenario = name;
    if (!this.#stream.isTTY) this.#stream.write(`${name} … ${this.#clock()}\n`);
  }

  at(...where) {
    if (!this.#stream.isTTY) return;
    const line = [this.#scenario, ...where, this.#clock()].join(" · ").slice(0, (this.#stream.columns || 80) - 1);
    this.#stream.write(`\r\x1b[2K${line}`);
  }

  /** A line that stays. */
  log(line) {
    this.#stream.write(`${this.#stream.isTTY ? "\r\x1b[2K" : ""}${line}\n`);
  }

  #clock() {
    return `${Math.round((performance.now() - this.#start) / 1000)} s of about ${Math.round(this.estimate)} s`;
  }
}
