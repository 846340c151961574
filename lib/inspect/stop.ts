// Ends a gateway: the verified owner and nobody else.
//
// Lock, record, start time and listener must agree before anybody is signalled. A pid alone is worth little: between the look and the signal
// it may become another process's. So the handle of a process is opened first, then everything is verified, and the handle is signalled, which
// goes on meaning the process that was verified. Where the system has no such handles, the start time is compared once more right before the
// signal, and the report says so.

import { readFileSync, statSync } from "node:fs";
import { constants } from "node:os";
import { EXIT, printable } from "../errors.ts";
import { type Liveness, livenessOf, type OwnerRecord } from "../lock/record.ts";
import { isFailure, native } from "../native.ts";
import { type ResolvedStop, resolveStopOptions, type StopOptions } from "../options.ts";
import { look, type Picture } from "./look.ts";
import { askThere, command, describeListeners, judge, pidsOf, strangersIn } from "./verdict.ts";
import { filesIn } from "./wait.ts";
import { Wakeups } from "./wakeups.ts";

/** What came of `stopGateway`. */
export interface StopReport {
  /** `refused`: nobody was signalled, or whoever was has not gone. */
  readonly outcome: "stopped" | "none" | "refused";
  /** 0, or 1 if refused. */
  readonly exitCode: 0 | 1;
  /** Who was signalled. */
  readonly pids: readonly number[];
  /** The last signal that was sent. */
  readonly signal: "SIGTERM" | "SIGKILL" | null;
  readonly ms: number;
  /** What was found and done, a sentence each. */
  readonly evidence: readonly string[];
  /** What to do about it, in a sentence. */
  readonly next: string;
}

type Signal = "SIGTERM" | "SIGKILL";

/** Who is to be ended. */
interface Target {
  /** SIGTERM is for these. */
  readonly asked: readonly number[];
  /** SIGKILL is for these. */
  readonly all: readonly number[];
  /** Whoever listens without a lock, by the caller's express wish. */
  readonly isStranger: boolean;
}

/** Why nobody is. */
interface Refusal {
  readonly outcome: "none" | "refused";
  readonly next: string;
}

type Decision = (Target | Refusal) & { readonly evidence: readonly string[] };

/** For how long SIGKILL may take: a process that waits for a disk does not die at once. ms */
const DYING = 5000;
const FATE: Readonly<Record<Liveness, string>> = {
  alive: "which is alive, and the same process",
  gone: "which is gone, or another process by now",
  unknown: "of which nothing is known here",
};
/** SIGTERM ends nobody there: Windows has no such signal. */
const HAS_SIGTERM: boolean = process.platform !== "win32";

/**
 * Ends the owner of a gateway's state directory with SIGTERM, and with `force` SIGKILL for whoever has not gone by the timeout. Waits until
 * the lock is free. A listener that is not the owner is named, and never signalled unless `force` and `pid` say so. Nothing is locked or deleted:
 * the next start takes over a record that is left.
 *
 * @throws TypeError, RangeError: bad options. `signal.reason`; what was sent stays sent
 */
export async function stopGateway(options: StopOptions): Promise<StopReport> {
  return await new Stop(resolveStopOptions(options)).run();
}

class Stop {
  readonly #options: ResolvedStop;
  readonly #started: number = performance.now();
  readonly #evidence: string[] = [];
  readonly #signalled = new Set<number>();
  readonly #processes = new Map<number, ProcessToEnd>();
  readonly #wakeups = new Wakeups();
  #lastSignal: Signal | null = null;

  constructor(options: ResolvedStop) {
    this.#options = options;
  }

  async run(): Promise<StopReport> {
    try {
      return await this.#run();
    } finally {
      this.#wakeups[Symbol.dispose]();
      for (const each of this.#processes.values()) each.close();
    }
  }

  async #run(): Promise<StopReport> {
    const { force, timeout, signal } = this.#options;
    const first = decide(await look(this.#options, signal), this.#options);
    if ("outcome" in first) return this.#refuse(first);
    for (const pid of first.all) this.#processes.set(pid, new ProcessToEnd(pid));
    // From here on no pid can come to mean another process unnoticed, so now it counts.
    const picture = await look(this.#options, signal);
    const target = decide(picture, this.#options);
    if ("outcome" in target) return this.#refuse(target);
    const stranger = target.all.find((pid) => !first.all.includes(pid));
    if (stranger !== undefined || target.asked.join() !== first.asked.join())
      return this.#refuse({ ...target, outcome: "refused", next: `it is changing: ${this.#again()}` });
    this.#evidence.push(...target.evidence);

    const signals: readonly (readonly [Signal, readonly number[], number])[] = [
      ...(HAS_SIGTERM ? [["SIGTERM", target.asked, timeout] as const] : []),
      ...(force ? [["SIGKILL", target.all, DYING] as const] : []),
    ];
    for (const [name, pids, patience] of signals) {
      for (const pid of pids) {
        const problem = this.#signal(pid, name);
        if (problem !== null) return this.#refuse({ evidence: [], outcome: "refused", next: problem });
      }
      const after = await this.#awaitEnd(target, picture.owner, performance.now() + patience);
      if (after !== null) return this.#succeed(after);
      const alive = target.all.filter((pid) => this.#processes.get(pid)?.isAlive);
      this.#note(
        `after ${patience}ms ${alive.length === 0 ? "somebody else still has the lock" : `${pidsOf(alive)} ${alive.length === 1 ? "is" : "are"} still there`}`,
      );
    }
    const next = force
      ? "not even SIGKILL has ended it: it waits in the kernel, for a disk or a network filesystem, say; look at its state in `ps`"
      : `end it by \`${command("stop --force", this.#options)}\`, or give it more time by --timeout`;
    return this.#report("refused", next);
  }

  /** Why it could not be sent; `null` if it was, or if there is nobody left to send it to. */
  #signal(pid: number, name: Signal): string | null {
    const ended = this.#processes.get(pid)?.signal(name);
    if (ended === undefined || ended === "gone") return null;
    if (ended === "denied") {
      return `pid ${pid} is another user's, whom this one may not signal: stop it as that user, or as root`;
    }
    this.#signalled.add(pid);
    this.#lastSignal = name;
    const how =
      ended === "by-handle"
        ? ""
        : " by its number, right after comparing its start time: this system has no handles for processes";
    this.#note(`sent ${name} to pid ${pid}${how}`);
    return null;
  }

  /** What is there once nobody of the target is left, or `null` at the deadline. */
  async #awaitEnd({ all, isStranger }: Target, owner: OwnerRecord | null, deadline: number): Promise<Picture | null> {
    for (;;) {
      const picture = await look(this.#options, this.#options.signal);
      this.#wakeups.follow([...all, ...picture.holders], filesIn(picture));
      const alive = all.filter((pid) => this.#processes.get(pid)?.isAlive);
      if (isStranger ? alive.length === 0 : hasLeft(picture, all, alive, owner)) return picture;
      if (performance.now() >= deadline) return null;
      await this.#wakeups.next(deadline, this.#options.signal);
    }
  }

  #note(sentence: string): void {
    this.#evidence.push(sentence);
    this.#options.onProgress?.(printable(sentence));
  }

  #again(): string {
    return `see \`${command("status", this.#options)}\`, and try again`;
  }

  #refuse({ outcome, evidence, next }: Refusal & { evidence: readonly string[] }): StopReport {
    this.#evidence.push(...evidence);
    return this.#report(outcome, next);
  }

  #succeed(after: Picture): StopReport {
    const state = stateOf(after);
    if (state.locked) {
      this.#note(`${pidsOf(state.holders)} ${state.holders.length === 1 ? "has" : "have"} the lock now`);
      return this.#report(
        "stopped",
        "another gateway has started since: where a supervisor restarts it, stop it there",
      );
    }
    return this.#report("stopped", describeRest(after));
  }

  #report(outcome: StopReport["outcome"], next: string): StopReport {
    return {
      outcome,
      exitCode: outcome === "refused" ? EXIT.FAILURE : EXIT.OK,
      pids: [...this.#signalled],
      signal: this.#lastSignal,
      ms: Math.round(performance.now() - this.#started),
      evidence: this.#evidence.map(printable),
      next: printable(next),
    };
  }
}

/** A process that keeps its identity: by a handle, or else by its start time. */
class ProcessToEnd {
  readonly #pid: number;
  readonly #handle: number | null;
  readonly #startTime: number | null;

  constructor(pid: number) {
    this.#pid = pid;
    const handle = native().openProcess(pid);
    this.#handle = isFailure(handle) ? null : handle;
    this.#startTime = startTimeOf(pid);
  }

  get isAlive(): boolean {
    return this.#startTime !== null && startTimeOf(this.#pid) === this.#startTime;
  }

  signal(name: Signal): "by-handle" | "by-number" | "gone" | "denied" {
    if (this.#handle !== null) {
      const failure = native().signalProcess(this.#handle, constants.signals[name]);
      if (failure === undefined) return "by-handle";
      if (failure.errno === constants.errno.ESRCH) return "gone";
      if (failure.errno === constants.errno.EPERM || failure.errno === constants.errno.EACCES) return "denied";
    }
    if (!this.isAlive) return "gone";
    try {
      process.kill(this.#pid, name);
      return "by-number";
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === "ESRCH" ? "gone" : "denied";
    }
  }

  close(): void {
    if (this.#handle !== null) native().closeProcess(this.#handle);
  }
}

/** `null` where there is no such process any more; a zombie is none. */
function startTimeOf(pid: number): number | null {
  const startTime = native().identifyProcess(pid);
  return isFailure(startTime) ? null : startTime;
}

interface State {
  readonly path: string;
  readonly locked: boolean | null;
  readonly holders: readonly number[];
  readonly record: OwnerRecord | null;
}

/** Of the state directory alone: who has only the config is another gateway. */
function stateOf({ locks }: Picture): State {
  const seen = locks.filter(({ resource }) => resource.role === "state");
  const locked = seen.some((lock) => lock.locked) ? true : seen.some((lock) => lock.locked === null) ? null : false;
  const holders = [...new Set(seen.flatMap((lock) => lock.holders))];
  const record = seen.find((lock) => lock.record !== null)?.record ?? null;
  return { path: seen[0]?.resource.path ?? "", locked, holders, record };
}

function decide(picture: Picture, options: ResolvedStop): Decision {
  const state = stateOf(picture);
  const evidence = describeEvidence(picture, state);
  const refuse = (next: string): Decision => ({ outcome: "refused", next, evidence });
  const { pid, force } = options;
  const isHolder = pid !== null && state.holders.includes(pid);
  const isListener = pid !== null && picture.listeners.some((listener) => listener.pid === pid);
  const agree = (target: Target): Decision => {
    if (target.all.includes(process.pid))
      return refuse(`pid ${process.pid} is this very process: let it close its gateway itself`);
    if (!HAS_SIGTERM && !force)
      return refuse(
        `Windows has no SIGTERM: end it by its own means, or at once by \`${command("stop --force", options)}\``,
      );
    const alien = pid !== null && force ? undefined : target.all.find((id) => isOfAnotherUser(id, state.path));
    if (alien !== undefined)
      return refuse(
        `pid ${alien} runs as another user than the owner of ${state.path}, who may have passed the lock to it: if that is what should end, \`${command(`stop --force --pid ${alien}`, options)}\` ends it`,
      );
    return { ...target, evidence };
  };

  if (pid !== null && !isHolder && !isListener)
    return refuse(`pid ${pid} neither holds the lock nor listens on the port: ${whatElse(picture, options)}`);
  if (pid !== null && force)
    return agree({
      asked: [pid],
      all: isHolder ? state.holders.filter((id) => id === pid || !isOfAnotherUser(id, state.path)) : [pid],
      isStranger: !isHolder,
    });

  const { listeners } = picture;
  if (picture.stateDir.kind === "no-directory") return refuse(judge(picture, null, options).next);
  if (state.locked === false && picture.locked !== false)
    return refuse(`nobody has the state directory ${state.path}: ${whatElse(picture, options)}`);
  if (state.locked === false && listeners.length === 0)
    return { outcome: "none", next: describeRest(picture), evidence };
  const [stranger] = strangersIn({ ...picture, holders: state.holders });
  if (stranger !== undefined) {
    const by = command(`stop --force --pid ${stranger.pid}`, options);
    const who = state.locked === false ? "nobody holds the lock" : "the listener is none of the lock's holders";
    return refuse(`${who}: if pid ${stranger.pid} is what should end, \`${by}\` ends it`);
  }
  if (state.locked !== true || state.holders.length === 0 || listeners.some((listener) => listener.pid === null))
    return refuse(judge(picture, null, options).next);
  if (picture.network === "another" && listeners.length === 0 && !force)
    return refuse(
      `the gateway (${pidsOf(state.holders)}) ${askThere(picture, "stop", options)}, or end it all the same by \`${command("stop --force", options)}\``,
    );
  return decideByRecord(state, options, refuse, agree);
}

/**
 * Descriptors can be passed to any process that takes some, and a lock goes with its descriptor: whoever may write the directory could have root end what
 * they may not. By the effective user (proc_pid_status(5)); elsewhere nobody passes locks without a program of their own that is ended with it.
 */
function isOfAnotherUser(pid: number, stateDir: string): boolean {
  try {
    const [, user] = /^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    return user !== undefined && Number(user) !== statSync(stateDir).uid;
  } catch {
    return false; // it has ended, or there is no procfs
  }
}

/** The next step for somebody who has named what is not there. */
function whatElse(picture: Picture, options: ResolvedStop): string {
  const { verdict, next } = judge(picture, null, options);
  return verdict === "free" || verdict === "stale-record" ? "no gateway runs" : next;
}

/** The kernel shows who holds the lock, and nobody else listens. */
function decideByRecord(
  { path, holders, record }: State,
  options: ResolvedStop,
  refuse: (next: string) => Decision,
  agree: (target: Target) => Decision,
): Decision {
  const byPid = `\`${command(`stop --force --pid ${holders[0]}`, options)}\` ends it all the same`;
  if (record === null) return refuse(`there is no record that says the same: try again in a moment, or ${byPid}`);
  if (record.stateDir !== null && record.stateDir !== path)
    return refuse(
      `the holder is the gateway of another state directory, ${record.stateDir}: stop that one, or ${byPid}`,
    );
  if (options.pid !== null && options.pid !== record.pid)
    return refuse(`pid ${options.pid} is not the owner, which is pid ${record.pid}: leave --pid out, or ${byPid}`);
  const liveness = livenessOf(record);
  if (holders.includes(record.pid) && liveness === "alive")
    return agree({ asked: [record.pid], all: holders, isStranger: false });
  // Whoever took the lock has died, or its number is another's by now. The holders have inherited the lock, or are just starting.
  if (liveness === "gone" && options.force) return agree({ asked: holders, all: holders, isStranger: false });
  const byForce = `\`${command("stop --force", options)}\` ends the holders`;
  return refuse(
    liveness === "gone"
      ? `the record's process is gone, and the lock is held by others, which may have inherited it: ${byForce}`
      : `the record names another process than the kernel: ${byPid}`,
  );
}

function describeEvidence(picture: Picture, { path, locked, holders, record }: State): string[] {
  const who = holders.length > 0 ? pidsOf(holders) : "a process that this user may not see";
  const lock =
    locked === null
      ? "it can't be seen whether the lock of"
      : locked
        ? `${who} ${holders.length > 1 ? "hold" : "holds"} the lock of`
        : "nobody holds the lock of";
  const evidence = [`${lock} ${path}${locked === null ? " is held" : ""}, by the kernel`];
  if (record !== null) evidence.push(`the record names pid ${record.pid}, ${FATE[livenessOf(record)]}`);
  if (picture.listeners.length === 0) evidence.push("nobody listens on its port");
  else evidence.push(describeListeners(picture.listeners));
  return evidence;
}

/** Whether the lock is let go of, by whoever had it. */
function hasLeft(
  picture: Picture,
  all: readonly number[],
  alive: readonly number[],
  owner: OwnerRecord | null,
): boolean {
  const { locked, holders, record } = stateOf(picture);
  if (locked === false) return true;
  if (locked === null) return alive.length === 0;
  // Others have it: successors write records of their own; a child that has inherited it does not.
  const isSuccessor = record !== null && (record.ownerId !== owner?.ownerId || record.pid !== owner?.pid);
  return holders.length > 0 && !holders.some((pid) => all.includes(pid)) && isSuccessor;
}

function describeRest({ locks }: Picture): string {
  const left = locks.find(({ record, torn }) => record !== null || torn);
  return left === undefined
    ? "nothing to do: no gateway runs"
    : `nothing to do: a record is left at ${left.path}, and the next start takes it over`;
}
