// Sockets that the process was started with, and which of a gateway's addresses each of them serves.

import type { PassedSockets } from "../inheritance.ts";
import { type BoundSocket, type InheritedSocket, isFailure, type NativeFailure, native } from "../native.ts";
import { canonical, overlaps, type Target } from "./addresses.ts";

/** A socket that was passed for the gateway's port, and is not what its options ask for. */
export interface Misfit {
  readonly host: string;
  readonly port: number;
  readonly reason: string;
}

/** A socket of ours, and what to do when it is closed. */
export interface AdoptedSocket {
  readonly socket: BoundSocket;
  readonly isListening: boolean;
  /** Whoever passed it listens by it too. */
  readonly shared: boolean;
  /** Another gateway of this process may have it. */
  readonly giveBack: () => void;
}

/** By descriptor: two gateways of one process, with other locks each, are not to have one port. */
const taken = new Set<number>();

interface Passed extends InheritedSocket {
  readonly fd: number;
  readonly role: "listen" | "guard";
  /** Its address in its one spelling. */
  readonly canonical: string;
  /** Whoever passed it listens by it too, as a supervisor does. */
  readonly shared: boolean;
}

export class InheritedSockets {
  readonly #passed: readonly Passed[];
  readonly #used = new Set<Passed>();
  /** By a predecessor, to this gateway alone. */
  readonly #byHandover: boolean;

  constructor(passed: PassedSockets, byHandover: boolean = false) {
    this.#byHandover = byHandover;
    this.#passed = [...describe(passed.listeners, "listen", passed), ...describe(passed.guards, "guard", passed)];
  }

  /**
   * A socket for the gateway's port that can't be used as it is. To bind beside it would fail, and to take it would serve where nobody
   * has asked for it.
   */
  findMisfit(targets: readonly Target[], port: number): Misfit | null {
    for (const target of targets) {
      if (this.#find(target, port) !== undefined) continue;
      const near = this.#passed.find(
        (socket) => socket.port === port && !this.#isTaken(socket) && overlaps(target.host, socket),
      );
      if (near === undefined) continue;
      const reason = this.#byHandover
        ? `the running gateway has it at ${near.address}, where it ${near.role === "guard" ? "only guards it" : "listens"}; give both the same \`host\`, \`port\` and \`reserve\`, or stop the old one first`
        : near.reusePort
          ? "the socket that this process was started with lets others listen beside it (SO_REUSEPORT); leave out ReusePort="
          : near.role === "guard" && canonical(target.host) === near.canonical
            ? `gateway-lock run has reserved port ${port} for this process (--reserve), and was not given it as the gateway's own (--port)`
            : `this process was started with a socket for ${near.address} port ${near.port}${near.listening ? "" : ", which does not listen"}; give both the same address (host here, ListenStream= in a systemd.socket)`;
      return { host: target.host, port, reason };
    }
    return null;
  }

  /** `null` where there is none for `target`. */
  adopt(target: Target, port: number): AdoptedSocket | NativeFailure | null {
    const found = this.#find(target, port);
    if (found === undefined) return null;
    const socket = native().adoptSocket(found.fd);
    if (isFailure(socket)) return socket;
    this.#used.add(found);
    if (!this.#byHandover) taken.add(found.fd);
    const giveBack = () => {
      taken.delete(found.fd);
      this.#used.delete(found);
    };
    return { socket, isListening: found.listening, shared: found.shared, giveBack };
  }

  /** The descriptors of those that were adopted. */
  get used(): readonly number[] {
    return [...this.#used].map(({ fd }) => fd);
  }

  /** Those that listen and were not adopted: whoever connects to one waits for ever, unless another part of the program accepts there. */
  get unused(): readonly string[] {
    const unused = this.#passed.filter((socket) => socket.listening && !this.#used.has(socket));
    return unused.map(({ address, port }) => `${address} port ${port}`);
  }

  /** Of those that listen as the gateway's own, the ones that were not adopted: their clients would be refused. */
  get abandoned(): readonly string[] {
    const left = this.#passed.filter((socket) => socket.role === "listen" && !this.#used.has(socket));
    return left.map(({ address, port }) => `${address} port ${port}`);
  }

  /** What was kept for a gateway, and is none of this one's: nobody gets it while the process lives that has inherited it. */
  get leftOver(): readonly { readonly fd: number; readonly name: string }[] {
    const left = this.#passed.filter(
      (socket) => socket.role === "guard" && !socket.listening && !this.#used.has(socket),
    );
    return left.map(({ fd, address, port }) => ({ fd, name: `${address} port ${port}` }));
  }

  #isTaken(socket: Passed): boolean {
    return this.#byHandover ? this.#used.has(socket) : taken.has(socket.fd);
  }

  #find({ host, role, dualStack }: Target, port: number): Passed | undefined {
    if (this.#passed.length === 0) return undefined;
    const wanted = canonical(host);
    return this.#passed.find(
      (socket) =>
        (port === 0 || socket.port === port) &&
        socket.canonical === wanted &&
        // One that is to be reserved may listen for a supervisor already, or be kept by `gateway-lock run`.
        (role === "reserved" || (socket.role === role && socket.listening === (role === "listen"))) &&
        !this.#isTaken(socket) &&
        !socket.reusePort &&
        (host !== "::" || socket.v6only === !dualStack),
    );
  }
}

/** What is no TCP socket is for somebody else. */
function describe(descriptors: readonly number[], role: Passed["role"], { shared }: PassedSockets): Passed[] {
  return descriptors.flatMap((fd) => {
    const socket = native().describeSocket(fd);
    if (isFailure(socket)) return [];
    return { ...socket, fd, role, canonical: canonical(socket.address), shared: shared.includes(fd) };
  });
}
