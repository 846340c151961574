// The successor's side: asks the owner, takes everything, and is the owner when it has the baton.

import { codeOf, reasonOf } from "../errors.ts";
import type { PassedSockets } from "../inheritance.ts";
import type { InheritedLocks } from "../lock/file-lock.ts";
import type { Limits } from "../lock/wait.ts";
import { native } from "../native.ts";
import { packageVersion } from "../version.ts";
import { Channel, closeAll, type Delivery, EndOfChannel, Silence } from "./channel.ts";
import { type Kind, PROTOCOL, RELEASE_LIMIT, SILENCE, socketPathOf } from "./protocol.ts";
import { tellStep } from "./steps.ts";

/** Why there is nothing to be had from the owner. */
export class NoOffer extends Error {
  override readonly name: string = "NoOffer";
  /** Worth asking again soon. */
  readonly passes: boolean;

  constructor(reason: string, { passes = false, cause }: { passes?: boolean; cause?: unknown } = {}) {
    super(reason, { cause });
    this.passes = passes;
  }
}

/** Everything that the owner has given. It still is the owner's, until `take`. */
export class Bequest implements InheritedLocks {
  readonly #channel: Channel;
  readonly #descriptors: readonly (readonly [fd: number, kind: Kind | "shared"])[];
  readonly #baton: number;
  #isConfirmed = false;

  constructor(channel: Channel, descriptors: readonly (readonly [number, Kind | "shared"])[]) {
    this.#channel = channel;
    this.#descriptors = descriptors;
    this.#baton = this.#of("baton")[0] as number;
  }

  get locks(): readonly number[] {
    return this.#of("lock");
  }

  get sockets(): PassedSockets {
    const shared = this.#of("shared");
    return { listeners: [...this.#of("listener"), ...shared], guards: this.#of("guard"), shared };
  }

  /** Copies of them are in use, and the rest is not needed: all are closed in the end. */
  use(): void {}

  /**
   * From here on this process is the owner, and the other one lets go whatever becomes of it.
   *
   * @throws NoOffer: the owner goes on, or says nothing
   */
  async take(): Promise<void> {
    const { peer } = this;
    tellStep({ role: "successor", step: "checked", peer });
    if (native().takeBaton(this.#baton) !== true) await this.#requireOrphaned();
    tellStep({ role: "successor", step: "taken", peer });
  }

  /** Says that the record is ours, and resolves when the predecessor has let go; not later than after RELEASE_LIMIT. */
  async confirm(): Promise<void> {
    const { peer } = this;
    this.#isConfirmed = true;
    tellStep({ role: "successor", step: "published", peer });
    this.#closeDescriptors();
    try {
      this.#channel.send({ type: "confirmed" });
      tellStep({ role: "successor", step: "confirmed", peer });
      await this.#channel.receive({ deadline: performance.now() + RELEASE_LIMIT, signal: null });
    } catch (error) {
      // One that is stopped will read it. Until then the channel stays open: its end would say that nobody is here.
      if (error instanceof Silence) {
        this.#channel.onEnd = () => this.#channel.close();
        return;
      }
    }
    this.#channel.close();
    tellStep({ role: "successor", step: "released", peer });
  }

  /** Lets go of everything, and says why: the owner goes on, whoever has the baton. Of no effect once it was confirmed. */
  giveBack(reason: string): void {
    if (this.#isConfirmed) return;
    this.#closeDescriptors();
    try {
      this.#channel.send({ type: "broken", reason });
    } catch {
      // It is gone.
    }
    this.#channel.close();
  }

  get peer(): number {
    return this.#channel.peer.pid;
  }

  /** The owner has taken the baton back: it goes on, unless it has died over that. */
  async #requireOrphaned(): Promise<void> {
    try {
      const { message } = await this.#channel.receive({ deadline: performance.now() + SILENCE, signal: null });
      throw new NoOffer(message.type === "broken" ? message.reason : "it goes on, and does not say why");
    } catch (error) {
      if (!(error instanceof EndOfChannel)) throw error;
    }
  }

  #closeDescriptors(): void {
    closeAll(this.#descriptors.map(([fd]) => fd));
  }

  #of(wanted: Kind | "shared"): number[] {
    return this.#descriptors.flatMap(([fd, kind]) => (kind === wanted ? fd : []));
  }
}

/**
 * Asks whoever has the state directory's lock to hand its gateway over.
 *
 * @returns `null` if it has ended meanwhile: its lock is free
 * @throws NoOffer: the owner refuses, or goes on for another reason; `signal.reason`
 */
export async function requestHandover(stateLockPath: string, signal: AbortSignal | null): Promise<Bequest | null> {
  const channel = connect(socketPathOf(stateLockPath));
  const received: (readonly [number, Kind | "shared"])[] = [];
  let isGiven = false;
  try {
    requireOwnUser(channel);
    const { pid: peer } = channel.peer;
    tellStep({ role: "successor", step: "connected", peer });
    channel.send({ type: "hello", protocol: PROTOCOL, version: packageVersion() });
    for (;;) {
      const { message, descriptors } = await next(channel, signal);
      if (message.type === "refused") throw new NoOffer(message.reason, { passes: message.busy === true });
      if (message.type === "broken") throw new NoOffer(message.reason, { passes: message.busy === true });
      if (message.type === "draining") tellStep({ role: "successor", step: "draining", peer });
      else if (message.type === "progress")
        tellStep({ role: "successor", step: "waiting", peer, requests: message.requests });
      else if (message.type === "claim") {
        received.push(...descriptors.map((fd, index) => [fd, message.kinds[index] as Kind] as const));
        if (!message.more && received.filter(([, kind]) => kind === "baton").length !== 1)
          throw new NoOffer("it has given no baton");
        channel.send({ type: "received" });
        if (message.more) continue;
        tellStep({ role: "successor", step: "received", peer });
        isGiven = true;
        return new Bequest(channel, received);
      } else throw new NoOffer("it says what it should not");
    }
  } catch (error) {
    closeAll(received.map(([fd]) => fd));
    if (signal?.aborted) throw signal.reason;
    const end = error instanceof EndOfChannel ? await lastWords(channel) : error;
    // Without all of it, the end of the owner is the end of the handover, and of its locks.
    if (end === null) return null;
    throw end instanceof NoOffer ? end : new NoOffer(reasonOf(end), { cause: end });
  } finally {
    if (!isGiven) channel.close();
  }
}

/** What an owner has said before it closed its end: that it goes on. `null`: nothing, it is dead. */
async function lastWords(channel: Channel): Promise<NoOffer | null> {
  try {
    for (;;) {
      const { message, descriptors } = await next(channel, null);
      closeAll(descriptors);
      if (message.type === "broken") return new NoOffer(message.reason, { passes: message.busy === true });
    }
  } catch {
    return null;
  }
}

function next(channel: Channel, signal: AbortSignal | null): Promise<Delivery> {
  const limits: Limits = { deadline: performance.now() + SILENCE, signal };
  return channel.receive(limits);
}

function connect(path: string): Channel {
  try {
    return Channel.connect(path);
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "ENOENT" || code === "ECONNREFUSED")
      throw new NoOffer("it does not offer that: it was started without `handover`, or is just starting or ending", {
        passes: true,
        cause,
      });
    throw new NoOffer(reasonOf(cause), { passes: code === "EAGAIN", cause });
  }
}

/** Whoever listens there could be anybody who may write to the directory. */
function requireOwnUser(channel: Channel): void {
  const { user } = channel.peer;
  const own = process.geteuid?.();
  if (user !== own) throw new NoOffer(`it runs as user ${user}, and this process as user ${own}`);
}
