// A port that is ours alone, on every address asked for, and the server that it is given to.

import { EventEmitter } from "node:events";
import { Server } from "node:net";
import { alreadyListening, bindFailed, type GatewayLockError, handOffFailed, systemError } from "../errors.ts";
import { type BoundSocket, isFailure, type NativeFailure, native } from "../native.ts";
import { type Endpoints, invalidType, type ListenerOptions, resolveListenerOptions } from "../options.ts";
import { type Target, targetsFor } from "./addresses.ts";
import { Serving, turnAway } from "./hand-off.ts";
import { InheritedSockets } from "./inherited-sockets.ts";
import { findPortOwner } from "./port-owner.ts";
import { leaveThreshold } from "./tcp-handle.ts";

/** One address of a claim. `guard` serves nobody and keeps rivals off. */
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

interface Claimed {
  readonly target: Target;
  readonly socket: BoundSocket;
  /** Somebody else listens by it too: it is not ours to silence. */
  readonly shared: boolean;
  /** Of one that the process was started with. */
  readonly giveBack: (() => void) | null;
}

/**
 * A port that this process has bound and listens on, and that nobody else can have until `close()`. Until a server is
 * handed to it, clients wait in the listen queue.
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
    const inRole = (role: Target["role"]) =>
      claimed.filter(({ target }) => target.role === role).map(({ socket }) => socket);
    this.#listeners = inRole("listen");
    this.#guards = inRole("guard");
    this.#claimed = claimed;
    this.#shared = new Set(claimed.filter(({ shared }) => shared).map(({ socket }) => socket));
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
    return this.#closed ? null : this.#first.fd;
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
    const serving = new Serving(server, onStop);
    this.#current = serving;
    this.#servings.add(serving);
    void serving.ended.then(() => this.#servings.delete(serving));
    await serving.start(this.#listeners, this.#backlog);
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
    if (this.#shared.has(listener)) return;
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

/**
 * Binds a port exclusively and listens on it, in one step. Several hosts are one claim: all or none.
 *
 * @throws GatewayLockError `ALREADY_LISTENING` if anybody has the port, `BIND_FAILED` for any other reason; nothing is
 * bound then. TypeError or RangeError for bad options.
 */
export function bindExclusive(options: ListenerOptions = {}): ExclusiveListener {
  return claimEndpoints(resolveListenerOptions(options));
}

function isServer(server: unknown): boolean {
  // Bun's http.Server is no net.Server; what it is will show.
  return server instanceof Server || (process.versions.bun !== undefined && server instanceof EventEmitter);
}

const NONE: InheritedSockets = new InheritedSockets({ listeners: [], guards: [], shared: false });

/** How often a kernel-chosen port may turn out to be taken on a further host before that is an error. */
const MAX_PORT_CHOICES = 64;

/** Sockets that the process was started with are used where they fit. */
export function claimEndpoints(endpoints: Endpoints, inherited: InheritedSockets = NONE): ExclusiveListener {
  const targets = targetsFor(endpoints.hosts, endpoints.loopbackGuard);
  const misfit = inherited.findMisfit(targets, endpoints.port);
  if (misfit !== null)
    throw bindFailed({ ...endpoints, host: misfit.host, port: misfit.port }, misfit.reason, undefined);
  for (let choice = 1; ; choice++) {
    const claim = tryClaim(targets, endpoints, inherited);
    if (claim instanceof ExclusiveListener) return claim;
    const taken = claim.failure.code === "EADDRINUSE";
    if (taken && endpoints.port === 0 && choice < MAX_PORT_CHOICES) continue;
    throw taken ? portTaken(claim, endpoints) : otherFailure(claim, endpoints);
  }
}

interface Conflict {
  readonly host: string;
  readonly port: number;
  readonly failure: ReturnType<typeof systemError>;
}

function tryClaim(
  targets: readonly Target[],
  { port, backlog }: Endpoints,
  inherited: InheritedSockets,
): ExclusiveListener | Conflict {
  const claimed: Claimed[] = [];
  const skipped: SkippedAddress[] = [];
  for (const [index, target] of targets.entries()) {
    const at = claimed[0]?.socket.port ?? port;
    const adopted = inherited.adopt(target, at);
    if (adopted !== null && !isFailure(adopted)) {
      claimed.push({ target, ...adopted, shared: inherited.shared });
      continue;
    }
    const bound = adopted ?? bind(target, at, backlog);
    if (!isFailure(bound)) {
      claimed.push({ target, socket: bound, shared: false, giveBack: null });
      continue;
    }
    const failure = systemError(bound, `${target.host}:${at}`);
    const missing = failure.code === "EADDRNOTAVAIL" || failure.code === "EAFNOSUPPORT";
    // The last listener must be there, or nobody would ever be served.
    const alone = claimed.length === 0 && !targets.slice(index + 1).some(({ role }) => role === "listen");
    if (missing && target.optional && !alone) {
      skipped.push({ address: target.host, role: target.role, reason: failure.message });
      continue;
    }
    for (const { socket, giveBack } of claimed.reverse()) {
      native().closeSocket(socket.fd);
      giveBack?.();
    }
    return { host: target.host, port: at, failure };
  }
  return new ExclusiveListener(claimed, skipped, backlog);
}

function bind({ host, role, dualStack }: Target, port: number, backlog: number): BoundSocket | NativeFailure {
  return role === "guard"
    ? native().guard(host, port, backlog, dualStack)
    : native().listen(host, port, backlog, dualStack);
}

function portTaken({ host, port, failure }: Conflict, { scheme }: Endpoints): GatewayLockError {
  const { use, listener } = findPortOwner(host, port);
  const who =
    listener.pid === null ? "a process that this user may not see" : `pid ${listener.pid} (${listener.command})`;
  const why =
    use === "connected"
      ? `; ${who} uses the port as the local end of a connection: ${EPHEMERAL_HINTS[process.platform] ?? "take another port"}`
      : use === null
        ? ""
        : `; ${who} has ${use === "listening" ? "it" : "it bound, and does not listen"}`;
  const cause = Object.assign(failure, { message: failure.message + why });
  return alreadyListening({ scheme, host, port }, { cause, listener });
}

/** How to keep a port from being used for outgoing connections. */
const EPHEMERAL_HINTS: { readonly [platform: string]: string } = {
  linux: "take a port outside net.ipv4.ip_local_port_range, or reserve it in net.ipv4.ip_local_reserved_ports",
  darwin: "take a port outside net.inet.ip.portrange.first to last (sysctl)",
  win32: "take a port outside what `netsh int ipv4 show dynamicport tcp` shows",
};

/** Who is denied a port. */
const DENIED_HINTS: { readonly [platform: string]: string } = {
  linux: "; a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE",
  darwin: "; a port below 1024 on an address other than 0.0.0.0 needs root",
  win32:
    "; the port may lie in a range that Windows keeps for Hyper-V and others: look at `netsh int ipv4 show excludedportrange protocol=tcp`",
};

const BIND_HINTS: Readonly<Record<string, string>> = {
  EACCES: DENIED_HINTS[process.platform] ?? "",
  EADDRNOTAVAIL: "; this host does not have that address",
  EINVAL: "; a link-local address needs its zone, as in fe80::1%eth0",
  EAFNOSUPPORT: "; this host does not have that address family",
};

function otherFailure({ host, port, failure }: Conflict, { scheme }: Endpoints): GatewayLockError {
  return bindFailed({ scheme, host, port }, `${failure.message}${BIND_HINTS[failure.code] ?? ""}`, failure);
}
