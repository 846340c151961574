// What commander is told: the commands, their options, and help with examples.

import { quote } from "../errors.ts";
import { checkPid } from "../options.ts";
import { packageVersion } from "../version.ts";
import { Command, Option } from "./commander.ts";
import {
  type CommandOptions,
  checked,
  commonOptions,
  formatReserve,
  number,
  type ParsedOptions,
  resolveOptions,
  UsageError,
} from "./options.ts";
import { plain, print, STDERR } from "./terminal.ts";

/** Command lines, and what each is for. */
type Examples = readonly (readonly [line: string, purpose: string])[];

/** Does what is asked, and returns the exit code. `own` are the options that only this command has. */
type Act = (options: CommandOptions, own: Record<string, unknown>, operands: readonly string[]) => Promise<number>;

export const RUN_USAGE = "gateway-lock run [options] -- node server.js";

export interface Outcome {
  /** Takes the text of --help and --version. */
  help(text: string): void;
  done(exitCode: number): void;
}

const EXIT_CODES = `
Exit codes:
  0  yes, done, all good                  64   a mistake in the command line
  1  no, or it failed                     75   a duplicate (run)
  3  it does not run (status)             78   a duplicate under systemd (run)
  4  this user can't see enough (status)  124  the time is up (wait)`;

const COMMON = `
Every command takes --state-dir, --port, --profile, --timeout, --json and more: see gateway-lock --help
`;

/** A command's module is loaded when it is asked for: `status` must be quick. */
export function createProgram(args: readonly string[], outcome: Outcome): Command {
  const program = new Command("gateway-lock")
    .description("One gateway per host: who it is, whether it is well, and how to start and stop it.")
    .usage("<command> [options]")
    .exitOverride()
    .configureOutput({ writeOut: outcome.help, writeErr: () => {} })
    .helpOption("-h, --help", "show help")
    .helpCommand("help [command]", "show help for a command")
    .version(packageVersion(), "-V, --version", "show the version")
    .addHelpText(
      "after",
      formatExamples([
        ["gateway-lock status --state-dir .gateway", "who is it, and is it well?"],
        ["gateway-lock wait --for ready --state-dir .gateway --timeout 30000", "after a start"],
        ["gateway-lock stop --state-dir .gateway", "end it, and nobody else"],
        ["gateway-lock status", "of the default profile: ~/.openclaw, port 18789"],
      ]) + EXIT_CODES,
    );
  for (const option of commonOptions()) program.addOption(option);

  const add = (name: string, description: string, act: Act, examples: Examples, exitCodes: string): Command =>
    program
      .command(name)
      .description(description)
      .addHelpText(
        "after",
        `${COMMON}${formatExamples(examples)}\nExit codes: ${exitCodes};\n  1 for a failure, 64 for a mistake in the command line`,
      )
      .action(async (...given: unknown[]) => {
        const command = given.at(-1) as Command;
        const options = await resolveOptions(program.opts<ParsedOptions>());
        for (const note of options.notes) await print(`gateway-lock: ${plain(note)}`, STDERR);
        outcome.done(await act(options, command.opts(), command.args));
      });

  add(
    "run",
    "hold the claim for a program, and start it with the listening socket",
    async (options, { handover }, command) => {
      const after = args.slice(args.indexOf("--") + 1).length;
      if (!args.includes("--") || command.length === 0)
        throw new UsageError(`write -- and the program after the options: ${RUN_USAGE}`);
      if (command.length > after) throw new UsageError(`'${command[0]}' belongs to no option: ${RUN_USAGE}`);
      const { runCommand } = await import("./run.ts");
      // Who can't be told, because the disk behind standard error is full, say, is no reason to end.
      const tell = (line: string) => void print(`gateway-lock: ${plain(line)}`, STDERR).catch(() => {});
      return await runCommand(command, { ...options.gateway, handover: handover === true, tell });
    },
    [
      ["gateway-lock run --state-dir .gateway -- node server.js", "it finds its socket at descriptor 3 (LISTEN_FDS)"],
      ["gateway-lock run --profile rescue --timeout 10000 -- python3 server.py", "give the old one 10 s to leave"],
      ["gateway-lock run --profile rescue --reserve derived -- node server.js", "and keep its derived ports for it"],
      ["gateway-lock run --state-dir .gateway --handover -- node server.js", "replace the running one; clients wait"],
    ],
    "the program's; 126 it can't be executed, 127 it is not there; 75 a duplicate, 78 under systemd",
  )
    .usage("[options] -- <program> [arguments]")
    .option(
      "--handover",
      "take over from a running gateway that has this option too, or its `handover`; and make room for the next one: the program gets SIGTERM, and clients wait for its successor",
    )
    .argument("[program...]");

  add(
    "status",
    "say who the gateway is, whether it listens and is well, and what to do next",
    async (options, { requireHealth }) => {
      const { statusCommand } = await import("./status.ts");
      return await statusCommand(options, { requireHealth: requireHealth === true });
    },
    [
      ["gateway-lock status --state-dir .gateway", "what it says is the evidence, and then the next step"],
      ["gateway-lock status --state-dir .gateway --require-health", "exit code 0 only if it is well"],
      ["gateway-lock status --profile rescue --json", "for programs"],
    ],
    "0 it runs, 1 it needs you, 3 it does not run, 4 this user can't see enough",
  ).option("--require-health", "exit code 1 unless it listens and is well");

  add(
    "probe",
    "ask the gateway whether it is well, and nothing else",
    async (options, _own, [url = null]) => {
      const { probeCommand } = await import("./probe.ts");
      return await probeCommand(options, url);
    },
    [
      ["gateway-lock probe --state-dir .gateway", "the owner of the lock, and nobody else is believed"],
      ["gateway-lock probe http://127.0.0.1:18789/healthz", "whoever answers there"],
    ],
    "0 well, 1 not",
  ).argument("[url]", "ws, wss, http or https, host, port, path; default: where the owner of the lock listens");

  add(
    "wait",
    "wait until the gateway is ready, or gone",
    async (options, own) => {
      const { waitCommand } = await import("./wait.ts");
      return await waitCommand(options, own.for as "free" | "ready");
    },
    [
      ["gateway-lock wait --for ready --state-dir .gateway --timeout 30000", "after a start"],
      ["gateway-lock wait --for free --state-dir .gateway --timeout 10000", "after a stop"],
    ],
    "0 it is, 124 not by --timeout (default: Infinity)",
  ).addOption(new Option("--for <state>", "what to wait for").choices(["free", "ready"]).makeOptionMandatory());

  add(
    "doctor",
    "check everything that a gateway needs, and say what to mend",
    async (options) => {
      const { doctorCommand } = await import("./doctor.ts");
      return await doctorCommand(options);
    },
    [
      ["gateway-lock doctor --state-dir .gateway --port 18789", "before the first start, or when one is refused"],
      ["gateway-lock doctor --profile rescue", "and whether it keeps out of the other profiles' way"],
    ],
    "0 all good, 1 something to mend",
  );

  add(
    "stop",
    "end the gateway, once it is certain which process that is",
    async (options, own) => {
      const { stopCommand } = await import("./stop.ts");
      return await stopCommand(options, { force: own.force === true, pid: own.pid as number | undefined });
    },
    [
      ["gateway-lock stop --state-dir .gateway", "SIGTERM, and wait until it is gone"],
      ["gateway-lock stop --state-dir .gateway --force --timeout 5000", "and SIGKILL if it is still there after 5 s"],
      ["gateway-lock stop --state-dir .gateway --force --pid 12345", "a stranger that listens there, and is meant"],
    ],
    "0 stopped, or nobody there; 1 refused",
  )
    .option("--force", "SIGKILL, if it is still there after --timeout (default: 10000)")
    .addOption(
      new Option(
        "--pid <number>",
        "the process that is meant; with --force also one that listens and holds no lock",
      ).argParser((text) => checked(() => checkPid("--pid", number(text)))),
    );

  add(
    "profiles",
    "show what profiles come to, and whether they can run side by side",
    async (_options, _own, names) => {
      const { profilesCommand } = await import("./profiles.ts");
      return await profilesCommand(names, program.opts<ParsedOptions>());
    },
    [
      ["gateway-lock profiles default rescue", "exit code 1 if they have something in common"],
      ["gateway-lock profiles default rescue --reserve derived", "the same if each claims its derived ports as well"],
      ["gateway-lock profiles rescue --json", "where it keeps its files, and its port"],
    ],
    "0 isolated, 1 not",
  ).argument("<names...>", "names of profiles; `default` is the one without a name");

  return program;
}

/** Those of the command line that say which gateway is meant, as they would be typed in a POSIX shell. */
export function gatewayOptions(program: Command): string {
  return program.options
    .map((option) => ({ option, name: option.attributeName() }))
    .filter(({ name }) => program.getOptionValueSource(name) === "cli" && name !== "timeout" && name !== "json")
    .flatMap(({ option, name }) =>
      valuesOf(program, name).map((value) =>
        typeof value === "boolean" ? option.long : `${option.long} ${quote(String(value))}`,
      ),
    )
    .join(" ");
}

function valuesOf(program: Command, name: string): readonly unknown[] {
  const value = program.getOptionValue(name);
  return name === "reserve" ? [formatReserve(value)] : [value].flat();
}

function formatExamples(examples: Examples): string {
  return `\nExamples:\n${examples.map(([line, purpose]) => `  # ${purpose}\n  ${line}\n`).join("")}`;
}
