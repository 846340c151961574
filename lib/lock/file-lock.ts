// One lock on one file: taken, looked after, and let go.

import { dirname, resolve } from "node:path";
import {
  alreadyRunning,
  codeOf,
  type GatewayLockError,
  lockFailed,
  lockLost,
  lockUnsupported,
  systemError,
} from "../errors.ts";
import {
  type Hazard,
  isFailure,
  LOCK_SYSCALL,
  type LockAttempt,
  type NativeFailure,
  type NotLocked,
  native,
} from "../native.ts";
import { checkBoolean, checkNames, checkPath, checkSignal, checkTimeout } from "../options.ts";
import { filesystemOf } from "./filesystem.ts";
import { type Limits, pause, waitInKernel } from "./wait.ts";

export interface TryLockOptions {
  /** Delete the file when the lock is released, and when the process ends by itself with the lock held. Default: false. */
  remove?: boolean | undefined;
}

export interface LockOptions extends TryLockOptions {
  /** How long to wait for the holder to leave, in ms. Default: `Infinity`. */
  timeout?: number | undefined;
  /** Ends the wait; the promise then rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
}

/** What is to be locked. */
export interface Lockable {
  readonly path: string;
  /**
   * A gateway's file is proved to exclude others, and deleted later only if nobody has written to it. A directory itself has
   * no content, and is never deleted.
   */
  readonly kind: "file" | "gateway-file" | "directory";
  /** Of a plain file: whether to delete it at the release. */
  readonly remove?: boolean;
}

/** How a lock is let go. */
interface Terms {
  readonly remove: boolean;
  /**
   * Free it at once, and not only when every child process that has just been forked has reached its exec. A gateway's
   * locks are not: such a child has the port too, and whoever meets the lock first knows to be patient about the port.
   */
  readonly unlocks: boolean;
}

/** How long to leave a file alone that others have made and deleted a thousand times while we tried. ms */
const CROWDED = 1;

/** Keeps every held lock reachable: garbage collection releases nothing. */
const held = new Set<FileLock>();

/** A kernel lock that this process holds. It ends with `release()`, or with the process, however that ends. */
export class FileLock {
  /** Absolute: it means the same after process.chdir(). */
  readonly path: string;
  readonly #fd: number;
  readonly #unlocks: boolean;
  #remove = false;

  /** @internal */
  constructor(path: string, fd: number, { remove, unlocks }: Terms) {
    this.path = path;
    this.#fd = fd;
    this.#unlocks = unlocks;
    if (remove) this.remove = true;
    held.add(this);
  }

  /**
   * Whether the file goes with the lock, also when the process or the worker just ends: after the last of the host's `exit` listeners,
   * because whoever finds no file at the path takes the lock of a new one.
   *
   * @internal
   */
  get remove(): boolean {
    return this.#remove;
  }

  /** @internal */
  set remove(remove: boolean) {
    if (remove === this.#remove) return;
    this.#remove = remove;
    native().removeAtEnd(this.#fd, remove ? this.path : "");
  }

  get held(): boolean {
    return held.has(this);
  }

  /** @internal For a child process to inherit. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * Deletes the file if `remove` was asked for and the path still is this file, and frees the lock. Idempotent.
   * A file that cannot be deleted stays behind, unlocked; a process warning says so.
   */
  release(): void {
    if (!held.delete(this)) return;
    const failure = native().releaseLock(this.#fd, this.#unlocks);
    if (failure === undefined) return;
    const { message } = systemError(failure, this.path);
    process.emitWarning(`a lock file was left behind: ${message}`, "GatewayLockWarning");
  }

  /** @internal Whether the path still is the locked file. */
  get isCurrent(): boolean {
    return this.held && native().checkLock(this.#fd, this.path) === "current";
  }

  /** @internal The same for many, in one call. */
  static watch(locks: readonly FileLock[]): () => boolean {
    const fds = Int32Array.from(locks, (lock) => lock.#fd);
    const paths = locks.map(({ path }) => `${path}\0`).join("");
    return () => native().areCurrent(fds, paths);
  }

  /** @throws GatewayLockError `LOCK_LOST` if this lock was released, or its file was deleted, renamed or replaced. */
  assertCurrent(): void {
    if (!this.held) throw lockLost(this.path, "it was released");
    const currency = native().checkLock(this.#fd, this.path);
    if (currency === "current") return;
    if (isFailure(currency)) throw lockLost(this.path, "it cannot be checked", systemError(currency, this.path));
    throw lockLost(this.path, currency === "missing" ? "it was deleted or renamed" : "it was replaced by another file");
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /**
   * Replaces the content in one write.
   *
   * @internal
   */
  write(data: Uint8Array, { cut }: { cut: boolean }): void {
    const failure = native().writeRecord(this.#fd, data, cut);
    if (failure !== undefined) throw failed({ path: this.path, kind: "file" }, failure);
  }
}

/**
 * Takes the lock on the file at `path` if it is free, making the file (0600) where it is missing.
 *
 * @returns the lock, or `null` if someone else has it: another process, or another part of this one
 * @throws GatewayLockError `LOCK_FAILED` if it could not be tried: the path is a symbolic link, not a regular file, has
 * a second hard link, belongs to another user, or lies in a directory that others may write; or the system refused.
 * `LOCK_UNSUPPORTED` if the filesystem has no such locks.
 */
export function tryLockFile(path: string, options: TryLockOptions = {}): FileLock | null {
  const absolute = resolve(checkPath("path", path));
  const remove = checkBoolean("remove", checkNames(options, ["remove"]).remove, false);
  return tryLock({ path: absolute, kind: "file", remove });
}

/**
 * Takes the lock on the file at `path`, waiting for it to become free: in the kernel (flock(2)), on a thread of its own. Who comes
 * while the lock is free need not queue behind those who are just waking up. A wait keeps the event loop alive. Any number
 * may wait at once, as long as the system has threads and descriptors for them.
 *
 * @throws GatewayLockError `ALREADY_RUNNING` when `timeout` ms have passed; what `tryLockFile` throws, `LOCK_FAILED` too
 * when no thread can be started; `signal.reason`. Whoever is rejected does not have the lock, and does not get it later.
 */
export async function lockFile(path: string, options: LockOptions = {}): Promise<FileLock> {
  const given = checkNames(options, ["remove", "timeout", "signal"]);
  const absolute = resolve(checkPath("path", path));
  const remove = checkBoolean("remove", given.remove, false);
  const timeout = checkTimeout("timeout", given.timeout, Infinity);
  const limits = { deadline: performance.now() + timeout, signal: checkSignal(given.signal) };
  const file: Lockable = { path: absolute, kind: "file", remove };
  for (;;) {
    limits.signal?.throwIfAborted();
    const isLast = performance.now() >= limits.deadline;
    const lock = isLast ? tryLock(file) : await waitForLock(file, limits);
    if (lock !== null) return lock;
    if (!isLast) continue;
    throw alreadyRunning(findHolder(absolute), timeout, { lockPath: absolute });
  }
}

/** Of locks that were asked for in this turn of the event loop: a thousand waits may give up in one. */
const holders = new Map<string, number | null>();

function findHolder(path: string): number | null {
  let holder = holders.get(path);
  if (holder === undefined) {
    if (holders.size === 0) setImmediate(() => holders.clear());
    holder = native().findLockHolders([path], [], true)[0]?.holders[0] ?? null;
    holders.set(path, holder);
  }
  return holder;
}

/** @internal `null` = someone else has it. */
export function tryLock(lockable: Lockable): FileLock | null {
  const attempt = attemptOn(lockable, false);
  if (isFailure(attempt)) throw failed(lockable, attempt);
  return typeof attempt === "object" && attempt.status === "held" ? null : lockFrom(lockable, attempt);
}

/** Descriptors that this process was started with. */
export interface InheritedLocks {
  readonly locks: readonly number[];
  /** Is told of each one that was adopted. */
  use(fd: number): void;
}

/**
 * The lock, if one of the inherited descriptors has it. They stay open.
 *
 * @throws GatewayLockError `LOCK_FAILED`, `LOCK_UNSUPPORTED`
 * @internal
 */
export function adoptLock(lockable: Lockable, inherited: InheritedLocks): FileLock | null {
  for (const fd of inherited.locks) {
    const attempt = native().adoptLock(fd, lockable.path, lockable.kind !== "file");
    // It is for another of the locks, or somebody has closed it.
    if (isFailure(attempt)) continue;
    if (typeof attempt === "object" && (attempt.status === "held" || attempt.status === "replaced")) continue;
    const lock = lockFrom(lockable, attempt);
    inherited.use(fd);
    return lock;
  }
  return null;
}

/**
 * Waits for the lock.
 *
 * @returns `null` if the deadline has passed, or what was held is not at the path any more: look again
 * @throws GatewayLockError `LOCK_FAILED`, `LOCK_UNSUPPORTED`; `signal.reason`
 * @internal
 */
export function waitForLock(lockable: Lockable, limits: Limits): Promise<FileLock | null> {
  const { path, kind } = lockable;
  return new Promise((resolve, reject) => {
    const attempt = attemptOn(lockable, true);
    if (isFailure(attempt)) {
      if (kind === "file" || codeOf(systemError(attempt, path)) !== "ENOENT") throw failed(lockable, attempt);
      return resolve(null);
    }
    if (typeof attempt === "number" || attempt.status !== "held") return resolve(lockFrom(lockable, attempt));
    const { fd } = attempt;
    if (fd === undefined) return resolve(pause(CROWDED, limits.signal).then(() => null));
    // Nobody tells the holder of a plain file that it was deleted, and newcomers then lock the new one. The owner of a gateway is told,
    // and still has the port: it is waited for to the end.
    const awaited = { fd, path, selfTest: kind === "gateway-file", watch: kind === "file" };
    // Straight from the callback to the lock: every promise in between would cost as much as the kernel's work does.
    waitInKernel(awaited, limits, (end, empty) => {
      const aborted = limits.signal?.aborted === true;
      if (end === null && !aborted) return resolve(new FileLock(path, fd, termsOf(lockable, empty)));
      native().releaseLock(fd, true);
      if (aborted || end === null) reject(limits.signal?.reason);
      else if (isFailure(end)) reject(failed(lockable, end));
      else if (end.status === "cancelled" || end.status === "replaced") resolve(null);
      else reject(notLocked(lockable, end));
    });
  });
}

function attemptOn({ path, kind }: Lockable, toWait: boolean): LockAttempt | NativeFailure {
  return kind === "directory"
    ? native().tryLockDirectory(path, toWait)
    : native().tryLockFile(path, kind === "gateway-file", toWait);
}

function lockFrom(lockable: Lockable, attempt: Exclude<LockAttempt, { status: "held" }>): FileLock {
  if (typeof attempt === "number") return new FileLock(lockable.path, attempt, termsOf(lockable, false));
  if (attempt.status !== "locked") throw notLocked(lockable, attempt);
  return new FileLock(lockable.path, attempt.fd, termsOf(lockable, attempt.empty));
}

function termsOf({ kind, remove = false }: Lockable, empty: boolean): Terms {
  return { remove: kind === "gateway-file" ? empty : remove, unlocks: kind === "file" };
}

function notLocked(lockable: Lockable, attempt: NotLocked): GatewayLockError {
  if (attempt.status === "refused") return lockFailed(lockable.path, explainHazard(attempt.hazard, lockable.path));
  return lockUnsupported(describe(lockable), "it granted one lock twice; use a lockDir on a local filesystem");
}

function explainHazard(hazard: Hazard, path: string): string {
  if (hazard !== "writable-directory") return HAZARDS[hazard];
  return `users other than its owner may write to the directory, and could delete or replace the lock; run chmod go-w ${dirname(path)}`;
}

const HAZARDS: Record<Exclude<Hazard, "writable-directory">, string> = {
  "symbolic-link": "it is a symbolic link; remove it, or lock the file that it points to",
  "reparse-point":
    "it is a reparse point (a symbolic link, a junction, a file kept in a cloud); remove it, or choose another path",
  directory: "it is a directory; choose another path",
  "not-regular": "it is not a regular file; choose another path",
  "hard-links": "the file has a second hard link; remove that link, or this file",
  "foreign-owner": "the file belongs to another user; remove it, or run as that user",
  "not-directory": "it is not a directory",
};

// flock(2) and the filesystems behind it: no lock table left or none at all (ENOLCK), or no locks in this filesystem.
const NO_LOCKS: ReadonlySet<string | undefined> = new Set([
  "ENOLCK",
  "ENOTSUP",
  "EOPNOTSUPP",
  "ENOSYS",
  "EINVAL",
  "EBADF",
]);

function failed(lockable: Lockable, failure: NativeFailure): GatewayLockError {
  const { path } = lockable;
  const cause = systemError(failure, path);
  if (failure.syscall === LOCK_SYSCALL && NO_LOCKS.has(codeOf(cause))) {
    return lockUnsupported(describe(lockable), `${cause.message}; use a lockDir on a local filesystem`, cause);
  }
  return lockFailed(path, cause.message, cause);
}

function describe({ path, kind }: Lockable): { directory: string; type: string; lockPath: string } {
  const directory = kind === "directory" ? path : dirname(path);
  try {
    return { directory, type: filesystemOf(directory).type, lockPath: path };
  } catch {
    return { directory, type: "unknown", lockPath: path };
  }
}
