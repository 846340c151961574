// Where a lock lies: it follows from the resource alone, so that everyone who could harm it meets at one file.

import {
  accessSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  opendirSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  statSync,
} from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { digest } from "../digest.ts";
import { codeOf, GatewayLockError, lockFailed, reasonOf } from "../errors.ts";
import type { Placement } from "../options.ts";

/** Something that one gateway alone may use, and the lock file that stands for it. */
export interface Resource {
  readonly role: "state" | "config" | "other";
  /** Its real path. */
  readonly path: string;
  /** Whether it is a directory, which is then locked itself as well. */
  readonly isDirectory: boolean;
  /** The directory that the lock file lies in, made when it is locked. */
  readonly lockDirectory: string;
  readonly lockPath: string;
  /** The lock to take where `lockDirectory` turns out to be unwritable: it keeps only this state directory off. */
  readonly fallbackLockPath: string | null;
}

const LOCKS = "locks";
const STATE_LOCK = "gateway.state.lock";
const DEFAULT_CONFIG = "gateway.json";
/** What a directory is called that is made for an instant, to find something out. */
const PROBE = ".gateway-lock-";
const MAX_LINKS = 40; // as path_resolution(7)

/**
 * How the filesystem is asked. A contender makes what is missing, and refuses what can be no gateway's. An onlooker leaves
 * everything as it is, and takes for real what it can't resolve: whatever is wrong there, no gateway has it.
 */
interface Ground {
  directory(path: string): string;
  /** `known` is the real path of a directory. */
  config(path: string, known: string): string;
  other(path: string): { readonly path: string; readonly isDirectory: boolean };
  ignoresCase(directory: string): boolean;
}

const CONTENDER: Ground = {
  directory: realDirectory,
  config: (path, known) => realConfig(path, known, realDirectory),
  other: realExisting,
  ignoresCase,
};

const ONLOOKER: Ground = {
  directory: (path) => nearestReal(path),
  config: (path, known) => attempt(() => realConfig(path, known, nearestReal)) ?? nearestReal(path),
  other: (path) => attempt(() => realExisting(path)) ?? { path: nearestReal(path), isDirectory: false },
  ignoresCase: seemsToIgnoreCase,
};

/**
 * The resources in the order in which every contender locks them: state, config, the others by real path. Makes the
 * state directory, the config's directory and `lockDir` where they are missing, and nothing else.
 *
 * @throws GatewayLockError `LOCK_FAILED`
 */
export function resolveResources(options: Placement): readonly Resource[] {
  try {
    return resolveAll(options, CONTENDER);
  } catch (cause) {
    if (cause instanceof GatewayLockError) throw cause;
    throw lockFailed(resolve(options.stateDir), reasonOf(cause), cause);
  }
}

/** The same resources for somebody who only looks: makes nothing, and does not throw for what is not there. */
export function locateResources(options: Placement): readonly Resource[] {
  return resolveAll(options, ONLOOKER);
}

function resolveAll(options: Placement, ground: Ground): readonly Resource[] {
  const stateDir = ground.directory(options.stateDir);
  const lockDir = options.lockDir === null ? null : ground.directory(options.lockDir);
  const stateLocks = lockDir ?? join(stateDir, LOCKS);
  const place = (path: string, isDirectory: boolean, role: Resource["role"]): Resource => {
    const home = lockDir ?? join(isDirectory ? path : dirname(path), LOCKS);
    const name = lockName(path, isDirectory, lockDir !== null, ground);
    const needsFallback = role === "config" && home !== stateLocks;
    const fallback = needsFallback ? join(stateLocks, hashedName(pathToHash(path, ground))) : null;
    return { role, path, isDirectory, lockDirectory: home, lockPath: join(home, name), fallbackLockPath: fallback };
  };
  const others = options.locks.map(ground.other).sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  const all = [
    place(stateDir, true, "state"),
    place(ground.config(options.configPath ?? join(stateDir, DEFAULT_CONFIG), stateDir), false, "config"),
    ...others.map(({ path, isDirectory }) => place(path, isDirectory, "other")),
  ];
  if (others.length === 0) return all; // a directory and a file: never one resource
  // The same resource twice is one lock, at its first place; also by two paths, through a bind mount.
  const identities = all.map((resource) => identityOf(resource, ground));
  return all.filter((_, index) => identities.indexOf(identities[index] ?? "") === index);
}

/** Equal for two names of one file or directory. For somebody who only looks. */
export function identify(resource: Pick<Resource, "path" | "isDirectory">): string {
  return identityOf(resource, ONLOOKER);
}

/** What is locked for a resource: two that have one of these in common exclude each other. For somebody who only looks. */
export function lockIdentities(resource: Resource): string[] {
  const { path, isDirectory, lockPath, fallbackLockPath } = resource;
  const isElsewhere = fallbackLockPath !== null && isDenied(resource);
  const file = identify({ path: isElsewhere ? fallbackLockPath : lockPath, isDirectory: false });
  return isDirectory ? [file, identify({ path, isDirectory })] : [file];
}

/** Whether this user can neither make the lock directory nor write to it. On Windows that is only known by trying, and not told. */
function isDenied({ lockDirectory }: Resource): boolean {
  const home = dirname(lockDirectory);
  return process.platform !== "win32" && existsSync(home) && !isWritable(home) && !isWritable(lockDirectory);
}

/** A directory's device and inode, which a bind mount does not change. A file, and what is missing, is a name in such a directory. */
function identityOf({ path, isDirectory }: Pick<Resource, "path" | "isDirectory">, ground: Ground): string {
  const stats = isDirectory ? attempt(() => statSync(path, { bigint: true })) : null;
  if (stats !== null) return `${stats.dev}:${stats.ino}`;
  const parent = dirname(path);
  if (parent === path) return path;
  return `${identityOf({ path: parent, isDirectory: true }, ground)}/${foldedName(path, ground)}`;
}

function lockName(path: string, isDirectory: boolean, byRealPath: boolean, ground: Ground): string {
  if (!byRealPath) return isDirectory ? STATE_LOCK : hashedName(foldedName(path, ground));
  return isDirectory ? `gateway.state.${hash(pathToHash(path, ground))}.lock` : hashedName(pathToHash(path, ground));
}

function hashedName(text: string): string {
  return `gateway.${hash(text)}.lock`;
}

let lastHashed = { text: "", hash: "" };

/** It usually is the same config each time. */
function hash(text: string): string {
  if (lastHashed.hash === "" || lastHashed.text !== text) lastHashed = { text, hash: digest(text, 8) };
  return lastHashed.hash;
}

/** The real path, with its last part folded where its directory ignores case. */
function pathToHash(path: string, ground: Ground): string {
  return path === "/" ? path : join(dirname(path), foldedName(path, ground));
}

function foldedName(path: string, ground: Ground): string {
  const name = basename(path);
  const folded = name.normalize("NFC").toLowerCase();
  return folded !== name && ground.ignoresCase(dirname(path)) ? folded : name;
}

/**
 * Asks for something that is there by another spelling: ext4 can fold per directory, so the filesystem's type says
 * little. The answer must not depend on what happens to lie there, so where there is no `locks` yet, it is asked with a
 * directory of our own.
 */
function ignoresCase(directory: string): boolean {
  const known = isSameBySpelling(directory, LOCKS);
  if (known !== null) return known;
  let probe: string;
  try {
    probe = mkdtempSync(join(directory, PROBE));
  } catch {
    return false; // nothing of ours is there, and nothing can be made
  }
  try {
    return isSameBySpelling(directory, basename(probe)) ?? false;
  } finally {
    try {
      rmdirSync(probe);
    } catch {
      // Whoever was quicker to tidy up is welcome.
    }
  }
}

/**
 * Whether a directory ignores case, as far as it can be told without making anything: by `locks`, else by whatever else lies there. An empty directory has no lock
 * files, so a guess is enough; on ext4 it folds as the one it was made in does (ext4(5), casefold).
 */
export function seemsToIgnoreCase(directory: string): boolean {
  const known = attempt(() => isSameBySpelling(directory, LOCKS)) ?? attempt(() => firstAnswer(directory));
  if (known !== null) return known;
  const parent = dirname(directory);
  return parent !== directory && seemsToIgnoreCase(parent);
}

function firstAnswer(directory: string): boolean | null {
  const entries = opendirSync(directory);
  try {
    for (let entry = entries.readSync(); entry !== null; entry = entries.readSync()) {
      const answer = isSameBySpelling(directory, entry.name);
      if (answer !== null) return answer;
    }
    return null;
  } finally {
    entries.closeSync();
  }
}

/** `null` where there is no such name, or it proves nothing: a file may have the other spelling as a second hard link. */
function isSameBySpelling(directory: string, name: string): boolean | null {
  const other = name.replace(/[a-z]/gi, (letter) => (letter < "a" ? letter.toLowerCase() : letter.toUpperCase()));
  const options = { bigint: true, throwIfNoEntry: false } as const;
  const here = lstatSync(join(directory, name), options);
  if (other === name || here === undefined || (!here.isDirectory() && here.nlink !== 1n)) return null;
  const there = lstatSync(join(directory, other), options);
  return there !== undefined && here.dev === there.dev && here.ino === there.ino;
}

/** The real path of a directory that is made (0700) where it is missing. */
function realDirectory(path: string): string {
  try {
    makeDirectory(path);
    const real = realpathSync.native(path);
    accessSync(real, constants.X_OK);
    return real;
  } catch (cause) {
    throw lockFailed(resolve(path), reasonOf(cause), cause);
  }
}

/** Level by level: with `recursive`, Node never comes back where the kernel says ENOENT whatever is made above, as in /proc. */
function makeDirectory(path: string, isAgain: boolean = false): void {
  if (isDirectoryAt(path)) return;
  const parent = dirname(path);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    const code = codeOf(error);
    if (code === "EEXIST") {
      if (isDirectoryAt(path)) return; // somebody was quicker
      const isDangling = lstatSync(path).isSymbolicLink() && !existsSync(path);
      const problem = isDangling
        ? "it is a symbolic link to a directory that does not exist; make that directory"
        : "it is not a directory";
      throw new Error(problem, { cause: error });
    }
    if (code !== "ENOENT" || parent === path || isAgain) throw error;
    makeDirectory(parent);
    makeDirectory(path, true);
  }
}

function isDirectoryAt(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    // ENOTDIR: mkdir(2) will say so. Whether that is an error to statSync's throwIfNoEntry depends on Node's version.
    if (["ENOENT", "ENOTDIR"].includes(codeOf(error) ?? "")) return false;
    throw error;
  }
}

function realExisting(path: string): { path: string; isDirectory: boolean } {
  try {
    const real = realpathSync.native(path);
    const stats = statSync(real);
    if (!stats.isDirectory() && !stats.isFile()) throw new Error("it is neither a file nor a directory");
    return { path: real, isDirectory: stats.isDirectory() };
  } catch (cause) {
    const hint = codeOf(cause) === "ENOENT" ? "; create it first" : "";
    throw lockFailed(resolve(path), `${reasonOf(cause)}${hint}`, cause);
  }
}

/**
 * The real path of a file that need not exist: that of its directory, and the name. A dangling link is its target, in a directory that exists: none is made where
 * a link says. `..` is the kernel's to resolve.
 */
function realConfig(path: string, known: string, directoryAt: Ground["directory"]): string {
  // Windows takes it out before it looks anywhere.
  let current = process.platform === "win32" ? resolve(path) : path.replace(/(?!^)\/+$/, "");
  // The usual one, which is not there: an error would take longer than all of this.
  if (dirname(current) === known && attempt(() => lstatSync(current, { throwIfNoEntry: false }) === undefined))
    return join(known, basename(current));
  for (let links = 0; links <= MAX_LINKS; links++) {
    try {
      refusePlantedLink(current);
      const real = realpathSync.native(current);
      if (statSync(real).isDirectory()) throw new Error("the config is a directory");
      return real;
    } catch (cause) {
      if (codeOf(cause) !== "ENOENT") throw lockFailed(resolve(current), reasonOf(cause), cause);
    }
    const directory = links === 0 ? directoryAt(dirname(current)) : realExisting(dirname(current)).path;
    const target = lstatSync(current, { throwIfNoEntry: false })?.isSymbolicLink() ? readlinkSync(current) : null;
    if (target === null) return join(directory, basename(current));
    current = isAbsolute(target) ? target : `${directory}/${target}`;
  }
  throw lockFailed(resolve(path), "too many symbolic links");
}

const STICKY_FOR_ALL = 0o1002;

/** As the kernel does where it is told to (protected_symlinks in proc_sys_fs(5)), and we must, who follow links by ourselves. */
function refusePlantedLink(path: string): void {
  const link = lstatSync(path, { throwIfNoEntry: false });
  const user = process.geteuid?.();
  if (link?.isSymbolicLink() !== true || user === undefined || link.uid === user) return;
  const { mode, uid } = statSync(dirname(path));
  if ((mode & STICKY_FOR_ALL) !== STICKY_FOR_ALL || link.uid === uid) return;
  throw new Error(`it is a symbolic link that user ${link.uid} has put into a directory of all users; remove it`);
}

/**
 * The real path as far as there is one. As the kernel reads it: `..` comes after the links that lead there, and is taken out
 * of a name only behind what is missing.
 */
function nearestReal(path: string, links: number = MAX_LINKS): string {
  const real = attempt(() => realpathSync.native(path));
  if (real !== null) return real;
  const parent = dirname(path);
  if (parent === path) return resolve(path);
  const above = nearestReal(parent, links);
  const target = links === 0 ? null : attempt(() => readlinkSync(path));
  if (target === null) return join(above, basename(path));
  return nearestReal(isAbsolute(target) ? target : `${above}/${target}`, links - 1);
}

function attempt<T>(action: () => T): T | null {
  try {
    return action();
  } catch {
    return null;
  }
}

/** Whether this user could make files in `directory`. */
export function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK | constants.X_OK);
    // On Windows that is about the read-only attribute, and the access control list is known by trying only.
    if (process.platform === "win32") rmdirSync(mkdtempSync(join(directory, PROBE)));
    return true;
  } catch {
    return false;
  }
}
