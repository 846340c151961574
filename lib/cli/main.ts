#!/usr/bin/env node

// The command `gateway-lock`: finds out what is asked, has it done, and says what went wrong.

import { EXIT } from "../errors.ts";
import { type Command, CommanderError } from "./commander.ts";
import { UsageError } from "./options.ts";
import { createProgram, gatewayOptions, RUN_USAGE } from "./program.ts";
import { print } from "./terminal.ts";

void main(process.argv.slice(2)).then((exitCode) => {
  process.exitCode = exitCode;
});

async function main(args: readonly string[]): Promise<number> {
  let help = "";
  let exitCode: number = EXIT.OK;
  const program = createProgram(args, {
    help: (text) => {
      help += text;
    },
    done: (code) => {
      exitCode = code;
    },
  });
  const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
  const names = program.commands.map((command) => command.name());
  const command = own.find((arg) => names.includes(arg)) ?? null;
  try {
    try {
      await program.parseAsync(args, { from: "user" });
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error;
      const [, unknown] = /^error: unknown option '(--[^=']+)=/.exec(error.message) ?? [];
      // Without its value, because commander has no suggestion for the two together.
      if (unknown !== undefined && !isOption(program, unknown))
        return await main(args.map((arg) => (arg.startsWith(`${unknown}=`) ? unknown : arg)));
      if (error.exitCode !== 0) throw new UsageError(messageOf(error, command, args));
    }
    if (help !== "") await print(help);
    return exitCode;
  } catch (error) {
    const { reportError } = await import("./failure.ts");
    return await reportError(error, { json: own.includes("--json"), command, gateway: gatewayOptions(program) });
  }
}

/** In our words: "unknown option '--jsno'; did you mean --json?" */
function messageOf({ code, message }: CommanderError, command: string | null, args: readonly string[]): string {
  if (code === "commander.help") {
    const [first, topic] = args;
    return first === "help" && topic !== undefined ? `unknown command '${topic}'` : "no command is given";
  }
  const text = message
    .replace(/^error: /, "")
    .replace(/\s*\(Did you mean (.*)\?\)$/s, "; did you mean $1?")
    .replace(/\.$/, "");
  return command === "run" && !args.includes("--") ? `${text}; write -- before the program: ${RUN_USAGE}` : text;
}

function isOption({ commands, options }: Command, name: string): boolean {
  return [options, ...commands.map((command) => command.options)].flat().some(({ long }) => long === name);
}
