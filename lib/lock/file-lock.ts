// One lock on one file: taken, looked after, and let go.

import { dirname, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import {
  alreadyRunning,
  codeOf,
  type GatewayLockError,
  lockFailed,
  lockLost,
  lockUnsupported,
  systemError,
} from "../errors.ts";
import { type Hazard, isFailure, type LockAttempt, type NativeFailure, native } from "../native.ts";
import { checkBoolean, checkNames, checkPath, checkSignal, checkTimeout } from "../options.ts";
import { filesystemOf } from "./filesystem.ts";

export interface TryLockOptions {
  /** Delete the file when the lock is released, and in an `exit` hook where one runs. Default: false. */
  remove?: boolean | undefined;
}

export interface LockOptions extends TryLockOptions {
  /** How long to wait for the holder to leave, in ms. Default: `Infinity`. */
  timeout?: number | undefined;
  /** Ends the wait; the promise then rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
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

/** Keeps every held lock reachable: garbage collection releases nothing. */
const held = new Set<FileLock>();

/** A kernel lock that this process holds. It ends with `release()`, or with the process, however that ends. */
export class FileLock {
  /** Absolute: it means the same after process.chdir(). */
  readonly path: string;
  /** @internal */
  remove: boolean;
  readonly #fd: number;
  readonly #unlocks: boolean;

  /** @internal */
  constructor(path: string, fd: number, { remove, unlocks }: Terms) {
    this.path = path;
    this.remove = remove;
    this.#fd = fd;
    this.#unlocks = unlocks;
    if (held.size === 0) process.on("exit", removeAll);
    held.add(this);
  }

  get held(): boolean {
    return held.has(this);
  }

  /**
   * Deletes the file if `remove` was asked for and the path still is this file, and frees the lock. Idempotent.
   * A file that cannot be deleted stays behind, unlocked; a process warning says so.
   */
  release(): void {
    if (!held.delete(this)) return;
    if (held.size === 0) process.off("exit", removeAll);
    try {
      this.#removeFile();
    } finally {
      if (this.#unlocks) native().unlock(this.#fd);
      native().closeFile(this.#fd);
    }
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
    if (failure !== undefined) throw failed(this.path, dirname(this.path), failure);
  }

  #removeFile(): void {
    if (!this.remove) return;
    const removed = native().removeLockFile(this.#fd, this.path);
    if (isFailure(removed)) {
      process.emitWarning(
        `a lock file was left behind: ${systemError(removed, this.path).message}`,
        "GatewayLockWarning",
      );
    }
  }

  /**
   * For the `exit` hook: the kernel frees the locks right after it.
   *
   * @internal
   */
  static removeAtExit(lock: FileLock): void {
    lock.#removeFile();
  }
}

function removeAll(): void {
  for (const lock of held) FileLock.removeAtExit(lock);
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
  return lockFrom(absolute, dirname(absolute), native().tryLockFile(absolute, false), () => ({
    remove,
    unlocks: true,
  }));
}

/**
 * Takes the lock on the file at `path`, waiting for it to become free.
 *
 * @throws GatewayLockError `ALREADY_RUNNING` when `timeout` ms have passed; what `tryLockFile` throws; `signal.reason`
 */
export async function lockFile(path: string, options: LockOptions = {}): Promise<FileLock> {
  const { remove, timeout, signal } = checkNames(options, ["remove", "timeout", "signal"]);
  const absolute = resolve(checkPath("path", path));
  const wait = { timeout: checkTimeout("timeout", timeout, Infinity), signal: checkSignal(signal) };
  const deadline = performance.now() + wait.timeout;
  for (;;) {
    wait.signal?.throwIfAborted();
    const lock = tryLockFile(absolute, { remove });
    if (lock !== null) return lock;
    const left = deadline - performance.now();
    if (left <= 0) {
      const { holders } = native().findLockHolders(absolute, [], true);
      throw alreadyRunning(holders[0] ?? null, wait.timeout, { lockPath: absolute });
    }
    await pause(Math.min(POLL_INTERVAL, left), wait.signal);
  }
}

/** How often a wait looks again, in ms. */
export const POLL_INTERVAL = 25;

/** @throws `signal.reason` as soon as it aborts */
export async function pause(ms: number, signal: AbortSignal | null): Promise<void> {
  try {
    await delay(ms, undefined, signal === null ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/** @internal The file lock of a gateway: proved to exclude others, and deleted later only if nobody has written to it. */
export function tryLockGatewayFile(path: string): FileLock | null {
  return lockFrom(path, dirname(path), native().tryLockFile(path, true), (empty) => ({
    remove: empty,
    unlocks: false,
  }));
}

/** @internal The lock on a directory itself. It has no content, and is never deleted. */
export function tryLockDirectory(path: string): FileLock | null {
  return lockFrom(path, path, native().tryLockDirectory(path), () => ({ remove: false, unlocks: false }));
}

function lockFrom(
  path: string,
  directory: string,
  attempt: LockAttempt | NativeFailure,
  terms: (empty: boolean) => Terms,
): FileLock | null {
  if (isFailure(attempt)) throw failed(path, directory, attempt);
  switch (attempt.status) {
    case "locked":
      return new FileLock(path, attempt.fd, terms(attempt.empty));
    case "held":
      return null;
    case "refused":
      throw lockFailed(path, HAZARDS[attempt.hazard]);
    case "not-exclusive":
      throw lockUnsupported(
        describe(path, directory),
        "it granted one lock twice; use a lockDir on a local filesystem",
      );
  }
}

const HAZARDS: Record<Hazard, string> = {
  "symbolic-link": "it is a symbolic link; remove it, or lock the file that it points to",
  directory: "it is a directory; choose another path",
  "not-regular": "it is not a regular file; choose another path",
  "hard-links": "the file has a second hard link; remove that link, or this file",
  "foreign-owner": "the file belongs to another user; remove it, or run as that user",
  "writable-directory":
    "users other than its owner may write to the directory, and could delete or replace the lock; run chmod go-w on it",
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

function failed(path: string, directory: string, failure: NativeFailure): GatewayLockError {
  const cause = systemError(failure, path);
  if (failure.syscall === "flock" && NO_LOCKS.has(codeOf(cause))) {
    return lockUnsupported(describe(path, directory), `${cause.message}; use a lockDir on a local filesystem`, cause);
  }
  return lockFailed(path, cause.message, cause);
}

function describe(lockPath: string, directory: string): { directory: string; type: string; lockPath: string } {
  try {
    return { directory, type: filesystemOf(directory).type, lockPath };
  } catch {
    return { directory, type: "unknown", lockPath };
  }
}
