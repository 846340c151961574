// All locks of one gateway: taken in one order or not at all, written together, looked after, and let go in reverse.

import { lstatSync, mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import {
  codeOf,
  type GatewayLockError,
  lockFailed,
  lockLost,
  lockUnsupported,
  reasonOf,
  systemError,
} from "../errors.ts";
import { native } from "../native.ts";
import { adoptLock, FileLock, type InheritedLocks, type Lockable, tryLock } from "./file-lock.ts";
import { filesystemOf } from "./filesystem.ts";
import { encodeRecord, type OwnerFields, type OwnerRecord } from "./record.ts";
import { isWritable, type Resource } from "./resources.ts";

/** A resource that someone else has. */
export interface Refusal {
  readonly resource: Resource;
  /** What the kernel refused: the directory itself, or a lock file. */
  readonly held: Lockable;
}

/** How often in a row a lock directory may vanish between being made and being used. */
const MAX_WIPES = 100;

/** How often a lock that somebody else has is tried again before it is lost, and how long to wait in between. ms */
const MAX_RESTORES = 50;
const RESTORE_INTERVAL = 1;
const PAUSE = new Int32Array(new SharedArrayBuffer(4));

interface HeldResource {
  readonly resource: Resource;
  /** The lock on the directory itself; `null` for a file, and where the system or a network filesystem has no such locks. */
  readonly directoryLock: FileLock | null;
  fileLock: FileLock;
  /** Somebody else has it too, and the file is not ours to delete. */
  isShared: boolean;
}

/** Locks that a contender has already. They become part of its set where they belong to it. */
export interface Advance {
  /** One that it has waited for; released if it does not become part. */
  readonly granted: FileLock | null;
  /** What its parent has left it. */
  readonly inherited: InheritedLocks | null;
}

export class LockSet {
  readonly #held: HeldResource[] = [];
  readonly #allowNetworkFilesystem: boolean;
  /** Directories that were looked at a moment ago: the state directory and the config usually share theirs. Later on, they may be anything. */
  #suitable: Set<string> | null = new Set();
  /** A lock that was waited for, until its turn comes. */
  #granted: FileLock | null;
  #inherited: InheritedLocks | null;
  readonly #inheritedLocks = new Set<FileLock>();
  /** Somebody else may have written more. */
  #mayBeLonger = true;
  #content: Buffer | null = null;
  #isSettled = true;
  #areCurrent: (() => boolean) | null = null;

  private constructor(allowNetworkFilesystem: boolean, { granted, inherited }: Advance) {
    this.#allowNetworkFilesystem = allowNetworkFilesystem;
    this.#granted = granted;
    this.#inherited = inherited;
  }

  /** @throws GatewayLockError `LOCK_FAILED`, `LOCK_UNSUPPORTED`; nothing is held then */
  static tryLock(resources: readonly Resource[], allowNetworkFilesystem: boolean, advance: Advance): LockSet | Refusal {
    const locks = new LockSet(allowNetworkFilesystem, advance);
    let complete = false;
    try {
      for (const resource of resources) {
        const refusal = locks.#tryAdd(resource);
        if (refusal !== null) return refusal;
      }
      complete = true;
      return locks;
    } finally {
      locks.#granted?.release();
      locks.#inherited = null; // from here on the numbers may be other files
      locks.#suitable = null;
      if (!complete) locks.release();
    }
  }

  /**
   * False if the lock file of one of the files was missing, and lies in a directory that somebody else has locked: that may be
   * the owner, whose lock files were deleted, and who is about to make them again.
   */
  get isSettled(): boolean {
    return this.#isSettled;
  }

  /** The parent of this process had these locks, or some of them. */
  get isInherited(): boolean {
    return this.#inheritedLocks.size > 0;
  }

  /** In lock order. */
  get paths(): string[] {
    return this.#held.map(({ fileLock }) => fileLock.path);
  }

  /** Lock files in which somebody has written, until this set does. */
  get writtenPaths(): string[] {
    // What is empty goes with its lock from the start.
    return this.#held.flatMap(({ fileLock }) => (fileLock.remove ? [] : fileLock.path));
  }

  /** Whether the config is kept from gateways with other state directories too. */
  get configLock(): "exclusive" | "state-only" {
    const config = this.#held.find(({ resource }) => resource.role === "config");
    return config === undefined || config.fileLock.path === config.resource.lockPath ? "exclusive" : "state-only";
  }

  /** From here on the lock files are ours to delete. */
  claimFiles(): void {
    for (const { fileLock, isShared } of this.#held) fileLock.remove = !isShared;
  }

  /** Writes the record into every lock file, and claims them. If it can't be written, the last one stays. */
  publish(fields: OwnerFields): OwnerRecord {
    const { record, bytes } = encodeRecord(fields, this.#content?.length);
    this.claimFiles();
    try {
      for (const { fileLock } of this.#held) fileLock.write(bytes, { cut: this.#mayBeLonger });
    } catch (error) {
      this.#rewrite();
      throw error;
    }
    this.#content = bytes;
    this.#mayBeLonger = false;
    return record;
  }

  /** What assertCurrent() looks for, at a fraction of its cost: an owner asks twice a second. */
  get isCurrent(): boolean {
    this.#areCurrent ??= FileLock.watch(
      this.#held.flatMap(({ directoryLock, fileLock }) =>
        directoryLock === null ? fileLock : [directoryLock, fileLock],
      ),
    );
    return this.#areCurrent();
  }

  /**
   * Restores lock files that were deleted or replaced, where the directory that they belong to is still locked itself:
   * then nobody can have taken the resource meanwhile.
   *
   * @throws GatewayLockError `LOCK_LOST`
   */
  assertCurrent(): void {
    for (const held of this.#held) {
      held.directoryLock?.assertCurrent();
      try {
        held.fileLock.assertCurrent();
      } catch (error) {
        this.#restore(held, error as GatewayLockError);
      }
    }
  }

  /** For a child process to inherit, in lock order. */
  get descriptors(): number[] {
    return this.#held.flatMap(({ directoryLock, fileLock }) =>
      directoryLock === null ? fileLock.fd : [directoryLock.fd, fileLock.fd],
    );
  }

  /** Somebody else has the same locks from now on: however this process ends, it deletes none of the files. */
  share(): void {
    this.#share(() => true);
  }

  /** The same of those that this process was given. */
  shareInherited(): void {
    this.#share(({ fileLock }) => this.#inheritedLocks.has(fileLock));
  }

  /** Nobody else has them any more. */
  unshare(): void {
    for (const held of this.#held) {
      held.isShared = false;
      held.fileLock.remove = true;
    }
  }

  /** Of those by `descriptors`, nobody else has these: their files go with them. */
  disown(descriptors: readonly number[]): void {
    for (const { fileLock } of this.#held) if (descriptors.includes(fileLock.fd)) fileLock.remove = true;
  }

  get isShared(): boolean {
    return this.#held.some(({ isShared }) => isShared);
  }

  /** Frees everything, the last lock first. Files are deleted if they were written here, or are empty. */
  release(): void {
    for (const { fileLock, directoryLock } of this.#held.splice(0).reverse()) {
      fileLock.release();
      directoryLock?.release();
    }
  }

  #share(isConcerned: (held: HeldResource) => boolean): void {
    this.#mayBeLonger = true;
    for (const held of this.#held) {
      if (!isConcerned(held)) continue;
      held.isShared = true;
      held.fileLock.remove = false;
    }
  }

  #tryAdd(resource: Resource): Refusal | null {
    const home = resource.isDirectory ? resource.path : dirname(resource.path);
    this.#requireLocalFilesystem(home, resource.lockPath);
    let directoryLock: FileLock | null = null;
    let fileLock: FileLock | null = null;
    try {
      if (resource.isDirectory) {
        const itself: Lockable = { path: resource.path, kind: "directory" };
        const locked = this.#lockDirectory(itself);
        if (locked === "held") return { resource, held: itself };
        directoryLock = locked;
      }
      const file = this.#lockFileOf(resource);
      if (!(file instanceof FileLock)) return { resource, held: file };
      fileLock = file;
      this.#held.push({ resource, directoryLock, fileLock, isShared: false });
      // "remove" = there is nothing in it: it was made here.
      if (!resource.isDirectory && file.remove && this.#isForeign(home, file.path)) this.#isSettled = false;
      return null;
    } finally {
      if (fileLock === null) directoryLock?.release();
    }
  }

  /** Whether a lock file lies in the `locks` of a directory that is locked, and not by us. */
  #isForeign(directory: string, lockPath: string): boolean {
    if (!native().locksDirectories) return false;
    if (!isInLocksOf(directory, lockPath) || this.#held.some(({ resource }) => resource.path === directory))
      return false;
    try {
      const free = tryLock({ path: directory, kind: "directory" });
      free?.release();
      return free === null;
    } catch {
      return false; // it can't be locked, or not by this user: then no owner of it could restore anything
    }
  }

  #lock(lockable: Lockable): FileLock | null {
    const inherited = this.#inherited === null ? null : adoptLock(lockable, this.#inherited);
    if (inherited !== null) {
      this.#inheritedLocks.add(inherited);
      inherited.remove = false; // until it is ours to write to
      return inherited;
    }
    const granted = this.#granted;
    if (granted?.path !== lockable.path) return tryLock(lockable);
    this.#granted = null;
    // It may have been granted long ago, while the event loop was blocked.
    if (granted.isCurrent) return granted;
    granted.release();
    return tryLock(lockable);
  }

  /** `null` where the system or the filesystem has no such locks. */
  #lockDirectory(lockable: Lockable): FileLock | null | "held" {
    if (!native().locksDirectories) return null;
    try {
      return this.#lock(lockable) ?? "held";
    } catch (error) {
      // NFS makes flock a byte-range lock, which wants a descriptor open for writing: a directory has none (flock(2)).
      const unlockable = codeOf(error) === "LOCK_UNSUPPORTED" && this.#allowNetworkFilesystem;
      if (unlockable && filesystemOf(lockable.path).network) return null;
      throw error;
    }
  }

  /** The lock, or what someone else has. A config whose directory can't be written is locked under the state directory. */
  #lockFileOf({ lockPath, lockDirectory, fallbackLockPath }: Resource): FileLock | Lockable {
    try {
      return this.#lockIn(lockDirectory, lockPath);
    } catch (error) {
      const denied = ["EACCES", "EPERM", "EROFS"].includes(codeOf((error as Error).cause) ?? "");
      if (fallbackLockPath === null || !denied || isWritable(dirname(lockDirectory))) throw error;
      return this.#lockIn(dirname(fallbackLockPath), fallbackLockPath);
    }
  }

  /** Somebody who is just wiping the lock directory makes this start again, not fail. */
  #lockIn(lockDirectory: string, lockPath: string): FileLock | Lockable {
    const lockable: Lockable = { path: lockPath, kind: "gateway-file" };
    for (let round = 1; ; round++) {
      try {
        if (!this.#suitable?.has(lockDirectory)) makeLockDirectory(lockDirectory, lockPath);
        this.#requireLocalFilesystem(lockDirectory, lockPath);
        return this.#lock(lockable) ?? lockable;
      } catch (error) {
        this.#suitable?.delete(lockDirectory);
        if (codeOf((error as Error).cause) !== "ENOENT" || round === MAX_WIPES) throw error;
      }
    }
  }

  #requireLocalFilesystem(directory: string, lockPath: string): void {
    if (this.#suitable?.has(directory)) return;
    requireLocalFilesystem(directory, lockPath, this.#allowNetworkFilesystem);
    this.#suitable?.add(directory);
  }

  /** Somebody who is about to be refused another of his locks may have this one for a moment. */
  #lockAgain(path: string): FileLock | null {
    for (let tries = 1; ; tries++) {
      const lock = this.#lockIn(dirname(path), path);
      if (lock instanceof FileLock) return lock;
      if (tries === MAX_RESTORES) return null;
      Atomics.wait(PAUSE, 0, 0, RESTORE_INTERVAL);
    }
  }

  /** What a failed write has left behind may be half a record. */
  #rewrite(): void {
    if (this.#content === null) return;
    for (const { fileLock } of this.#held) {
      try {
        fileLock.write(this.#content, { cut: true });
      } catch {
        // It was there before, so it fits; should it not, readers find it torn.
      }
    }
  }

  #restore(held: HeldResource, lost: GatewayLockError): void {
    const { path } = held.fileLock;
    // A directory's own lock, wherever the file lies; for a file, that of the directory whose `locks` it lies in.
    const anchor =
      held.directoryLock !== null
        ? held
        : this.#held.find(({ directoryLock }) => directoryLock !== null && isInLocksOf(directoryLock.path, path));
    if (anchor === undefined || this.#content === null) throw lost;
    anchor.directoryLock?.assertCurrent();
    let restored: FileLock | null = null;
    try {
      restored = this.#lockAgain(path);
      restored?.write(this.#content, { cut: true });
    } catch (cause) {
      restored?.release();
      throw lockLost(path, `it was deleted or replaced, and can't be restored: ${reasonOf(cause)}`, cause);
    }
    if (restored === null)
      throw lockLost(path, "it was deleted or replaced, and someone else has locked a new one", lost);
    restored.remove = !held.isShared;
    held.fileLock.release();
    held.fileLock = restored;
    this.#areCurrent = null;
  }
}

function isInLocksOf(directory: string, lockPath: string): boolean {
  return dirname(dirname(lockPath)) === directory;
}

const WRITABLE_BY_OTHERS = 0o022;

/** Makes the directory (0700) if it is missing. What root makes belongs to the owner of the directory it lies in. */
function makeLockDirectory(path: string, lockPath: string): void {
  try {
    if (makeIfMissing(path)) giveToParentsOwner(path);
  } catch (cause) {
    throw lockFailed(lockPath, reasonOf(cause), cause);
  }
}

function makeIfMissing(path: string): boolean {
  let stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) {
    try {
      mkdirSync(path, { mode: 0o700 });
      return true;
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    }
    stats = lstatSync(path); // somebody was quicker
  }
  if (stats.isSymbolicLink()) throw new Error(`${path} is a symbolic link; make it a directory, or use lockDir`);
  if (!stats.isDirectory()) throw new Error(`${path} is not a directory; remove it, or use lockDir`);
  if (isPlanted(path, stats.uid))
    throw new Error(`${path} belongs to user ${stats.uid}, who may put any file there; remove it, or use lockDir`);
  return false;
}

/** Made by somebody else, in a directory where others may make things. They could delete and replace what is in it, whatever its mode says. */
function isPlanted(path: string, owner: number): boolean {
  const user = process.geteuid?.();
  if (user === undefined || owner === user) return false;
  const { uid, mode } = statSync(dirname(path));
  return owner !== uid && (mode & WRITABLE_BY_OTHERS) !== 0;
}

function giveToParentsOwner(path: string): void {
  if (process.geteuid?.() !== 0) return;
  const failure = native().giveDirectory(path);
  if (failure !== undefined) throw systemError(failure, path);
}

function requireLocalFilesystem(directory: string, lockPath: string, allowNetworkFilesystem: boolean): void {
  let filesystem: ReturnType<typeof filesystemOf>;
  try {
    filesystem = filesystemOf(directory);
  } catch (cause) {
    throw lockFailed(lockPath, reasonOf(cause), cause);
  }
  if (!filesystem.network || allowNetworkFilesystem) return;
  throw lockUnsupported(
    { directory, type: filesystem.type, lockPath },
    "other hosts may write there, and need not see this host's locks; use a local directory, or set allowNetworkFilesystem if you have proof that it locks",
  );
}
