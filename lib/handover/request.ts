// The successor's side: asks the owner, takes everything, and is the owner when it has the baton.

import { codeOf, reasonOf } from "../errors.ts";
import type { PassedSockets } from "../inheritance.ts";
import type { InheritedLocks } from "../lock/file-lock.ts";
import { native } from "../native.ts";
import { packageVersion } from "../version.ts";
import { Channel, closeAll, EndOfChannel } from "./channel.ts";
import { BUSY_LIMIT, type Kind, NoOffer, PROTOCOL, RELEASE_LIMIT, SILENCE, socketPathOf } from "./protocol.ts";
import { tellStep } from "./steps.ts";

type Given = readonly [fd: number, kind: Kind];

/** Everything that the owner has given. It still is the owner's, until `take`. */
export class Bequest implements InheritedLocks {
  readonly #channel: Channel;
  readonly #peer: number;
  readonly #descriptors: readonly Given[];
  readonly #baton: number;
  readonly #used = new Set<number>();
  #isConfirmed = false;

  constructor(channel: Channel, peer: number, descriptors: readonly Given[]) {
    this.#channel = channel;
    this.#peer = peer;
    this.#descriptors = descriptors;
    this.#baton = this.#of("baton")[0] as number;
  }

  get locks(): readonly number[] {
    return this.#of("lock");
  }

  get sockets(): PassedSockets {
    return {
      listeners: this.#of("listener", "shared-listener"),
      guards: this.#of("guard", "shared-guard"),
      shared: this.#of("shared-listener", "shared-guard"),
    };
  }

  /** There is a copy of it in use. All of them are closed in the end. */
  use(fd: number): void {
    this.#used.add(fd);
  }

  /**
   * From here on this process is the owner, and the other one lets go whatever becomes of it.
   *
   * @throws NoOffer: the owner goes on, or says nothing
   */
  async take(): Promise<void> {
    const peer = this.#peer;
    tellStep({ role: "successor", step: "checked", peer });
    if (native().takeBaton(this.#baton) !== true) throw await this.#whyNot();
    tellStep({ role: "successor", step: "taken", peer });
  }

  /** Says that the record is ours. */
  confirm(): void {
    const peer = this.#peer;
    this.#isConfirmed = true;
    tellStep({ role: "successor", step: "published", peer });
    const unused = this.locks.flatMap((fd, index) => (this.#used.has(fd) ? [] : index));
    this.#closeDescriptors();
    try {
      this.#channel.send({ type: "confirmed", unused });
      tellStep({ role: "successor", step: "confirmed", peer });
    } catch {
      // It is dead, or will miss the baton.
    }
  }

  /** Resolves when the predecessor has let go; not later than after RELEASE_LIMIT. */
  async released(): Promise<void> {
    const peer = this.#peer;
    try {
      await this.#channel.expect({ deadline: performance.now() + RELEASE_LIMIT, signal: null });
    } catch (error) {
      // One that is stopped goes on some day. Until then the channel stays open: its end would say that nobody is here.
      if (!(error instanceof EndOfChannel)) {
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

  /** The owner has taken the baton back. */
  async #whyNot(): Promise<NoOffer> {
    try {
      const message = await this.#channel.expect({ deadline: performance.now() + SILENCE, signal: null });
      return new NoOffer(message.type === "broken" ? message.reason : "it goes on, and does not say why");
    } catch (error) {
      // It may have ended since, or have given everything to somebody else: whoever asks anew will see.
      return new NoOffer(reasonOf(error), { cause: error });
    }
  }

  #closeDescriptors(): void {
    closeAll(this.#descriptors.map(([fd]) => fd));
  }

  #of(...wanted: readonly Kind[]): number[] {
    return this.#descriptors.flatMap(([fd, kind]) => (wanted.includes(kind) ? fd : []));
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
  const received: Given[] = [];
  const end = performance.now() + BUSY_LIMIT;
  let isGiven = false;
  try {
    requireOwnUser(channel);
    const { pid: peer } = channel.peer;
    tellStep({ role: "successor", step: "connected", peer });
    channel.send({ type: "hello", protocol: PROTOCOL, version: packageVersion() });
    for (;;) {
      if (performance.now() >= end) throw new NoOffer(`it has given nothing after ${BUSY_LIMIT / 1000} s`);
      const { message, descriptors } = await channel.receive({ deadline: performance.now() + SILENCE, signal });
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
        return new Bequest(channel, peer, received);
      } else {
        closeAll(descriptors);
        throw new NoOffer("it says what it should not");
      }
    }
  } catch (error) {
    closeAll(received.map(([fd]) => fd));
    if (signal?.aborted) throw signal.reason;
    const reason = error instanceof EndOfChannel ? await lastWords(channel) : error;
    // Without all of it, the end of the owner is the end of the handover, and of its locks.
    if (reason === null) return null;
    throw reason instanceof NoOffer ? reason : new NoOffer(reasonOf(reason), { cause: reason });
  } finally {
    if (!isGiven) channel.close();
  }
}

/** What an owner has said before it closed its end: that it goes on. `null`: nothing, it is dead. */
async function lastWords(channel: Channel): Promise<NoOffer | null> {
  try {
    for (;;) {
      const message = await channel.expect({ deadline: performance.now() + SILENCE, signal: null });
      if (message.type === "broken" || message.type === "refused")
        return new NoOffer(message.reason, { passes: message.busy === true });
    }
  } catch {
    return null;
  }
}

function connect(path: string): Channel {
  try {
    return Channel.connect(path);
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "ENOENT" || code === "ECONNREFUSED")
      throw new NoOffer(
        "it does not offer that: it was started without `handover`, and has to be stopped first; or it is just starting or ending",
        { passes: true },
      );
    const hint = code === "EACCES" ? "; run this process as the owner's user" : "";
    throw new NoOffer(`${reasonOf(cause)}${hint}`, { passes: code === "EAGAIN", cause });
  }
}

/** Whoever listens there could be anybody who may write to the directory. */
function requireOwnUser(channel: Channel): void {
  const { user } = channel.peer;
  const own = process.geteuid?.();
  if (user !== own) throw new NoOffer(`it runs as user ${user}, and this process as user ${own}`);
}
