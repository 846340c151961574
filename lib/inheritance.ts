// What this process was started with: sockets that listen already (sd_listen_fds(3)), or a whole claim by `gateway-lock run`.
//
// A descriptor is inherited as a bare number, and the environment says what it means. But the environment goes on to every
// descendant, and descriptors need not: so it also names the one process that it speaks to, as systemd's LISTEN_PID does. Whoever
// takes a claim takes the word out of the environment first; nobody else in this process can then take it a second time. It
// is used by copies, and the originals are closed when the gateway is complete: an attempt that fails loses nothing. What was kept for a gateway that
// does not ask for it is closed with them. Nothing else is, and a number only while it still is the same file.
//
// The parent goes on guarding the claim for a program that knows nothing of all this. A program that takes it says so through
// the channel, and the parent lets go; from then on close() really frees. The parent for its part says when it has
// written the child's pid into the record, so that it does not write over what the child has written itself. Should it be slow and do so after
// all, the child writes its record again when the parent has let go.

import { closeSync, fstatSync } from "node:fs";
import type { Socket } from "node:net";
import { net, workerThreads } from "./builtins.ts";

/** Descriptors by what they are for. */
export interface Descriptors {
  readonly listeners: readonly number[];
  readonly guards: readonly number[];
  readonly locks: readonly number[];
  /** Those by which a supervisor listens too, and goes on when this gateway is gone. */
  readonly shared: readonly number[];
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
export class Inheritance {
  /** What was taken out of the environment, once a descriptor is used; `null` before that, and after it was given back. */
  #words: ReadonlyMap<string, string> | null = null;
  /** The descriptors of which there are copies, and which file each one was: somebody in this program may close one, and get another file by its number. */
  readonly #used = new Map<number, string>();

  private constructor() {}

  /** `null` where the parent left none to this process. Nothing is taken yet. */
  static find(): Inheritance | null {
    // A worker has an environment of its own: it could take what another thread has taken.
    return isHeir() && workerThreads().isMainThread ? new Inheritance() : null;
  }

  /** None, if somebody else in this process has them. */
  get locks(): readonly number[] {
    return this.#words === null && !isHeir() ? [] : numbersIn(this.#word(LOCKS));
  }

  /** Of what was taken with a lock. */
  get sockets(): PassedSockets {
    return {
      listeners: listenersFrom(this.#word("LISTEN_PID"), this.#word("LISTEN_FDS")),
      guards: numbersIn(this.#word(GUARDS)),
      shared: numbersIn(this.#word(SHARED)),
    };
  }

  /** There is a copy of it. From the first one on, nobody else in this process finds the claim. */
  use(fd: number): void {
    if (this.#words === null) {
      const words = WORDS.map((name) => [name, process.env[name] ?? ""] as const);
      this.#words = new Map(words.filter(([, value]) => value !== ""));
      for (const name of WORDS) delete process.env[name];
    }
    this.#used.set(fd, identityOf(fd));
  }

  /** Resolves when the parent does not write into the record any more. */
  async settled(): Promise<void> {
    await this.#parent?.settled();
  }

  /** The claim is held by the copies now. `onParentGone` is called when the parent has let go, or is gone. */
  keep(onParentGone: () => void): void {
    for (const [fd, identity] of [...this.#used].reverse()) if (identityOf(fd) === identity) closeSync(fd);
    this.#parent?.tell(ADOPTED, onParentGone);
  }

  /** For another attempt. */
  giveBack(): void {
    for (const [name, value] of this.#words ?? []) process.env[name] = value;
    this.#words = null;
    this.#used.clear();
  }

  get #parent(): Parent | null {
    return Parent.get(numbersIn(this.#word(CHANNEL))[0]);
  }

  #word(name: (typeof WORDS)[number]): string | undefined {
    return this.#words === null ? process.env[name] : this.#words.get(name);
  }
}

function isHeir(): boolean {
  return process.env[PID] === String(process.pid);
}

/** Device and inode; for what is closed, a name that nothing has. */
function identityOf(fd: number): string {
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return `closed ${fd}`;
  }
}

/** Sockets that this process was started with. */
export interface PassedSockets {
  readonly listeners: readonly number[];
  readonly guards: readonly number[];
  /** Those by which whoever passed them listens too, and goes on when this gateway is gone. */
  readonly shared: readonly number[];
}

/** By a supervisor. Only to the main thread: another one could take what this one has taken. */
export function activatedSockets(): PassedSockets {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  const isOurs = LISTEN_FDS !== undefined && workerThreads().isMainThread;
  const listeners = isOurs ? listenersFrom(LISTEN_PID, LISTEN_FDS) : [];
  return { listeners, guards: [], shared: listeners };
}

function listenersFrom(pid: string | undefined, count: string | undefined): readonly number[] {
  if (pid !== String(process.pid) || !/^[1-9]\d{0,3}$/.test(count ?? "")) return [];
  return Array.from({ length: Number(count) }, (_, index) => FIRST_DESCRIPTOR + index);
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

  /** One for all attempts: what it has said is not said again. `null` where the descriptor is something else by now. */
  static get(fd: number | undefined): Parent | null {
    if (fd === undefined || Parent.#only !== null) return Parent.#only;
    try {
      if (fstatSync(fd).isSocket()) Parent.#only = new Parent(fd);
    } catch {
      // Closed, by a shell perhaps. Then the parent goes on guarding the claim until it is told by this process's end.
    }
    return Parent.#only;
  }

  private constructor(fd: number) {
    this.#channel = new (net().Socket)({ fd, readable: true, writable: true });
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

  tell(message: string, onGone: () => void): void {
    this.#channel.once("close", onGone).write(message);
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

/** What the environment of a child has to say that is started with `descriptors` from FIRST_DESCRIPTOR on: listeners, locks, guards, and then a channel. */
export function wordsFor({ listeners, guards, locks, shared }: Descriptors): { readonly [name: string]: string } {
  const passed = [...listeners, ...locks, ...guards];
  const numbers = (descriptors: readonly number[]) =>
    descriptors.map((fd) => FIRST_DESCRIPTOR + passed.indexOf(fd)).join(",");
  return {
    LISTEN_FDS: String(listeners.length),
    LISTEN_FDNAMES: listeners.map(() => "gateway").join(":"),
    [LOCKS]: numbers(locks),
    [GUARDS]: numbers(guards),
    [CHANNEL]: String(FIRST_DESCRIPTOR + passed.length),
    [SHARED]: numbers(shared),
  };
}

/** Why a claim that `gateway-lock run` has made is refused to a process that it has started: in between there is another one. */
export function explainDisinheritance(): string | null {
  const heir = process.env[PID];
  if (heir === undefined || heir === String(process.pid)) return null;
  return `gateway-lock run has left its claim to pid ${heir}, and this is pid ${process.pid}: let it start this program itself, without npm, and with exec in a shell`;
}
