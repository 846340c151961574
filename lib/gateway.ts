// A claim that is held: served, looked after, handed over or given back.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Server } from "node:net";
import type { Chronicle } from "./diagnostics.ts";
import { formatUrl, type GatewayLockError, handOffFailed, lockFailed, lockLost, reasonOf } from "./errors.ts";
import type { Estate, Offer } from "./handover/offer.ts";
import { socketPathOf } from "./handover/protocol.ts";
import type { Descriptors } from "./inheritance.ts";
import { isLoopbackV4 } from "./listener/addresses.ts";
import type { ClaimedAddress, SkippedAddress } from "./listener/exclusive-listener.ts";
import type { PortSet } from "./listener/port-set.ts";
import { tryLock } from "./lock/file-lock.ts";
import type { LockSet } from "./lock/lock-set.ts";
import { type OwnerFields, type OwnerRecord, startTimeOf } from "./lock/record.ts";
import { callAt, orAborted } from "./lock/wait.ts";
import {
  checkBoolean,
  checkHost,
  checkMetadata,
  checkNames,
  checkPort,
  checkTimeout,
  type HandoverOptions,
  type Metadata,
  type ResolvedOptions,
} from "./options.ts";
import { notifyGone, notifyOpen, notifyStopping, notifySystemd } from "./supervisor/notify.ts";
import { explainUnit, notifyMainProcess } from "./supervisor/unit.ts";

/** How often the locks are looked at. A loss is noticed within twice that, and one look costs about 0.1 ms on a
 * processor that has slept, a tenth of that on one that has not. ms */
const WATCH_INTERVAL = 500;

export interface CloseOptions {
  /** End the connections that are left after this many ms. Default: `Infinity`, which waits for them. */
  timeout?: number | undefined;
  /** End all connections at once. Default: false. */
  force?: boolean | undefined;
}

/** A claim that is held: locks, port, guards. It ends with `close()`, or with the process. */
export class Gateway {
  /** The first host, as a literal. */
  readonly host: string;
  readonly port: number;
  /** `scheme://host:port`. */
  readonly url: string;
  readonly addresses: readonly ClaimedAddress[];
  /** What this host does not have of what was asked for: a half of `localhost`, the loopback that would be guarded. */
  readonly skipped: readonly SkippedAddress[];
  readonly #locks: LockSet;
  readonly #lockPaths: readonly string[];
  readonly #ports: PortSet;
  #lost: AbortController | null = null;
  #loss: GatewayLockError | null = null;
  #handedOver: AbortController | null = null;
  readonly #offer: Offer | null;
  /** While a successor may be the owner, or is. */
  #isSuspended = false;
  #successor: number | null = null;
  /** Those that are just going on. */
  readonly #handOffs = new Set<Promise<void>>();
  #watch: NodeJS.Timeout;
  readonly #chronicle: Chronicle;
  #fields: OwnerFields;
  #owner: OwnerRecord;
  #isClosing = false;
  #closing: Promise<void> | null = null;

  /** @internal */
  constructor(
    locks: LockSet,
    ports: PortSet,
    fields: OwnerFields,
    { scheme, handover }: Pick<ResolvedOptions, "scheme" | "handover">,
    chronicle: Chronicle,
    MakeOffer: typeof Offer | null,
  ) {
    this.#locks = locks;
    this.#lockPaths = locks.paths;
    this.#ports = ports;
    this.host = ports.main.address;
    this.port = ports.main.port;
    this.url = formatUrl(scheme, this.host, this.port);
    this.addresses = ports.addresses;
    this.skipped = ports.skipped;
    this.#fields = { ...fields, host: this.host, port: this.port, url: this.url, phase: "listening" };
    this.#owner = locks.publish(this.#fields);
    this.#chronicle = Object.assign(chronicle, { host: this.host, port: this.port, lockPaths: this.#lockPaths });
    this.#offer = handover === null || MakeOffer === null ? null : this.#offerTo(handover, MakeOffer);
    this.#watch = setInterval(() => this.#look(), WATCH_INTERVAL).unref();
    notifyOpen(this);
  }

  /** The lock files, in lock order. */
  get lockPaths(): readonly string[] {
    return this.#lockPaths;
  }

  /** This gateway's own record, as it was last published. */
  get owner(): OwnerRecord {
    return this.#owner;
  }

  /** Aborts, with a GatewayLockError `LOCK_LOST` as its reason, when a lock was taken away and could not be restored. */
  get lost(): AbortSignal {
    if (this.#lost === null) {
      this.#lost = new AbortController();
      if (this.#loss !== null) this.#lost.abort(this.#loss);
    }
    return this.#lost.signal;
  }

  /**
   * Aborts when a successor has taken the gateway over (`handover`): it has everything, and this process has nothing more to do with it. `lost`
   * does not abort then, and `close()` has nothing left to do.
   */
  get handedOver(): AbortSignal {
    if (this.#handedOver === null) {
      this.#handedOver = new AbortController();
      if (this.#successor !== null) this.#handedOver.abort(new Error(this.#whyNot()));
    }
    return this.#handedOver.signal;
  }

  /**
   * Hands the port, or a reserved one, to `server` (`node:http`, `https`, `http2`, `net`, or anything built on them); resolves when it
   * serves. With several hosts, the first one's socket becomes the server's own and the others feed the same server.
   *
   * When the server is closed, the claim stays, and the next server can have the same socket. Meanwhile clients wait in the kernel's
   * queue; those of a reserved port, which may not be served again, are accepted and reset.
   *
   * @throws GatewayLockError `HANDOFF_FAILED`: the port is served already, is not part of this claim, or the gateway is
   * closed or was handed over; or the runtime did not take the socket. The claim stays. TypeError `ERR_INVALID_ARG_TYPE`, RangeError `ERR_SOCKET_BAD_PORT`
   */
  async listen(server: Server, port: number = this.port): Promise<void> {
    checkPort("port", port);
    const where = { host: this.host, port };
    if (this.#offer?.isOpen) await this.#offer.settled();
    if (this.#isClosing) throw handOffFailed(this.#whyNot(), where);
    const listener = this.#ports.get(port);
    if (listener === undefined) throw handOffFailed(`port ${port} is not part of this claim`, where);
    const serving = listener.serve(server, () => {
      if (port === this.port) this.#onServerStop();
    });
    this.#handOffs.add(serving);
    try {
      await serving;
    } finally {
      this.#handOffs.delete(serving);
    }
  }

  /**
   * The descriptor of a reserved port, for a child process: it goes into `stdio` of `spawn` (node:child_process). The socket
   * listens from now on, so clients wait in its queue until the child accepts; whether the child calls listen(2) once more does not matter. It
   * is the first host's; `address` names another one.
   *
   * The descriptor stays this gateway's: don't close it. After the child has ended, ask again for another one, or take the port back by
   * `listen()`; while it lives, the two would share the clients by chance. Whoever has the descriptor keeps the port until it ends, also after
   * `close()` and when this process is killed: end it before, and let it end when it loses its parent.
   *
   * @throws GatewayLockError `HANDOFF_FAILED`: the port is not reserved, or not at that address; it is served in this process; the gateway is
   * closed; or the system has no descriptors of sockets, as Windows. TypeError and RangeError for what is no port or address
   */
  claim(port: number, address: string = this.host): number {
    checkPort("port", port);
    const host = checkHost("address", address);
    const where = { host, port };
    if (this.#isClosing) throw handOffFailed(this.#whyNot(), where);
    if (this.#offer?.isBusy) throw handOffFailed("the gateway is just being handed over to a successor", where);
    if (port === this.port)
      throw handOffFailed(`port ${port} is the gateway's own, and not reserved: serve it by listen()`, where);
    const listener = this.#ports.get(port);
    if (listener === undefined)
      throw handOffFailed(`port ${port} is not part of this claim: name it in \`reserve\``, where);
    return listener.lend(host);
  }

  /**
   * Says that the gateway serves: phase `ready` in the record, and `READY=1` to systemd where it asks for it (`Type=notify`). Of no
   * effect once it is closing.
   */
  ready(): void {
    if (this.#isClosing) return;
    if (!this.#offer?.isOpen) this.#ports.turnAwayUnserved();
    this.#publish({ phase: "ready" });
    notifySystemd({ READY: "1", STATUS: `ready: ${this.url}` });
  }

  /**
   * Replaces the user's fields in the record.
   *
   * @throws TypeError `ERR_INVALID_ARG_TYPE`, `ERR_INVALID_ARG_VALUE`; GatewayLockError `LOCK_FAILED` if it can't be
   * written, `LOCK_LOST` once the gateway is closing
   */
  update(options: { metadata: Metadata }): void {
    const metadata = checkMetadata(checkNames(options, ["metadata"]).metadata);
    this.#refuseWhenClosing();
    this.#publish({ metadata });
  }

  /**
   * Looks at the locks now, and restores a lock file where that is safe.
   *
   * @throws GatewayLockError `LOCK_LOST`
   */
  assertCurrent(): void {
    this.#refuseWhenClosing();
    if (this.#isSuspended) throw lockLost(this.#lockPaths[0] ?? "", "a successor may have it by now");
    this.#look();
    if (this.#loss !== null) throw this.#loss;
  }

  /**
   * A request handler for `/healthz`: 200 and `{"ok":true,"status":"live","phase":…}`. Peers on a loopback address also get `pid`
   * and `ownerId`, by which a prober knows that the owner of the lock has answered.
   */
  readonly healthz = (request: IncomingMessage, response: ServerResponse): void => {
    const { phase, pid, ownerId } = this.#owner;
    const identity = isLoopback(request.socket.remoteAddress) ? { pid, ownerId } : {};
    const body = JSON.stringify({ ok: true, status: "live", phase, ...identity });
    response.writeHead(200, { "content-type": "application/json", "cache-control": "no-store" }).end(body);
  };

  /**
   * Closes the server, then frees the port, then deletes the lock files, then frees the locks. Clients are refused from
   * the start; the port and the locks stay held until the last connection has ended. Idempotent; a later call
   * can shorten the wait.
   *
   * Where systemd asks for it, it hears `STOPPING=1` with the last gateway of the thread: it then expects the process to end within
   * TimeoutStopSec=, and kills it otherwise.
   */
  async close(options: CloseOptions = {}): Promise<void> {
    const given = checkNames(options, ["timeout", "force"]);
    const timeout = checkBoolean("force", given.force, false) ? 0 : checkTimeout("timeout", given.timeout, Infinity);
    if (this.#closing === null) {
      let settle: (done: Promise<void>) => void = () => {};
      // There before anybody's code runs: a server's close() may call this one.
      this.#closing = new Promise((resolve) => {
        settle = resolve;
      });
      settle(this.#shutDown());
    }
    const end = () => this.#ports.destroyConnections();
    if (timeout === 0) end();
    const cancel = timeout > 0 ? callAt(performance.now() + timeout, end) : () => {};
    try {
      await this.#closing;
    } finally {
      cancel();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal It is about to be the application's: from now on a successor may ask for it. */
  begin(): void {
    this.#offer?.start();
  }

  /** @internal What a child process has to inherit to go on with this claim, whatever becomes of this process. */
  get descriptors(): Descriptors {
    return { ...this.#ports.descriptors, locks: this.#locks.descriptors };
  }

  /**
   * @internal The child `pid` has them, and serves from now on; this process keeps the locks and the guards, and looks after them. What listens it
   * keeps only for a successor: clients wait there when the child has ended.
   */
  entrustTo(pid: number): void {
    this.#locks.share();
    if (this.#offer === null) this.#ports.yieldListeners();
    this.#tryPublish({ pid, startTime: startTimeOf(pid), runtime: null, phase: "ready" });
    notifySystemd({ READY: "1", STATUS: `ready: pid ${pid} serves ${this.url}` });
  }

  /** @internal Writes the record again, should somebody have written over it. */
  republish(): void {
    if (!this.#isClosing) this.#tryPublish({});
  }

  /**
   * @internal After the child has ended: lets go, and deletes the lock files, but for those that somebody has locked. Not by looking for holders, which may be
   * hidden: only a lock is proof. False if there were any.
   */
  clearUp(): boolean {
    this.leave();
    return this.#lockPaths
      .toReversed()
      .map(removeUnlocked)
      .every((removed) => removed);
  }

  /** @internal Lets go of all of it and deletes nothing: somebody else has the same claim. */
  leave(event: "release" | "handover" = "release", unused: readonly number[] = []): void {
    this.#isClosing = true;
    clearInterval(this.#watch);
    this.#ports.close();
    this.#locks.share();
    this.#locks.disown(unused);
    this.#locks.release();
    this.#chronicle.tell(event);
    this.#closing ??= Promise.resolve();
    void this.#offer?.close();
  }

  async #shutDown(): Promise<void> {
    this.#isClosing = true;
    if (this.#offer !== null) await this.#offer.close();
    if (this.#successor !== null) return;
    notifyStopping(this, `stopping: ${this.url}`);
    const publish = () => this.#tryPublish({ phase: "stopping" });
    this.#fields = { ...this.#fields, phase: "stopping" };
    this.#owner = { ...this.#owner, phase: "stopping" };
    let later: NodeJS.Immediate | undefined;
    try {
      const drained = this.#ports.drain();
      // With nobody connected it is over in this turn of the event loop, before anybody could read it.
      if (this.#ports.isConnected) publish();
      else later = setImmediate(publish);
      await drained;
    } finally {
      clearImmediate(later);
      clearInterval(this.#watch);
      this.#ports.close();
      this.#locks.release();
      this.#chronicle.tell("release");
    }
  }

  #onServerStop(): void {
    if (this.#isClosing) return;
    this.#tryPublish({ phase: "listening" });
    notifySystemd({ STATUS: `listening, and nobody serves: ${this.url}` });
  }

  #publish(change: Partial<OwnerFields>): void {
    const fields = { ...this.#fields, ...change };
    if (!this.#isSuspended) this.#owner = this.#locks.publish(fields);
    this.#fields = fields;
  }

  /** For changes that nobody is there to be told of: the lock matters, and the record is only about it. */
  #tryPublish(change: Partial<OwnerFields>): void {
    try {
      this.#publish(change);
    } catch (error) {
      process.emitWarning(`the owner record could not be written: ${(error as Error).message}`, "GatewayLockWarning");
    }
  }

  #refuseWhenClosing(): void {
    if (this.#isClosing) throw lockLost(this.#lockPaths[0] ?? "", this.#whyNot());
  }

  #whyNot(): string {
    return this.#successor === null
      ? "the gateway is closed"
      : `the gateway has been handed over to pid ${this.#successor}`;
  }

  #offerTo(hooks: HandoverOptions, MakeOffer: typeof Offer): Offer {
    const ports = this.#ports;
    const locks = this.#locks;
    ports.watchTraffic();
    let phase: OwnerFields["phase"] | undefined;
    let wasAsked = false;
    let wasShared = false;
    let obstacle: string | null = null;
    const estate: Estate = {
      descriptors: () => this.descriptors,
      unanswered: () => ports.unanswered,
      refuse: async (pid) => (this.#loss === null ? await explainUnit(pid) : this.#loss.message),
      obstacle: () => obstacle,
      // Without anything to wait for first, requests are told of it in this turn of the event loop.
      quiesce: async (signal) => {
        phase = this.#fields.phase;
        this.#tryPublish({ phase: "stopping" });
        notifySystemd({ STATUS: `being handed over: ${this.url}` });
        obstacle = null;
        if (this.#handOffs.size > 0) {
          obstacle = "its listen() has not resolved";
          await orAborted(signal, Promise.allSettled(this.#handOffs));
        }
        ports.pause();
        if (hooks.onDrain !== undefined) {
          wasAsked = true;
          obstacle = "its onDrain has not resolved";
          try {
            await orAborted(signal, hooks.onDrain());
          } catch (cause) {
            signal.throwIfAborted();
            throw new Error(`its onDrain has failed: ${reasonOf(cause)}`, { cause });
          }
        }
        obstacle = null;
        await ports.quiesce(signal);
      },
      finish: async () => {
        wasAsked = true;
        await hooks.onHandover?.();
      },
      suspend: () => {
        this.#isSuspended = true;
        // Whatever becomes of this process now, it deletes nothing.
        wasShared = locks.isShared;
        locks.share();
      },
      takeBack: () => {
        if (this.#isSuspended) {
          this.#isSuspended = false;
          if (!wasShared) locks.unshare();
          // Successors may ask again and again, and each time somebody may have deleted a lock meanwhile.
          this.#look();
        }
        if (this.#isClosing) return ports.closeServers();
        // Written in any case: a successor may have written its own. What has happened meanwhile counts.
        this.#tryPublish(phase !== undefined && this.#fields.phase === "stopping" ? { phase } : {});
        phase = undefined;
        notifySystemd({ STATUS: `${this.#fields.phase}: ${this.url}` });
      },
      resume: async () => {
        const isToBeTold = wasAsked;
        wasAsked = false;
        try {
          if (isToBeTold && !this.#isClosing) await hooks.onResume?.();
        } finally {
          if (this.#isClosing) ports.closeServers();
          else await ports.resume();
        }
      },
      release: (pid, unused) => {
        this.#successor = pid;
        notifyMainProcess(pid);
        notifyGone(this);
        ports.closeServers();
        this.leave("handover", unused);
        this.#handedOver?.abort(new Error(this.#whyNot()));
      },
    };
    const path = socketPathOf(this.#lockPaths[0] ?? "");
    try {
      return new MakeOffer(path, estate);
    } catch (cause) {
      throw lockFailed(path, `its handover socket can't be made: ${reasonOf(cause)}`, cause);
    }
  }

  #look(): void {
    if (this.#loss !== null || this.#isSuspended) return;
    try {
      if (!this.#locks.isCurrent) this.#locks.assertCurrent();
      this.#offer?.look();
    } catch (error) {
      this.#loss = error as GatewayLockError;
      clearInterval(this.#watch);
      this.#chronicle.tell("lost", this.#loss);
      this.#lost?.abort(this.#loss);
    }
  }
}

function removeUnlocked(path: string): boolean {
  try {
    const lock = tryLock({ path, kind: "file", remove: true });
    lock?.release();
    return lock !== null;
  } catch {
    return true; // there is nothing, or not for this user to delete
  }
}

function isLoopback(address: string | undefined): boolean {
  return address !== undefined && (address === "::1" || isLoopbackV4(address.replace(/^::ffff:/, "")));
}
