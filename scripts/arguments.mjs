// Reads the arguments of a command: answers --help, and says what is wrong together with the usage, before anything has been done.

import { parseArgs } from "node:util";

/** `parts` are what a command can be asked for by name; without any named, for all of them. */
export function readArguments(command, usage, options, { args = process.argv.slice(2), parts } = {}) {
  const fail = (message) => {
    console.error(`${command}: ${message}\n\n${usage}`);
    process.exit(2);
  };
  const parse = () => {
    try {
      const all = { ...options, help: { type: "boolean" } };
      return parseArgs({ args, options: all, allowPositionals: parts !== undefined });
    } catch (error) {
      return fail(error.message);
    }
  };
  const { values: asked, positionals } = parse();
  if (asked.help) {
    console.log(usage);
    process.exit(0);
  }
  const unknown = positionals.find((name) => !parts.includes(name));
  if (unknown !== undefined) fail(`there is no '${unknown}'; choose from ${parts.join(", ")}`);
  const whole = (name, otherwise) => {
    const text = asked[name];
    if (text === undefined) return otherwise;
    if (!/^\d{1,10}$/.test(text)) fail(`--${name} is a whole number, and not '${text}'`);
    return Number(text);
  };
  return { asked, names: positionals.length === 0 ? parts : positionals, whole, fail };
}

export function randomSeed() {
  return Math.floor(Math.random() * 2 ** 31);
}
