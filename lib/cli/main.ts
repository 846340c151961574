#!/usr/bin/env node

// The command `gateway-lock`: finds out what is asked, has it done, and says what went wrong.

import { EXIT } from "../errors.ts";
import { CommanderError } from "./commander.ts";
import { UsageError } from "./options.ts";
import { createProgram } from "./program.ts";
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
  try {
    try {
      await program.parseAsync(args, { from: "user" });
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) throw new UsageError(messageOf(error));
    }
    if (help !== "") await print(help);
    return exitCode;
  } catch (error) {
    const { reportError } = await import("./failure.ts");
    const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
    const names = program.commands.map((command) => command.name());
    const command = own.find((arg) => names.includes(arg)) ?? null;
    return await reportError(error, { json: own.includes("--json"), command });
  }
}

/** In our words: "unknown option '--jsno'; did you mean --json?" */
function messageOf({ code, message }: CommanderError): string {
  if (code === "commander.help") return "no command is given";
  return message
    .replace(/^error: /, "")
    .replace(/\s*\(Did you mean (.*)\?\)$/s, "; did you mean $1?")
    .replace(/\.$/, "");
}
