// What this process was started with: sockets that listen already (sd_listen_fds(3)), or a whole claim by `gateway-lock run`.
//
// A descriptor is inherited as a bare number, and the environment says what it means. But the environment goes on to every
// descendant, and descriptors need not: so it also names the one process that it speaks to, as systemd's LISTEN_PID does. Whoever
// takes a claim takes the word out of the environment first; nobody else in this process can then take it a second time. It
// is used by copies, and the originals are closed when the gateway is complete: an attempt that fails loses nothing.
//
// The parent goes on guarding the claim for a program that knows nothing of all this. A program that takes it says so through
// the channel, and the parent lets go; from then on close() really frees. The parent for its part says when it has
// written the child's pid into the record, so that it never writes over what the child has written itself.

import { closeSync } from "node:fs";
import { Socket } from "node:net";
import { isMainThread } from "node:worker_threads";

/** Descriptors by what they are for. */
export interface Descriptors {
  readonly listeners: readonly number[];
  readonly guards: readonly number[];
  readonly locks: readonly number[];
  /** A supervisor listens by the listeners too, and goes on when this gateway is gone. */
  readonly shared: boolean;
}

/** The first descriptor of the systemd protocol (SD_LISTEN_FDS_START of sd-daemon.h). */
export const FIRST_DESCRIPTOR = 3;
/** How long a parent that is alive and says nothing holds its child up. ms */
const PATIENCE = 1000;

const PUBLISHED = "published\n";
const ADOPTED = "adopted\n";

/** For the child of `gateway-lock run`, beside LISTEN_PID and LISTEN_FDS: lists of descriptors, separated by commas. */
const PID = "GATEWAY_LOCK_PID";
const LOCKS = "GATEWAY_LOCK_FDS";
const GUARDS = "GATEWAY_LOCK_GUARD_FDS";
const CHANNEL = "GATEWAY_LOCK_CHANNEL_FD";
const SHARED = "GATEWAY_LOCK_SHARED";
const WORDS = [PID, LOCKS, GUARDS, CHANNEL, SHARED, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] as const;

/** A claim that the parent has made for this process. */
export class Inheritance implements Descriptors {
  readonly listeners: readonly number[] = activatedListeners();
  readonly guards: readonly number[] = numbersIn(process.env[GUARDS]);
  readonly locks: readonly number[] = numbersIn(process.env[LOCKS]);
  readonly shared: boolean = process.env[SHARED] === "1";
  readonly #words: ReadonlyMap<string, string>;
  readonly #parent: Parent | null;

  private constructor() {
    this.#parent = Parent.get(numbersIn(process.env[CHANNEL])[0]);
    const words = WORDS.map((name) => [name, process.env[name]] as const);
    this.#words = new Map(words.filter((word): word is [(typeof WORDS)[number], string] => word[1] !== undefined));
    for (const name of WORDS) delete process.env[name];
  }

  /** `null` where there is none for this process, or somebody in it has it already. */
  static take(): Inheritance | null {
    // A worker has an environment of its own: it could take what another thread has taken.
    return isMainThread && process.env[PID] === String(process.pid) ? new Inheritance() : null;
  }

  /** Resolves when the parent does not write into the record any more. */
  async settled(): Promise<void> {
    await this.#parent?.settled();
  }

  /** The claim is held by other descriptors now. */
  keep(): void {
    for (const fd of [...this.listeners, ...this.guards, ...this.locks].reverse()) closeSync(fd);
    this.#parent?.tell(ADOPTED);
  }

  /** For another attempt. */
  giveBack(): void {
    for (const [name, value] of this.#words) process.env[name] = value;
  }
}

/** The sockets that were passed to this process, whether by a supervisor or by `gateway-lock run`. */
export function activatedListeners(): readonly number[] {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  if (LISTEN_PID !== String(process.pid) || !/^[1-9]\d{0,3}$/.test(LISTEN_FDS ?? "")) return [];
  return Array.from({ length: Number(LISTEN_FDS) }, (_, index) => FIRST_DESCRIPTOR + index);
}

function numbersIn(list: string | undefined): readonly number[] {
  return (list ?? "").split(",").flatMap((text) => (/^\d{1,7}$/.test(text) ? Number(text) : []));
}

/** The other end of the channel: `gateway-lock run`, for as long as it lives. It does not keep this process alive. */
class Parent {
  static #only: Parent | null = null;
  readonly #channel: Socket;
  #wake: () => void = () => {};
  readonly #settled = new Promise<void>((resolve) => {
    this.#wake = resolve;
  });

  /** One for all attempts: what it has said is not said again. */
  static get(fd: number | undefined): Parent | null {
    if (fd !== undefined) Parent.#only ??= new Parent(fd);
    return Parent.#only;
  }

  private constructor(fd: number) {
    this.#channel = new Socket({ fd, readable: true, writable: true });
    this.#channel
      .on("error", () => {})
      .once("data", this.#wake)
      .once("close", this.#wake)
      .unref();
  }

  async settled(): Promise<void> {
    const timer = setTimeout(this.#wake, PATIENCE);
    await this.#settled;
    clearTimeout(timer);
  }

  tell(message: string): void {
    this.#channel.end(message);
  }
}

/** What a parent says to its child, and hears from it; see above. */
export class Child {
  readonly #channel: Socket;

  /** `onAdopted` is called when the child has taken the claim. */
  constructor(channel: Socket, onAdopted: () => void) {
    this.#channel = channel;
    channel.on("error", () => {}).once("data", onAdopted);
  }

  tellPublished(): void {
    this.#channel.write(PUBLISHED);
  }

  /** What it has left behind may have its end open. */
  close(): void {
    this.#channel.destroy();
  }
}

/** What the environment of a child has to say that is started with `descriptors` from FIRST_DESCRIPTOR on, in the order of Descriptors, and then a channel. */
export function wordsFor({ listeners, guards, locks, shared }: Descriptors): { readonly [name: string]: string } {
  let next = FIRST_DESCRIPTOR;
  const numbers = (count: number) => Array.from({ length: count }, () => next++).join(",");
  next += listeners.length;
  return {
    LISTEN_FDS: String(listeners.length),
    LISTEN_FDNAMES: listeners.map(() => "gateway").join(":"),
    [LOCKS]: numbers(locks.length),
    [GUARDS]: numbers(guards.length),
    [CHANNEL]: numbers(1),
    [SHARED]: shared ? "1" : "0",
  };
}

/** Why a claim that `gateway-lock run` has made is refused to a process that it has started: in between there is another one. */
export function explainDisinheritance(): string | null {
  const heir = process.env[PID];
  if (heir === undefined || heir === String(process.pid)) return null;
  return `gateway-lock run has left its claim to pid ${heir}, and this is pid ${process.pid}: let it start this program itself, without npm, and with exec in a shell`;
}
