// A port that is ours alone, on every address asked for, and the server that it is given to.

import { EventEmitter } from "node:events";
import type { Server } from "node:net";
import { net } from "../builtins.ts";
import { type GatewayLockError, handOffFailed, systemError } from "../errors.ts";
import { type BoundSocket, isFailure, type NativeFailure, native } from "../native.ts";
import { invalidType } from "../options.ts";
import { canonical, type Target } from "./addresses.ts";
import { Serving, turnAway } from "./hand-off.ts";
import { findPortOwner } from "./port-owner.ts";
import { keepHandle, leaveThreshold } from "./tcp-handle.ts";

/**
 * One address of a claim. `guard` serves nobody and keeps rivals off; `reserved` is one of the ports that are claimed beside the main
 * one, and refuses clients until somebody serves it.
 */
export interface ClaimedAddress {
  readonly address: string;
  readonly family: "IPv4" | "IPv6";
  readonly port: number;
  readonly role: "listen" | "guard" | "reserved";
}

/** An address that this host does not have, though it was asked for: a half of `localhost`, or a guard's. */
export interface SkippedAddress {
  readonly address: string;
  readonly role: "listen" | "guard";
  /** The system's own words, for example `EADDRNOTAVAIL: …`. */
  readonly reason: string;
}

/** For a child process to inherit. */
export interface SocketDescriptors {
  readonly listeners: readonly number[];
  readonly guards: readonly number[];
  /** Those by which somebody else listens too. */
  readonly shared: readonly number[];
}

/** A socket of a claim, and what it is for. */
export interface Claimed {
  readonly target: Target;
  readonly socket: BoundSocket;
  readonly isListening: boolean;
  /** Somebody else listens by it too: it is not ours to silence. */
  readonly shared: boolean;
  /** Of one that the process was started with. */
  readonly giveBack: (() => void) | null;
}

/** What has become of a socket that clients come to. */
interface Door extends Claimed {
  /** From the first server on for good: whoever stops listening has to begin again, and a rival could be quicker. */
  isListening: boolean;
  /** Given to another process, which accepts there for as long as it likes. */
  isLent: boolean;
  /** Resets who comes while nobody serves. */
  refuser: Server | null;
}

/**
 * A port that this process has bound and listens on, and that nobody else can have until `close()`. Until a server is
 * handed to it, clients wait in the listen queue; those of a port that is only reserved are refused.
 */
export class ExclusiveListener {
  /** The first host, as the kernel writes it. */
  readonly address: string;
  readonly port: number;
  readonly addresses: readonly ClaimedAddress[];
  readonly skipped: readonly SkippedAddress[];
  readonly #doors: readonly Door[];
  readonly #guards: readonly BoundSocket[];
  readonly #claimed: readonly Claimed[];
  readonly #backlog: number;
  /** Who has this port, or had it and still has connections. */
  readonly #servings = new Set<Serving>();
  #current: Serving | null = null;
  #giveUp: () => void = () => {};
  readonly #givenUp = new Promise<void>((resolve) => {
    this.#giveUp = resolve;
  });
  #closed = false;
  #yielded = false;
  #watchesTraffic = false;
  /** Who was serving when it was quiesced, and what is to be called when that server is closed. */
  #paused: { readonly serving: Serving; readonly onStop: () => void } | null = null;
  #onStop: () => void = () => {};

  /** @internal */
  constructor(claimed: readonly Claimed[], skipped: readonly SkippedAddress[], backlog: number) {
    const isGuard = ({ target }: Claimed) => target.role === "guard";
    this.#doors = claimed.filter((one) => !isGuard(one)).map((one) => ({ ...one, isLent: false, refuser: null }));
    this.#guards = claimed.filter(isGuard).map(({ socket }) => socket);
    this.#claimed = claimed;
    this.#backlog = backlog;
    this.address = this.#first.address;
    this.port = this.#first.port;
    this.skipped = skipped;
    this.addresses = claimed.map(({ target: { role }, socket: { address, family, port } }) => ({
      address,
      family,
      port,
      role,
    }));
  }

  /** The kept socket of the first host: `close()` closes it. `null` after that, and where the system has no descriptors. */
  get fd(): number | null {
    return this.#closed || process.platform === "win32" ? null : this.#first.fd;
  }

  /**
   * Hands the port to `server`: `node:http`, `https`, `http2`, `net`, or anything built on them. Resolves when it
   * serves. When the server is closed, the port stays bound, and the next one can have it.
   *
   * @throws GatewayLockError `HANDOFF_FAILED`: the port is served already or the listener is closed, or the runtime did
   * not take the socket. The port stays claimed. TypeError `ERR_INVALID_ARG_TYPE`
   */
  async listen(server: Server): Promise<void> {
    await this.serve(server, () => {});
  }

  /**
   * As `listen`; `onStop` is called when the server's close() is.
   *
   * @internal
   */
  async serve(server: Server, onStop: () => void): Promise<void> {
    if (!isServer(server))
      throw invalidType("server", "a server of node:http, https, http2 or net, not a framework's app", server);
    if (this.#closed) throw handOffFailed("the listener is closed", this.#where());
    if (this.#current?.stopped === false) {
      throw handOffFailed(`port ${this.port} is served already; close that server first`, this.#where());
    }
    if (server.listening) throw handOffFailed("the server already listens; hand it over before it does", this.#where());
    const stopped = () => {
      this.#turnAway();
      onStop();
    };
    const serving = new Serving(server, stopped, this.#watchesTraffic);
    this.#current = serving;
    this.#onStop = onStop;
    this.#servings.add(serving);
    void serving.ended.then(() => this.#servings.delete(serving));
    try {
      for (const door of this.#doors) this.#open(door);
      await serving.start(this.#listeners, this.#backlog);
    } catch (error) {
      serving.stop();
      if (this.#current === serving) this.#turnAway();
      throw error;
    }
  }

  /**
   * The descriptor of the socket at `address`, which listens from now on: for a child process to accept by. It stays ours to close.
   *
   * @throws GatewayLockError `HANDOFF_FAILED`
   * @internal
   */
  lend(address: string): number {
    const where = { host: address, port: this.port };
    if (this.#closed) throw handOffFailed("the listener is closed", where);
    if (process.platform === "win32")
      throw handOffFailed("this system has no descriptors of sockets: serve the port by listen()", where);
    if (this.#current?.stopped === false)
      throw handOffFailed(`port ${this.port} is served already; close that server first`, where);
    const wanted = address === "localhost" ? this.address : canonical(address);
    const door = this.#doors.find(({ socket }) => canonical(socket.address) === wanted);
    if (door === undefined) {
      const claimed = this.#listeners.map((one) => one.address).join(" and ");
      throw handOffFailed(`port ${this.port} is claimed at ${claimed}, not at ${address}`, where);
    }
    this.#open(door);
    // Programs that are given a socket expect accept(2) to wait, as from systemd; those that don't, set O_NONBLOCK themselves.
    const failure = native().lendSocket(door.socket.fd);
    if (isFailure(failure)) {
      this.#turnAway();
      throw unusable(failure, where);
    }
    door.isLent = true;
    return door.socket.fd;
  }

  /** Lets clients in, for whoever serves next. It is asked for again after a child, who may have shut down what it was given. */
  #open(door: Door): void {
    const { address: host, port, fd } = door.socket;
    const isOpen = door.shared || (door.isListening && !door.isLent);
    const failure = isOpen ? undefined : native().rouse(fd, this.#backlog);
    if (isFailure(failure)) throw unusable(failure, { host, port });
    door.isListening = true;
    door.isLent = false;
    door.refuser?.close();
    door.refuser = null;
  }

  /** Nobody serves a reserved port any more: its clients are reset, and do not wait for a server that may never come. */
  #turnAway(): void {
    for (const door of this.#doors) if (door.target.role === "reserved" && isOurs(door)) this.#refuse(door);
  }

  #refuse(door: Door): void {
    if (this.#closed || door.refuser !== null) return;
    try {
      door.refuser = turnAway(door.socket, this.#backlog);
    } catch {
      // Then clients wait in the kernel's queue until the next server, or until the port is given back, which resets them.
    }
  }

  /**
   * Closes the server that has this port, refuses clients from now on, and resolves when the last connection that came in
   * by it has ended, or `destroyConnections` was called. The port stays bound until `close()`.
   *
   * @throws what the server's own close() throws
   * @internal
   */
  async drain(): Promise<void> {
    this.closeServer(); // one that is paused
    const serving = this.#current;
    let closed: Promise<unknown> | null = null;
    try {
      if (serving?.stopped === false && serving.server.listening) {
        const { server } = serving;
        server.close();
        closed = new Promise((resolve) => server.once("close", resolve));
      }
    } finally {
      // A close() that takes its time would be left polling a socket that does not listen any more.
      serving?.stop();
      if (!this.#closed && !this.#yielded) for (const door of this.#doors) if (isOurs(door)) this.#refuseForGood(door);
      await Promise.race([Promise.all([closed, ...[...this.#servings].map(({ ended }) => ended)]), this.#givenUp]);
    }
  }

  #refuseForGood(door: Door): void {
    door.refuser?.close(); // it would be left polling a socket that does not listen any more
    door.refuser = null;
    if (isFailure(native().silence(door.socket.fd))) this.#refuse(door);
  }

  /** @internal Whether somebody is connected who came in by this port. */
  get isConnected(): boolean {
    for (const serving of this.#servings) if (serving.isConnected) return true;
    return false;
  }

  /** @internal From the next server on, it is known what is under way, so that quiesce() can wait for it. */
  watchTraffic(): void {
    this.#watchesTraffic = true;
  }

  /** @internal Accepts nobody any more, so that clients wait in the kernel's queue. `resume()` goes back. */
  pause(): void {
    const serving = this.#current?.stopped === false ? this.#current : null;
    if (serving !== null) {
      this.#paused = { serving, onStop: this.#onStop };
      serving.pause();
    }
    for (const door of this.#doors) {
      if (serving === null && door.refuser === null) continue;
      door.refuser?.close();
      door.refuser = null;
      keepHandle(door.socket);
    }
  }

  /**
   * After pause(): resolves when every request was answered and every connection has ended. Then the sockets are ready for another process.
   *
   * @throws `signal.reason`
   * @internal
   */
  async quiesce(signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#servings].map((each) => each.quiesce(signal)));
  }

  /** @internal Of requests that quiesce() waits for. */
  get unanswered(): readonly string[] {
    return [...this.#servings].flatMap(({ unanswered }) => unanswered);
  }

  /**
   * After pause(): serves again, unless the server was closed meanwhile.
   *
   * @throws GatewayLockError `HANDOFF_FAILED`
   * @internal
   */
  async resume(): Promise<void> {
    const paused = this.#paused;
    this.#paused = null;
    if (this.#current !== null && this.#current.stopped === false) return; // by another server, meanwhile
    if (paused?.serving.unpause() === true) return await this.serve(paused.serving.server, paused.onStop);
    this.#turnAway();
    paused?.onStop();
  }

  /** @internal For a reserved port that listened before this process had it: clients don't wait for a server that may never come. */
  turnAwayUnserved(): void {
    if (this.#current === null) this.#turnAway();
  }

  /** @internal After pause(), when another process serves: whoever waits for the server's 'close' hears it. */
  closeServer(): void {
    const { server } = this.#paused?.serving ?? {};
    this.#paused = null;
    try {
      if (server?.listening === true) server.close();
    } catch {
      // It accepts nobody, whatever its close() says.
    }
  }

  /** @internal Ends all connections that came in by this port, and with them the waiting for what servers say of it. */
  destroyConnections(): void {
    for (const serving of this.#servings) serving.destroyConnections();
    // Sockets are closed after the immediates of a turn of the loop: the second one comes after all 'close' events.
    setImmediate(() => setImmediate(this.#giveUp));
  }

  /** @internal For a child process to inherit: the listening sockets in order of the hosts, and the guards. */
  get descriptors(): SocketDescriptors {
    const numbers = (sockets: readonly BoundSocket[]) => sockets.map(({ fd }) => fd);
    const shared = this.#doors.flatMap((door) => (door.shared || door.isLent ? door.socket.fd : []));
    return { listeners: numbers(this.#listeners), guards: numbers(this.#guards), shared };
  }

  /** @internal Closes the listening sockets and keeps the guards: a child process listens now. */
  yieldListeners(): void {
    this.#yielded = true;
    for (const { fd } of this.#listeners) native().closeSocket(fd);
  }

  /** Gives the port back. A server that still serves it goes on until it is closed itself. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { refuser } of this.#doors) refuser?.close();
    for (const listener of this.#listeners) leaveThreshold(listener);
    const sockets = this.#yielded ? this.#guards : [...this.#guards, ...this.#listeners];
    for (const { fd } of sockets.toReversed()) native().closeSocket(fd);
    for (const { giveBack } of this.#claimed) giveBack?.();
  }

  get #listeners(): readonly BoundSocket[] {
    return this.#doors.map(({ socket }) => socket);
  }

  get #first(): BoundSocket {
    return this.#listeners[0] as BoundSocket;
  }

  #where(): { host: string; port: number } {
    return { host: this.address, port: this.port };
  }
}

function isServer(server: unknown): boolean {
  // Bun's http.Server is no net.Server; what it is will show.
  return server instanceof net().Server || (process.versions.bun !== undefined && server instanceof EventEmitter);
}

/** Whether it listens for us alone: not for a supervisor, whose next service its clients wait for, nor for a child. */
function isOurs({ isListening, shared, isLent }: Door): boolean {
  return isListening && !shared && !isLent;
}

function unusable(failure: NativeFailure, where: { readonly host: string; readonly port: number }): GatewayLockError {
  const cause = systemError(failure, `${where.host}:${where.port}`);
  const { use, listener } = findPortOwner(where.host, where.port);
  if (cause.code !== "EADDRINUSE" || use !== "listening") return handOffFailed(cause.message, { ...where, cause });
  return handOffFailed(`${cause.message}; pid ${listener.pid ?? "unknown"} listens there`, {
    ...where,
    cause,
    listener,
  });
}
