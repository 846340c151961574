// All locks of one gateway: taken in one order or not at all, written together, looked after, and let go in reverse.

import { closeSync, constants, fchownSync, fstatSync, lstatSync, mkdirSync, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, type GatewayLockError, lockFailed, lockLost, lockUnsupported, reasonOf } from "../errors.ts";
import { type FileLock, tryLockDirectory, tryLockGatewayFile } from "./file-lock.ts";
import { filesystemOf } from "./filesystem.ts";
import { encodeRecord, type OwnerFields, type OwnerRecord } from "./record.ts";
import { isWritable, type Resource } from "./resources.ts";

/** A resource that someone else has. */
export interface Refusal {
  readonly resource: Resource;
  /** Where the kernel refused: the directory itself, or its lock file. */
  readonly heldPath: string;
}

/** How often in a row a lock directory may vanish between being made and being used. */
const MAX_WIPES = 100;

interface HeldResource {
  readonly resource: Resource;
  /** The lock on the directory itself; `null` for a file, and where a network filesystem has no such locks. */
  readonly directoryLock: FileLock | null;
  fileLock: FileLock;
}

export class LockSet {
  readonly #held: HeldResource[] = [];
  readonly #allowNetworkFilesystem: boolean;
  #content: Buffer | null = null;

  private constructor(allowNetworkFilesystem: boolean) {
    this.#allowNetworkFilesystem = allowNetworkFilesystem;
  }

  /** @throws GatewayLockError `LOCK_FAILED`, `LOCK_UNSUPPORTED`; nothing is held then */
  static tryLock(resources: readonly Resource[], allowNetworkFilesystem: boolean): LockSet | Refusal {
    const locks = new LockSet(allowNetworkFilesystem);
    try {
      for (const resource of resources) {
        const refusal = locks.#tryAdd(resource);
        if (refusal === null) continue;
        locks.release();
        return refusal;
      }
      return locks;
    } catch (error) {
      locks.release();
      throw error;
    }
  }

  /** In lock order. */
  get paths(): string[] {
    return this.#held.map(({ fileLock }) => fileLock.path);
  }

  /** Whether the config is kept from gateways with other state directories too. */
  get configLock(): "exclusive" | "state-only" {
    const config = this.#held.find(({ resource }) => resource.role === "config");
    return config === undefined || config.fileLock.path === config.resource.lockPath ? "exclusive" : "state-only";
  }

  /** Writes the record into every lock file. From here on they are ours to delete. If it can't be written, the last one stays. */
  publish(fields: OwnerFields): OwnerRecord {
    const { record, bytes } = encodeRecord(fields, this.#content?.length);
    try {
      for (const { fileLock } of this.#held) {
        fileLock.remove = true;
        fileLock.write(bytes, { cut: this.#content === null });
      }
    } catch (error) {
      this.#rewrite();
      throw error;
    }
    this.#content = bytes;
    return record;
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

  /** Frees everything, the last lock first. Files are deleted if they were written here, or are empty. */
  release(): void {
    for (const { fileLock, directoryLock } of this.#held.splice(0).reverse()) {
      fileLock.release();
      directoryLock?.release();
    }
  }

  #tryAdd(resource: Resource): Refusal | null {
    let directoryLock: FileLock | null = null;
    const home = resource.isDirectory ? resource.path : dirname(resource.path);
    requireLocalFilesystem(home, resource.lockPath, this.#allowNetworkFilesystem);
    if (resource.isDirectory) {
      const locked = lockDirectoryItself(resource.path, this.#allowNetworkFilesystem);
      if (locked === "held") return { resource, heldPath: resource.path };
      directoryLock = locked;
    }
    let fileLock: FileLock | null = null;
    try {
      fileLock = lockFileOf(resource, this.#allowNetworkFilesystem);
      if (fileLock === null) return { resource, heldPath: resource.lockPath };
      this.#held.push({ resource, directoryLock, fileLock });
      return null;
    } finally {
      if (fileLock === null) directoryLock?.release();
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
    const anchor = this.#held.find(
      ({ directoryLock }) => directoryLock !== null && isInLocksOf(directoryLock.path, path),
    );
    if (anchor === undefined || this.#content === null) throw lost;
    anchor.directoryLock?.assertCurrent();
    let restored: FileLock | null = null;
    try {
      restored = lockIn(dirname(path), path, this.#allowNetworkFilesystem);
      restored?.write(this.#content, { cut: true });
    } catch (cause) {
      restored?.release();
      throw lockLost(path, `it was deleted or replaced, and can't be restored: ${reasonOf(cause)}`, cause);
    }
    if (restored === null)
      throw lockLost(path, "it was deleted or replaced, and someone else has locked a new one", lost);
    restored.remove = true;
    held.fileLock.release();
    held.fileLock = restored;
  }
}

function isInLocksOf(directory: string, lockPath: string): boolean {
  return dirname(dirname(lockPath)) === directory;
}

function lockDirectoryItself(path: string, allowNetworkFilesystem: boolean): FileLock | null | "held" {
  try {
    return tryLockDirectory(path) ?? "held";
  } catch (error) {
    // NFS makes flock a byte-range lock, which wants a descriptor open for writing: a directory has none (flock(2)).
    if (codeOf(error) === "LOCK_UNSUPPORTED" && allowNetworkFilesystem && filesystemOf(path).network) return null;
    throw error;
  }
}

/** `null` = someone else has it. A config whose directory can't be written is locked under the state directory. */
function lockFileOf(resource: Resource, allowNetworkFilesystem: boolean): FileLock | null {
  const { lockPath, lockDirectory, fallbackLockPath } = resource;
  try {
    return lockIn(lockDirectory, lockPath, allowNetworkFilesystem);
  } catch (error) {
    const denied = ["EACCES", "EPERM", "EROFS"].includes(codeOf((error as Error).cause) ?? "");
    if (fallbackLockPath === null || !denied || isWritable(dirname(lockDirectory))) throw error;
    return lockIn(dirname(fallbackLockPath), fallbackLockPath, allowNetworkFilesystem);
  }
}

/** `null` = someone else has it. Somebody who is just wiping the lock directory makes this start again, not fail. */
function lockIn(lockDirectory: string, lockPath: string, allowNetworkFilesystem: boolean): FileLock | null {
  for (let round = 1; ; round++) {
    try {
      makeLockDirectory(lockDirectory, lockPath);
      requireLocalFilesystem(lockDirectory, lockPath, allowNetworkFilesystem);
      return tryLockGatewayFile(lockPath);
    } catch (error) {
      if (codeOf((error as Error).cause) !== "ENOENT" || round === MAX_WIPES) throw error;
    }
  }
}

/** Makes the directory (0700) if it is missing. What root makes belongs to the owner of the directory it lies in. */
function makeLockDirectory(path: string, lockPath: string): void {
  try {
    if (makeIfMissing(path)) giveToParentsOwner(path);
  } catch (cause) {
    throw lockFailed(lockPath, reasonOf(cause), cause);
  }
}

function makeIfMissing(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 });
    return true;
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
  const stats = lstatSync(path);
  if (stats.isSymbolicLink()) throw new Error(`${path} is a symbolic link; make it a directory, or use lockDir`);
  if (!stats.isDirectory()) throw new Error(`${path} is not a directory; remove it, or use lockDir`);
  return false;
}

function giveToParentsOwner(path: string): void {
  const { uid } = statSync(dirname(path));
  if (process.geteuid?.() !== 0 || uid === 0) return;
  // By descriptor: the parent's owner could put something else at the path meanwhile.
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    if (fstatSync(fd).uid === 0) fchownSync(fd, uid, -1);
  } finally {
    closeSync(fd);
  }
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
