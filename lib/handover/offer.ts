// The owner's side: listens for a successor, makes room, gives everything away, and goes on if that comes to nothing.

import { lstatSync, unlinkSync } from "node:fs";
import { constants } from "node:os";
import { printable, reasonOf, systemError } from "../errors.ts";
import type { Descriptors } from "../inheritance.ts";
import { callAt, orAborted } from "../lock/wait.ts";
import { isFailure, native } from "../native.ts";
import { packageVersion } from "../version.ts";
import { Channel, EndOfChannel } from "./channel.ts";
import {
  type Broken,
  CHECK_LIMIT,
  type Confirmed,
  DRAIN_LIMIT,
  HELLO_LIMIT,
  HOOK_LIMIT,
  type Kind,
  MAX_DESCRIPTORS,
  type Message,
  PROGRESS_INTERVAL,
  PROTOCOL,
} from "./protocol.ts";
import { tellStep } from "./steps.ts";

const RETRY_INTERVAL = 100; // ms

/** What is given away, and what becomes of it meanwhile. */
export interface Estate {
  descriptors(): Descriptors;
  /** Requests that are not answered yet. */
  unanswered(): readonly string[];
  /** Why the process `pid` can't be a successor, or `null`. */
  refuse(pid: number): Promise<string | null>;
  /** What quiesce() waits for before that. */
  obstacle(): string | null;
  /** Accepts nobody any more, and answers what is under way. */
  quiesce(signal: AbortSignal): Promise<void>;
  /** The application's last words. */
  finish(): Promise<void>;
  /** From here on it may be another one's: nothing is written or deleted. */
  suspend(): void;
  /** It is ours as before. */
  takeBack(): void;
  /** The application hears of that, and then it serves again. */
  resume(): Promise<void>;
  /** It is the process `pid`'s, but for these locks. */
  release(pid: number, unused: readonly number[]): void;
}

/** Why a handover came to nothing. */
class BrokenOff extends Error {
  override readonly name: string = "BrokenOff";
}

export class Offer {
  readonly #path: string;
  readonly #estate: Estate;
  /** Aborts when the gateway is closed. */
  readonly #closing = new AbortController();
  #fd = -1;
  /** Of the name at the path. */
  #inode: bigint | undefined;
  #isStarted = false;
  #hasWarned = false;
  #isBusy = false;
  #current: Promise<void> | null = null;

  /**
   * Makes a socket at `path`, in place of whatever socket another one has left there: whoever calls this has the lock. Successors wait in its queue until `start`.
   * Where somebody has wiped the directory this moment, `look` makes it when the owner has restored that.
   *
   * @throws SystemError
   */
  constructor(path: string, estate: Estate) {
    this.#path = path;
    this.#estate = estate;
    try {
      this.#open();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }

  start(): void {
    this.#isStarted = true;
    this.#listen();
  }

  /** Resolves when a handover that is under way has come to an end; it is broken off where that is still possible. */
  async close(): Promise<void> {
    this.#closing.abort(new BrokenOff("the gateway is being closed"));
    this.#stop();
    await this.#current;
  }

  #stop(): void {
    if (this.#fd !== -1) native().closeSocket(this.#fd);
    this.#fd = -1;
  }

  #open(): void {
    const path = this.#path;
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) unlinkSync(path);
    const fd = native().listenLocal(path);
    if (isFailure(fd)) throw systemError(fd, path);
    this.#fd = fd;
    this.#inode = inodeAt(path);
    if (this.#isStarted) this.#listen();
  }

  /** Resolves when it is known what became of a handover that is under way. */
  async settled(): Promise<void> {
    await this.#current;
  }

  /** A handover is under way, and it is not known yet what will become of it. */
  get isOpen(): boolean {
    return this.#current !== null;
  }

  /** The same; or it has come to nothing, and the gateway does not serve yet. */
  get isBusy(): boolean {
    return this.#isBusy;
  }

  /** Whether the name is there; somebody may have deleted it, or a successor that was about to begin has put its own there. */
  look(): void {
    if (this.#isBusy || this.#closing.signal.aborted) return;
    if (this.#fd !== -1 && inodeAt(this.#path) === this.#inode) return;
    this.#stop();
    try {
      this.#open();
    } catch (error) {
      this.#warnOnce(reasonOf(error)); // and it is tried again when somebody looks the next time
    }
  }

  #listen(): void {
    if (this.#fd === -1) return;
    const failure = native().awaitSocket(this.#fd, () => this.#accept());
    if (!isFailure(failure) || failure.errno === constants.errno.EBUSY) return;
    this.#warnOnce(systemError(failure, "the handover socket").message);
    this.#listenLater();
  }

  /** Where there are too many descriptors or threads: whoever has connected is still there then. */
  #listenLater(): void {
    setTimeout(() => this.#listen(), RETRY_INTERVAL).unref();
  }

  #accept(): void {
    const fd = native().acceptLocal(this.#fd);
    if (!isFailure(fd)) void this.#receive(new Channel(fd));
    if (isFailure(fd) && fd.errno !== constants.errno.EAGAIN) this.#listenLater();
    else this.#listen();
  }

  #warnOnce(reason: string): void {
    if (!this.#hasWarned) warn(`the gateway can't be handed over: ${reason}`);
    this.#hasWarned = true;
  }

  async #receive(channel: Channel): Promise<void> {
    try {
      const { user, pid } = channel.peer;
      const refusal = await this.#examine(channel, user, pid);
      if (refusal !== null) return channel.send(refusal);
      await this.#handOver(channel, pid);
    } catch (error) {
      // Nothing has happened yet. Whoever is still there is not to take this end for a death.
      trySend(channel, {
        type: "refused",
        reason: `it can't listen to anybody just now: ${reasonOf(error)}`,
        busy: true,
      });
    } finally {
      channel.close();
    }
  }

  /** Only what this user may do anyway is done for anybody; and only for who will understand the rest. */
  async #examine(channel: Channel, user: number, pid: number): Promise<Broken | null> {
    const refuse = (reason: string, busy = false): Broken => ({ type: "refused", reason, busy });
    const own = process.geteuid?.();
    if (user !== own) return refuse(`the successor runs as user ${user}, and the owner as user ${own}`);
    const limits = { deadline: performance.now() + HELLO_LIMIT, signal: this.#closing.signal };
    const message = await channel.expect(limits);
    if (message.type !== "hello") return refuse("the successor does not say hello");
    if (message.protocol !== PROTOCOL)
      return refuse(
        `the successor (gateway-lock ${message.version}) speaks version ${message.protocol} of the handover's protocol, and the owner (gateway-lock ${packageVersion()}) version ${PROTOCOL}`,
      );
    if (this.#isBusy) return refuse("it is being handed over to another successor already", true);
    this.#isBusy = true;
    const reason = await this.#estate.refuse(pid).catch(reasonOf);
    const isClosing = this.#closing.signal.aborted;
    if (reason === null && !isClosing) return null;
    this.#isBusy = false;
    return isClosing ? refuse(reasonOf(this.#closing.signal.reason), true) : refuse(reason as string);
  }

  async #handOver(channel: Channel, pid: number): Promise<void> {
    tellStep({ role: "owner", step: "asked", peer: pid });
    const attempt = this.#attempt(channel, pid).then((end) => {
      if (typeof end !== "string") this.#letGo(channel, pid, end);
      else this.#takeBack(channel, pid, end);
      return end;
    });
    this.#current = attempt.then(() => {});
    const end = await attempt;
    this.#current = null;
    if (typeof end !== "string") return;
    // By now the application may close the gateway, or serve anew.
    await this.#estate
      .resume()
      .catch((error: unknown) => warn(`after a handover that was broken off: ${reasonOf(error)}`));
    this.#isBusy = false;
    this.look();
    tellStep({ role: "owner", step: "resumed", peer: pid });
  }

  /** Why it came to nothing; or the successor owns, and these of the locks it has no use for. */
  async #attempt(channel: Channel, pid: number): Promise<string | readonly number[]> {
    let baton: number | null = null;
    try {
      channel.send({ type: "draining", protocol: PROTOCOL, version: packageVersion() });
      await this.#makeRoom(channel, pid);
      baton = makeBaton();
      this.#estate.suspend();
      const unused = await this.#give(channel, baton, pid);
      return isThere(baton) ? "the successor has confirmed what it had not taken" : unused;
    } catch (error) {
      // A successor that owns does not close its end. Of one that says nothing, the baton knows.
      const isOurs = baton === null || error instanceof EndOfChannel || isThere(baton);
      return isOurs ? reasonOf(error) : [];
    } finally {
      if (baton !== null) native().closeFile(baton);
    }
  }

  async #makeRoom(channel: Channel, pid: number): Promise<void> {
    const estate = this.#estate;
    const end = new AbortController();
    channel.onEnd = () => end.abort(new EndOfChannel());
    const closing = this.#closing.signal;
    const signal = AbortSignal.any([end.signal, closing]);
    const progress = setInterval(() => {
      trySend(channel, { type: "progress", requests: estate.unanswered().length });
    }, PROGRESS_INTERVAL);
    const stopTimer = callAt(performance.now() + DRAIN_LIMIT, () => {
      const overdue = estate.obstacle() ?? describeUnanswered(estate.unanswered());
      end.abort(new BrokenOff(`${overdue} after ${DRAIN_LIMIT / 1000} s`));
    });
    try {
      await estate.quiesce(signal);
      stopTimer();
      tellStep({ role: "owner", step: "drained", peer: pid });
      signal.throwIfAborted();
      await within(HOOK_LIMIT, callHook(estate), closing);
      tellStep({ role: "owner", step: "written", peer: pid });
      signal.throwIfAborted();
    } finally {
      stopTimer();
      clearInterval(progress);
    }
  }

  /** @returns the locks that the successor has no use for */
  async #give(channel: Channel, baton: number, pid: number): Promise<readonly number[]> {
    const { listeners, guards, locks, shared } = this.#estate.descriptors();
    const all: (readonly [number, Kind])[] = [
      ...locks.map((fd) => [fd, "lock"] as const),
      ...listeners.map((fd) => [fd, shared.includes(fd) ? "shared-listener" : "listener"] as const),
      ...guards.map((fd) => [fd, shared.includes(fd) ? "shared-guard" : "guard"] as const),
      [baton, "baton"],
    ];
    for (let first = 0; first < all.length; first += MAX_DESCRIPTORS) {
      const batch = all.slice(first, first + MAX_DESCRIPTORS);
      const more = first + MAX_DESCRIPTORS < all.length;
      channel.send(
        { type: "claim", kinds: batch.map(([, kind]) => kind), more },
        batch.map(([fd]) => fd),
      );
      // Descriptors on their way count against a limit of their own (unix(7), ETOOMANYREFS).
      await this.#expect("received", channel);
    }
    tellStep({ role: "owner", step: "sent", peer: pid });
    const { unused } = (await this.#expect("confirmed", channel)) as Confirmed;
    return locks.filter((_, index) => Array.isArray(unused) && unused.includes(index));
  }

  async #expect(type: Message["type"], channel: Channel): Promise<Message> {
    const deadline = performance.now() + CHECK_LIMIT;
    const message = await channel.expect({ deadline, signal: this.#closing.signal });
    if (message.type === "broken") throw new EndOfChannel(message.reason);
    if (message.type !== type) throw new BrokenOff("the successor says what it should not");
    return message;
  }

  #letGo(channel: Channel, pid: number, unused: readonly number[]): void {
    tellStep({ role: "owner", step: "confirmed", peer: pid });
    this.#closing.abort(new BrokenOff("the gateway has been handed over"));
    this.#stop();
    this.#estate.release(pid, unused);
    trySend(channel, { type: "released" });
    tellStep({ role: "owner", step: "released", peer: pid });
  }

  #takeBack(channel: Channel, pid: number, reason: string): void {
    trySend(channel, { type: "broken", reason, busy: this.#closing.signal.aborted });
    if (!this.#closing.signal.aborted)
      warn(`the gateway was not handed over to pid ${pid}, and goes on here: ${printable(reason)}`);
    this.#estate.takeBack();
  }
}

function warn(message: string): void {
  process.emitWarning(message, "GatewayLockWarning");
}

function inodeAt(path: string): bigint | undefined {
  try {
    return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
  } catch {
    return undefined;
  }
}

const MAX_NAMED = 3;

function describeUnanswered(requests: readonly string[]): string {
  if (requests.length === 0) return "connections were still open";
  const more = requests.length > MAX_NAMED ? ` and ${requests.length - MAX_NAMED} more` : "";
  return `not answered yet: ${requests.slice(0, MAX_NAMED).join(", ")}${more},`;
}

async function callHook(estate: Estate): Promise<void> {
  try {
    await estate.finish();
  } catch (cause) {
    throw new BrokenOff(`its onHandover has failed: ${reasonOf(cause)}`, { cause });
  }
}

function makeBaton(): number {
  const baton = native().makeBaton();
  if (isFailure(baton)) throw systemError(baton, "for the handover");
  return baton;
}

/** Takes it, if it is there. */
function isThere(baton: number): boolean {
  return native().takeBaton(baton) === true;
}

/** @throws BrokenOff; `signal.reason`; what `promise` rejects with */
async function within(limit: number, promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const late = new AbortController(); // beside `signal`: it may be waiting for the gateway to be closed, which waits for this
  const stopTimer = callAt(performance.now() + limit, () => {
    late.abort(new BrokenOff(`its onHandover has not resolved within ${limit / 1000} s`));
  });
  try {
    await orAborted(AbortSignal.any([signal, late.signal]), promise);
  } finally {
    stopTimer();
  }
}

function trySend(channel: Channel, message: Message): void {
  try {
    channel.send(message);
  } catch {
    // It is gone, which is noticed anyway.
  }
}
