// The other side of processes.mjs: answers each line on standard input with one line of JSON, and ends with it.

import { createInterface } from "node:readline";

/** `handlers`: by the first word of a line; they get the others. */
export function serve(handlers) {
  const queue = createInterface({ input: process.stdin });
  let last = Promise.resolve();
  queue.on("line", (line) => {
    const [verb, ...words] = line.split(" ");
    last = last.then(async () => say(await handlers[verb](...words)));
    last.catch((error) => {
      console.error(error);
      process.exit(1);
    });
  });
  // Its parent has ended, however that was.
  queue.once("close", () => process.exit(0));
}

export function say(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

export function now() {
  return process.hrtime.bigint();
}
