// commander, by require(): to import a CommonJS package, Node first searches all of it for the names that it exports, and
// `status` would take 8 ms longer.

import { createRequire } from "node:module";

type Commander = typeof import("commander");

const commander: Commander = createRequire(import.meta.url)("commander");

export const Command: Commander["Command"] = commander.Command;
export type Command = InstanceType<Commander["Command"]>;
export const Option: Commander["Option"] = commander.Option;
export type Option = InstanceType<Commander["Option"]>;
export const CommanderError: Commander["CommanderError"] = commander.CommanderError;
export type CommanderError = InstanceType<Commander["CommanderError"]>;
