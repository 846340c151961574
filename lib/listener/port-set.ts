// All ports of one gateway: the main one, and those that it has reserved beside it. Served apart, given back together.

import type { ClaimedAddress, ExclusiveListener, SkippedAddress, SocketDescriptors } from "./exclusive-listener.ts";

export class PortSet {
  readonly main: ExclusiveListener;
  readonly #all: readonly ExclusiveListener[];

  constructor(main: ExclusiveListener, reserved: readonly ExclusiveListener[]) {
    this.main = main;
    this.#all = [main, ...reserved];
  }

  get addresses(): readonly ClaimedAddress[] {
    return this.#all.flatMap(({ addresses }) => addresses);
  }

  /** Which addresses a host lacks does not depend on the port. */
  get skipped(): readonly SkippedAddress[] {
    return this.main.skipped;
  }

  get(port: number): ExclusiveListener | undefined {
    return this.#all.find((listener) => listener.port === port);
  }

  /**
   * As ExclusiveListener#drain, for all of them.
   *
   * @throws what the first server's close() that has thrown did throw, after all of them have ended
   */
  async drain(): Promise<void> {
    const results = await Promise.allSettled(this.#all.map((listener) => listener.drain()));
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  /** Whether somebody is connected who came in by one of them. */
  get isConnected(): boolean {
    return this.#all.some(({ isConnected }) => isConnected);
  }

  /** As ExclusiveListener#watchTraffic. */
  watchTraffic(): void {
    for (const listener of this.#all) listener.watchTraffic();
  }

  /** As ExclusiveListener#pause, for all of them. */
  pause(): void {
    for (const listener of this.#all) listener.pause();
  }

  /** As ExclusiveListener#quiesce, for all of them. */
  async quiesce(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#all.map((listener) => listener.quiesce(signal)));
  }

  get unanswered(): readonly string[] {
    return this.#all.flatMap(({ unanswered }) => unanswered);
  }

  /** As ExclusiveListener#resume, for all of them: what can't be served again is told, and keeps nobody else from it. */
  async resume(): Promise<void> {
    const results = await Promise.allSettled(this.#all.map((listener) => listener.resume()));
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  /** As ExclusiveListener#turnAwayUnserved. */
  turnAwayUnserved(): void {
    for (const listener of this.#all) listener.turnAwayUnserved();
  }

  closeServers(): void {
    for (const listener of this.#all) listener.closeServer();
  }

  destroyConnections(): void {
    for (const listener of this.#all) listener.destroyConnections();
  }

  /** For a child process to inherit. What is only reserved is no listener: it is among the guards. */
  get descriptors(): SocketDescriptors {
    const { listeners } = this.main.descriptors;
    const shared = this.#all.flatMap((one) => one.descriptors.shared);
    const guards = this.#all.flatMap((one) => {
      const { listeners: reserved, guards: own } = one.descriptors;
      return one === this.main ? own : [...reserved, ...own];
    });
    return { listeners, guards, shared };
  }

  /** A child process listens on the main port now; it gets the others when it asks for them. */
  yieldListeners(): void {
    this.main.yieldListeners();
  }

  close(): void {
    for (const listener of this.#all.toReversed()) listener.close();
  }
}
