// A port that is ours alone, on every address asked for, and the server that it is given to.

import { EventEmitter } from "node:events";
import { Server } from "node:net";
import { type GatewayLockError, handOffFailed, systemError } from "../errors.ts";
import { type BoundSocket, isFailure, type NativeFailure, native } from "../native.ts";
import { invalidType } from "../options.ts";
import { canonical, type Target } from "./addresses.ts";
import { Serving, turnAway } from "./hand-off.ts";
import { leaveThreshold } from "./tcp-handle.ts";

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

/** @internal A socket of a claim, and what it is for. */
export interface Claimed {
  readonly target: Target;
  readonly socket: BoundSocket;
  readonly isListening: boolean;
  /** Somebody else listens by it too: it is not ours to silence. */
  readonly shared: boolean;
  /** Of one that the process was started with. */
  readonly giveBack: (() => void) | null;
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
  readonly #listeners: readonly BoundSocket[];
  readonly #guards: readonly BoundSocket[];
  readonly #shared: ReadonlySet<BoundSocket>;
  /** Sockets that listen only while somebody serves. */
  readonly #reserved: ReadonlySet<BoundSocket>;
  readonly #listening: Set<BoundSocket>;
  /** Given to another process, which accepts there for as long as it likes. */
  readonly #lent = new Set<BoundSocket>();
  readonly #claimed: readonly Claimed[];
  readonly #backlog: number;
  /** Who has this port, or had it and still has connections. */
  readonly #servings = new Set<Serving>();
  readonly #refusers: Server[] = [];
  #current: Serving | null = null;
  #giveUp: () => void = () => {};
  readonly #givenUp = new Promise<void>((resolve) => {
    this.#giveUp = resolve;
  });
  #closed = false;
  #yielded = false;

  /** @internal */
  constructor(claimed: readonly Claimed[], skipped: readonly SkippedAddress[], backlog: number) {
    const sockets = (test: (one: Claimed) => boolean) => claimed.filter(test).map(({ socket }) => socket);
    this.#listeners = sockets(({ target }) => target.role !== "guard");
    this.#guards = sockets(({ target }) => target.role === "guard");
    this.#claimed = claimed;
    this.#shared = new Set(sockets(({ shared }) => shared));
    this.#reserved = new Set(sockets(({ target }) => target.role === "reserved"));
    this.#listening = new Set(sockets(({ isListening }) => isListening));
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
    if (this.#lent.size > 0)
      throw handOffFailed(`port ${this.port} was given away by claim(), and whoever got it serves it`, this.#where());
    const serving = new Serving(server, () => {
      this.#rest();
      onStop();
    });
    this.#current = serving;
    this.#servings.add(serving);
    void serving.ended.then(() => this.#servings.delete(serving));
    try {
      for (const listener of this.#listeners) this.#rouse(listener);
      await serving.start(this.#listeners, this.#backlog);
    } catch (error) {
      serving.stop();
      if (this.#current === serving) this.#rest();
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
    if (this.#current?.stopped === false)
      throw handOffFailed(`port ${this.port} is served already; close that server first`, where);
    const socket = this.#listeners.find((one) => canonical(one.address) === canonical(address));
    if (socket === undefined) throw handOffFailed(`port ${this.port} is not claimed at ${address}`, where);
    const { fd } = this;
    if (fd === null)
      throw handOffFailed("this system has no descriptors of sockets: serve the port by listen()", where);
    this.#rouse(socket);
    // Programs that are given a socket expect accept(2) to wait, as from systemd; those that don't, set O_NONBLOCK themselves.
    const failure = native().lendSocket(socket.fd);
    if (isFailure(failure)) throw lendingFailed(failure, where);
    this.#lent.add(socket);
    return socket.fd;
  }

  #rouse(listener: BoundSocket): void {
    if (this.#listening.has(listener)) return;
    const failure = native().rouse(listener.fd, this.#backlog);
    if (isFailure(failure)) throw lendingFailed(failure, { host: listener.address, port: listener.port });
    this.#listening.add(listener);
  }

  /** What is only reserved refuses clients again, where a socket can stop listening; elsewhere they wait for the next server. */
  #rest(): void {
    for (const listener of this.#reserved) {
      if (this.#closed || this.#shared.has(listener) || this.#lent.has(listener) || !this.#listening.has(listener))
        continue;
      if (!isFailure(native().silence(listener.fd))) this.#listening.delete(listener);
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
      if (!this.#closed && !this.#yielded) for (const listener of this.#listeners) this.#refuseClients(listener);
      await Promise.race([Promise.all([closed, ...[...this.#servings].map(({ ended }) => ended)]), this.#givenUp]);
    }
  }

  #refuseClients(listener: BoundSocket): void {
    // A supervisor's own socket: its clients wait for the next one that it starts.
    if (this.#shared.has(listener) || this.#lent.has(listener) || !this.#listening.has(listener)) return;
    if (!isFailure(native().silence(listener.fd))) return;
    try {
      this.#refusers.push(turnAway(listener, this.#backlog));
    } catch {
      // Then clients wait in the kernel's queue until the port is given back, which resets them.
    }
  }

  /** @internal Ends all connections that came in by this port, and with them the waiting for what servers say of it. */
  destroyConnections(): void {
    for (const serving of this.#servings) serving.destroyConnections();
    // Sockets are closed after the immediates of a turn of the loop: the second one comes after all 'close' events.
    setImmediate(() => setImmediate(this.#giveUp));
  }

  /** @internal For a child process to inherit: the listening sockets in order of the hosts, and the guards. */
  get descriptors(): { readonly listeners: number[]; readonly guards: number[]; readonly shared: boolean } {
    const numbers = (sockets: readonly BoundSocket[]) => sockets.map(({ fd }) => fd);
    return { listeners: numbers(this.#listeners), guards: numbers(this.#guards), shared: this.#shared.size > 0 };
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
    for (const refuser of this.#refusers) refuser.close();
    for (const listener of this.#listeners) leaveThreshold(listener);
    const sockets = this.#yielded ? this.#guards : [...this.#guards, ...this.#listeners];
    for (const { fd } of sockets.toReversed()) native().closeSocket(fd);
    for (const { giveBack } of this.#claimed) giveBack?.();
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
  return server instanceof Server || (process.versions.bun !== undefined && server instanceof EventEmitter);
}

function lendingFailed(
  failure: NativeFailure,
  where: { readonly host: string; readonly port: number },
): GatewayLockError {
  const cause = systemError(failure, `${where.host}:${where.port}`);
  return handOffFailed(cause.message, { ...where, cause });
}
