// commander, by require(): to import a CommonJS package, Node first searches all of it for the names that it exports, and
// `status` would take 8 ms longer.

import { createRequire } from "node:module";

type Commander = typeof import("commander");

const commander: Commander = withoutStreams(() => createRequire(import.meta.url)("commander") as Commander);

/**
 * Its require("node:process") makes Node read every property of `process`, and to read one of these opens the stream: another 10 ms, for
 * streams that `status` has no use for.
 */
function withoutStreams<T>(load: () => T): T {
  const names = ["stdin", "stdout", "stderr"] as const;
  const streams = names.map((name) => [name, Object.getOwnPropertyDescriptor(process, name)] as const);
  for (const name of names) Object.defineProperty(process, name, { value: undefined, configurable: true });
  try {
    return load();
  } finally {
    for (const [name, stream] of streams) if (stream !== undefined) Object.defineProperty(process, name, stream);
  }
}

export const Command: Commander["Command"] = commander.Command;
export type Command = InstanceType<Commander["Command"]>;
export const Option: Commander["Option"] = commander.Option;
export type Option = InstanceType<Commander["Option"]>;
export const CommanderError: Commander["CommanderError"] = commander.CommanderError;
export type CommanderError = InstanceType<Commander["CommanderError"]>;
