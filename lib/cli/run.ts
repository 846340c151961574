// `gateway-lock run`: holds a gateway's claim for a program that need not know of it.
//
// The program inherits the listening sockets, as from systemd, and behind them the locks and the guards: so it holds the claim itself,
// and goes on holding it if this process is killed. While both are there, this one keeps the locks too, so that it can restore
// lock files that are deleted, and delete them when the program has ended. The sockets that listen it closes: only who can
// accept should keep clients waiting.
//
// With `handover` it keeps those too: it ends the program for a successor, and between the two programs clients wait.

import { type ChildProcess, spawn } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { existsSync } from "node:fs";
import type { Socket } from "node:net";
import { constants } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { acquireGateway } from "../acquire.ts";
import { EXIT, GatewayLockError, systemError } from "../errors.ts";
import type { Gateway } from "../gateway.ts";
import { HOOK_LIMIT } from "../handover/protocol.ts";
import { type HandoverStep, STEP_CHANNEL } from "../handover/steps.ts";
import { Child, wordsFor } from "../inheritance.ts";
import { isFailure, native } from "../native.ts";
import type { GatewayOptions } from "../options.ts";
import { detectSupervisor } from "../supervisor/detect.ts";
import { NoProgramError } from "./options.ts";

/** How long a program that has lost its lock may take to end. ms */
const LOSS_PATIENCE = 10_000;

/** How long a program may take to end for a successor: a little less than the handover waits for that. ms */
const PROGRAM_LIMIT = HOOK_LIMIT - 500;
/** How often somebody who waits for a handover is told that he does. ms */
const PROGRESS_INTERVAL = 5000;

/** What a terminal sends to all of its foreground processes, and what operators and supervisors send to one. */
const FORWARDED: readonly NodeJS.Signals[] = [
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGTERM",
  "SIGUSR1",
  "SIGUSR2",
  "SIGWINCH",
];

/** Those by which an operator or a supervisor wants it to end. */
const ENDING: ReadonlySet<NodeJS.Signals> = new Set(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"]);

/** A program that died of one of these has left its own core; a second one of this process helps nobody. */
const DUMPING: ReadonlySet<NodeJS.Signals> = new Set([
  "SIGQUIT",
  "SIGILL",
  "SIGTRAP",
  "SIGABRT",
  "SIGBUS",
  "SIGFPE",
  "SIGSEGV",
  "SIGXCPU",
  "SIGXFSZ",
  "SIGSYS",
]);

export interface RunOptions extends GatewayOptions {
  /** Takes what the operator is told, a line each. */
  tell(line: string): void;
}

/**
 * Resolves with the program's exit code; if a signal ended it, this process ends by the same one.
 *
 * @throws what acquireGateway throws; NoProgramError; Error if the program can't be started. Nothing is held then
 */
export async function runCommand(command: readonly string[], { tell, ...options }: RunOptions): Promise<number> {
  if (process.platform === "win32") {
    throw new Error(
      "gateway-lock run is not available on Windows, where a program can't inherit locks; call acquireGateway() in the program itself",
    );
  }
  checkProgram(command[0] as string);
  const signals = new SignalRelay();
  const succession = new Succession(tell);
  const onWait = () => tell("another gateway has it; waiting until that is gone");
  const onStep = progressTeller(tell);
  subscribe("gateway-lock:wait", onWait);
  subscribe(STEP_CHANNEL, onStep);
  let gateway: Gateway;
  try {
    const handover = options.handover ? succession.hooks : undefined;
    gateway = await acquireGateway({ ...options, handover, signal: signals.early });
  } catch (error) {
    if (signals.early.aborted) return endBy(signals.early.reason);
    throw forSystemd(error);
  } finally {
    unsubscribe("gateway-lock:wait", onWait);
  }
  try {
    for (let times = 0; ; times++) {
      // What a program has had is deleted only if that has left nobody behind.
      const giveUp = async () => (times === 0 ? await gateway.close() : gateway.clearUp());
      if (signals.early.aborted) {
        await giveUp();
        return endBy(signals.early.reason);
      }
      if (times > 0) tell("the gateway goes on here: the program is started again");
      const child = await launch(command, gateway, { signals, succession }).catch(async (error: unknown) => {
        await giveUp();
        throw error;
      });
      const end = await runOnce(child, gateway, { signals, succession, tell });
      if (end !== "ended for a successor") return await finish(end, gateway, tell);
      if (await succession.isDone(gateway.handedOver)) return EXIT.OK;
    }
  } finally {
    unsubscribe(STEP_CHANNEL, onStep);
  }
}

interface Run {
  readonly signals: SignalRelay;
  readonly succession: Succession;
  tell(line: string): void;
}

/** A program, and what came of it. */
interface Program {
  readonly child: ChildProcess;
  readonly exited: Promise<[number | null, NodeJS.Signals | null]>;
}

async function launch(
  command: readonly string[],
  gateway: Gateway,
  { signals, succession }: Omit<Run, "tell">,
): Promise<Program> {
  const child = start(command, gateway);
  const exited: Program["exited"] = new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve([code, signal]));
  });
  signals.forwardTo(child);
  succession.begin(child, exited);
  await once(child, "spawn"); // or its error
  return { child, exited };
}

async function runOnce(
  program: Program,
  gateway: Gateway,
  { signals, succession, tell }: Run,
): Promise<End | "ended for a successor"> {
  const end = await watch(program, gateway, tell);
  const wasTold = signals.forwardTo(null);
  return succession.hasBegun && !wasTold && !end.isAdopted && !end.isLost ? "ended for a successor" : end;
}

async function finish({ code, signal, isAdopted, isLost }: End, gateway: Gateway, tell: Run["tell"]): Promise<number> {
  // What the program has adopted was its own, and ended with it.
  if (!isAdopted && !gateway.clearUp())
    tell(
      "the program has ended, and somebody has the gateway: the next one, or a process that the program has left behind; see gateway-lock status",
    );
  if (isLost) return 1;
  return signal === null ? (code ?? 1) : endBy(signal);
}

/** What becomes of the program when the gateway goes to another `gateway-lock run`. */
class Succession {
  readonly #tell: Run["tell"];
  #child: ChildProcess | null = null;
  #exited: Promise<unknown> = Promise.resolve();
  #hasBegun = false;
  #resume: () => void = () => {};
  #resumed: Promise<void> = Promise.resolve();

  constructor(tell: Run["tell"]) {
    this.#tell = tell;
  }

  /** The program is told to end, or is at its end, for a successor's sake. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  readonly hooks = {
    onHandover: async (): Promise<void> => {
      this.#hasBegun = true;
      this.#resumed = new Promise((resolve) => {
        this.#resume = resolve;
      });
      this.#child?.kill("SIGTERM");
      const late = delay(PROGRAM_LIMIT, "late", { ref: false });
      if ((await Promise.race([this.#exited, late])) !== "late") return;
      throw new Error(
        `its program (pid ${this.#child?.pid}) has not ended within ${PROGRAM_LIMIT / 1000} s of SIGTERM`,
      );
    },
    onResume: (): void => {
      if (this.#child?.exitCode === null && this.#child.signalCode === null)
        this.#tell(`the program (pid ${this.#child.pid}) was told to end, and is started again when it has`);
      this.#resume();
    },
  };

  begin(child: ChildProcess, exited: Promise<unknown>): void {
    this.#hasBegun = false;
    this.#child = child;
    this.#exited = exited;
  }

  /** After the end of the program: whether the successor has the gateway, or it is to go on here. */
  async isDone(handedOver: AbortSignal): Promise<boolean> {
    await Promise.race([this.#resumed, handedOver.aborted || once(handedOver, "abort")]);
    return handedOver.aborted;
  }
}

/** What an operator who is waiting for a handover would like to know. */
function progressTeller(tell: Run["tell"]): (step: unknown) => void {
  let told = -Infinity;
  return (message) => {
    const step = message as HandoverStep;
    if (step.role === "owner") {
      if (step.step === "asked") tell(`pid ${step.peer} asks for the gateway: the program is told to end`);
      if (step.step === "released") tell(`the gateway has been handed over to pid ${step.peer}`);
    } else if (step.step === "draining") {
      told = performance.now();
      tell(`pid ${step.peer} hands its gateway over`);
    } else if (step.step === "waiting" && performance.now() >= told + PROGRESS_INTERVAL) {
      told = performance.now();
      tell(`pid ${step.peer} is not ready yet${step.requests ? `; requests not answered: ${step.requests}` : ""}`);
    }
  };
}

/** The shell that starts it would notice only after the claim was taken, and its directories made. */
function checkProgram(program: string): void {
  const { PATH } = process.env;
  const isPath = program.includes("/");
  const places = isPath ? [program] : PATH?.split(":").map((directory) => join(directory, program));
  if (places === undefined || places.some((place) => existsSync(place))) return;
  throw new NoProgramError(`there is no program '${program}'${isPath ? "" : " in PATH"}`);
}

/** A duplicate has an exit code of its own there, for RestartPreventExitStatus=. */
function forSystemd(error: unknown): unknown {
  if (!(error instanceof GatewayLockError && error.retryable) || detectSupervisor() !== "systemd") return error;
  const { code, message, cause, host, port, url, lockPath, resource, owner, listener } = error;
  const details = { cause, host, port, url, lockPath, resource, owner, listener };
  return new GatewayLockError(code, message, { ...details, exitCode: EXIT.SUPERVISED_DUPLICATE });
}

/**
 * Starts the program with the claim. The pid that LISTEN_PID must name is known to the program itself alone: so a shell
 * says it, and becomes the program.
 */
function start(command: readonly string[], gateway: Gateway): ChildProcess {
  const { listeners, locks, guards } = gateway.descriptors;
  for (const fd of listeners) {
    const failure = native().lendSocket(fd);
    if (isFailure(failure)) throw systemError(failure, `descriptor ${fd}`);
  }
  const script = 'export LISTEN_PID=$$ GATEWAY_LOCK_PID=$$; exec "$@"';
  return spawn("/bin/sh", ["-c", script, "gateway-lock", ...oddVariables(), ...command], {
    stdio: ["inherit", "inherit", "inherit", ...listeners, ...locks, ...guards, "pipe"],
    env: { ...process.env, ...wordsFor(gateway.descriptors) },
  });
}

/** Shells drop variables that they have no syntax for; env(1) sets any. */
function oddVariables(): readonly string[] {
  const odd = Object.entries(process.env).filter(([name]) => !/^[A-Za-z_]\w*$/.test(name));
  return odd.length === 0 ? [] : ["/usr/bin/env", ...odd.map(([name, value]) => `${name}=${value}`)];
}

interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly isAdopted: boolean;
  readonly isLost: boolean;
}

async function watch({ child, exited }: Program, gateway: Gateway, tell: Run["tell"]): Promise<End> {
  // A program that has become another user's can't be signalled.
  child.on("error", (error) => tell(`the program (pid ${child.pid}) can't be told: ${error.message}`));
  let isAdopted = false;
  const channel = new Child(child.stdio.at(-1) as Socket, () => {
    isAdopted = true;
    gateway.leave();
    channel.close();
  });
  gateway.entrustTo(child.pid as number);
  channel.tellPublished();
  let isLost = false;
  const onLost = () => {
    isLost = true;
    tell(`${gateway.lost.reason.message}; the program is told to end`);
    child.kill("SIGTERM");
    setTimeout(() => child.kill("SIGKILL"), LOSS_PATIENCE).unref();
  };
  gateway.lost.addEventListener("abort", onLost);
  const [code, signal] = await exited;
  gateway.lost.removeEventListener("abort", onLost);
  channel.close();
  return { code, signal, isAdopted, isLost };
}

/** What becomes of the signals that this process gets. */
class SignalRelay {
  readonly #early = new AbortController();
  #child: ChildProcess | null = null;
  #wasTold = false;

  constructor() {
    for (const signal of FORWARDED) process.on(signal, this.#receive);
    native().countSentSignals(FORWARDED.map((signal) => constants.signals[signal]));
  }

  /** Aborts, with the signal's name as its reason, when one comes that would end a process before there is one to forward it to. */
  get early(): AbortSignal {
    return this.#early.signal;
  }

  /** `null`: there is none any more, or not yet. Whether the one before was told to end. */
  forwardTo(child: ChildProcess | null): boolean {
    const wasTold = this.#wasTold;
    this.#wasTold = false;
    this.#child = child;
    return wasTold;
  }

  readonly #receive = (signal: NodeJS.Signals, number: number): void => {
    const sent = native().takeSentSignals(number);
    if (this.#child === null) {
      if (signal !== "SIGWINCH") this.#early.abort(signal);
      return;
    }
    // What the terminal sends, the program has got as well; but of a terminal that is gone, only the leader of its session hears.
    const times = signal === "SIGHUP" ? 1 : sent;
    if (ENDING.has(signal)) this.#wasTold = true;
    for (let time = 0; time < times; time++) this.#child.kill(signal);
  };
}

/** Ends this process as the program ended. Returns the exit code that says so where a signal can't: to the first process of a container. */
function endBy(signal: NodeJS.Signals): number {
  const code = 128 + constants.signals[signal];
  if (DUMPING.has(signal) || process.pid === 1) return code;
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
  return code;
}
