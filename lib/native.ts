// The addon: what it offers, and what to do where there is none.

import { createRequire } from "node:module";
import { dirname, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** A system call that failed. `errno` is positive, as in the manual pages; `system` is Windows' own number. */
export interface NativeFailure {
  readonly errno: number;
  readonly syscall: string;
  readonly system?: number;
}

/** The call that a lock is refused by. */
export const LOCK_SYSCALL: string = process.platform === "win32" ? "LockFileEx" : "flock";

/** Why a path is refused; native/file_lock.h says more. */
export type Hazard =
  | "symbolic-link"
  | "reparse-point"
  | "directory"
  | "not-regular"
  | "hard-links"
  | "foreign-owner"
  | "writable-directory"
  | "not-directory";

export type NotLocked = { readonly status: "refused"; readonly hazard: Hazard } | { readonly status: "not-exclusive" };

/** A number is the descriptor of a lock. A held file has an `fd` if the caller wants to wait for it. */
export type LockAttempt =
  | number
  | { readonly status: "locked"; readonly fd: number; readonly empty: boolean }
  | { readonly status: "held"; readonly fd?: number }
  | NotLocked;

/** What came of a wait, if not the lock. "replaced" has the lock on something that is not at the path any more. */
export type WaitEnd = { readonly status: "cancelled" } | { readonly status: "replaced" } | NotLocked | NativeFailure;

/** What the kernel says of a lock; `locked: null`: it does not say. */
export interface LockEvidence {
  readonly locked: boolean | null;
  readonly holders: number[];
}

export interface BoundSocket {
  readonly fd: number;
  readonly address: string;
  readonly family: "IPv4" | "IPv6";
  readonly port: number;
}

export type PortUse = "listening" | "bound" | "connected";

export interface PortSocket {
  readonly address: string;
  readonly family: "IPv4" | "IPv6";
  /** False also where the system does not say; then it may take IPv4. */
  readonly v6only: boolean;
  /** For `findSocketOwners`; 0 where there is none. */
  readonly id: number;
}

/** A TCP socket that this process was started with. */
export interface InheritedSocket {
  readonly address: string;
  readonly family: "IPv4" | "IPv6";
  readonly port: number;
  readonly v6only: boolean;
  readonly listening: boolean;
  /** Anybody of the same user may listen beside it. */
  readonly reusePort: boolean;
}

/** Whoever is at the other end of a Unix socket: when it connected, or began to listen. `pid` is 0 where it means nothing here. */
export interface Peer {
  readonly user: number;
  readonly pid: number;
}

/** No data: the other end is closed. The descriptors are closed by `closeFile`. */
export interface LocalMessage {
  readonly data: Buffer;
  readonly descriptors: readonly number[];
}

/** What the system says of a filesystem: its name and whether it is remote, or only a number (Linux). */
export interface FilesystemFacts {
  readonly type: string;
  readonly remote: boolean | null;
  readonly number: number;
}

/**
 * The contracts stand in native/*.h. A descriptor that comes from here stays the addon's: it is closed by `closeFile` or
 * `closeSocket` or with the environment, and a number that the addon does not have open is EBADF.
 */
export interface Native {
  /** With `selfTest` the lock is an object, which says whether the file is empty. */
  tryLockFile(path: string, selfTest: boolean, toWait: boolean): LockAttempt | NativeFailure;
  /** To the owner of the directory that it lies in, if it is root's own. POSIX. */
  giveDirectory(path: string): undefined | NativeFailure;
  /** False: a lock file that is open can't be deleted or moved, nor the directories that it lies in, and these are not locked. */
  readonly locksDirectories: boolean;
  tryLockDirectory(path: string, toWait: boolean): LockAttempt | NativeFailure;
  /**
   * Waits for the lock on `fd`, which was opened at `path`, on a thread of its own. `done` is called once, when the wait has
   * ended: with `null` when it is locked. Until then, `fd` is of use for `checkLock` and `cancelWait` alone.
   */
  startWait(
    fd: number,
    path: string,
    selfTest: boolean,
    done: (end: WaitEnd | null, empty: boolean) => void,
  ): undefined | NativeFailure;
  cancelWait(fd: number): undefined | NativeFailure;
  /** Whether all of them are; `paths` are in one string, each ended by a NUL. */
  areCurrent(fds: Int32Array, paths: string): boolean;
  checkLock(fd: number, path: string): "current" | "missing" | "replaced" | NativeFailure;
  writeRecord(fd: number, data: Uint8Array, cut: boolean): undefined | NativeFailure;
  /** Whether `path` is deleted with the lock, also when the environment or the process ends with it held; `""` = it is not. */
  removeAtEnd(fd: number, path: string): void;
  /**
   * Deletes what removeAtEnd() has named, and closes `fd`. The lock is freed in any case; with `unlocks` also where a child process has the
   * descriptor too. A failure is that of the deletion.
   */
  releaseLock(fd: number, unlocks: boolean): undefined | NativeFailure;
  closeFile(fd: number): void;
  listen(host: string, port: number, backlog: number, dualStack: boolean): BoundSocket | NativeFailure;
  guard(host: string, port: number, backlog: number, dualStack: boolean): BoundSocket | NativeFailure;
  rouse(fd: number, backlog: number): undefined | NativeFailure;
  silence(fd: number): undefined | NativeFailure;
  /** A second descriptor, for the runtime: `adoptDuplicate` says that it has taken it, `closeDuplicate` that it has not. */
  duplicate(fd: number): number | NativeFailure;
  adoptDuplicate(duplicate: number): void;
  closeDuplicate(duplicate: number): void;
  closeSocket(fd: number): void;
  identifyProcess(pid: number): number | null | NativeFailure;
  describeCommand(pid: number): string;
  identifyHost(): { readonly bootId: string | null; readonly pidNamespace: string | null };
  /** For each path; the processes in `hints` are looked at first. `firstOnly`: one holder of each is enough. */
  findLockHolders(paths: readonly string[], hints: readonly number[], firstOnly: boolean): readonly LockEvidence[];
  findPortSockets(port: number, use: PortUse): PortSocket[] | NativeFailure;
  /** Who gets what is sent to that address. ENOENT: nobody listens; anything else: it can't be told. */
  findListener(address: string, port: number): PortSocket | NativeFailure;
  /** For each id; `null`: none that this user may see. The processes in `hints` are looked at first. */
  findSocketOwners(ids: readonly number[], hints: readonly number[]): readonly (number | null)[];
  /** A handle that goes on meaning this very process when its number is another's. ESRCH: there is none; ENOSYS: no such handles here. */
  openProcess(pid: number): number | NativeFailure;
  /** ENOTSUP where the handle can only be waited for. ESRCH: it has ended, and its parent has been told. */
  signalProcess(process: number, signal: number): undefined | NativeFailure;
  /**
   * `done` is called once, when the process has ended. Keeps the event loop alive until then, or until `closeProcess`. EBUSY: somebody
   * waits by this handle already.
   */
  awaitExit(process: number, done: () => void): undefined | NativeFailure;
  closeProcess(process: number): void;
  /** One datagram to a Unix socket (sd_notify(3)); an address that begins with "@" is abstract. */
  notify(socket: string, message: string): undefined | NativeFailure;
  /** Begins to count, for each of these signals, those that a process has sent, not the kernel for a terminal. Its handler must be installed. */
  countSentSignals(signals: readonly number[]): undefined | NativeFailure;
  /** How many came since the last call. */
  takeSentSignals(signal: number): number;
  /** What a descriptor is that this process was started with; takes nothing. */
  describeSocket(fd: number): InheritedSocket | NativeFailure;
  /** A duplicate of it, as a socket of ours. */
  adoptSocket(fd: number): BoundSocket | NativeFailure;
  /** A duplicate of it, as a lock of ours, if it has the lock on what is at `path`. */
  adoptLock(fd: number, path: string, selfTest: boolean): LockAttempt | { readonly status: "replaced" } | NativeFailure;
  /** Readies a listening TCP socket for programs that expect accept(2) to wait, as the systemd protocol has it. */
  lendSocket(fd: number): undefined | NativeFailure;
  /** A Unix socket at `path`, whose name goes with `closeSocket`, and with the end of the environment or the process. */
  listenLocal(path: string): number | NativeFailure;
  connectLocal(path: string): number | NativeFailure;
  acceptLocal(fd: number): number | NativeFailure;
  identifyPeer(fd: number): Peer | NativeFailure;
  /** How many bytes were taken. The descriptors, at most 253 of ours, go with the first one, or not at all. */
  sendLocal(fd: number, data: Uint8Array, descriptors: readonly number[]): number | NativeFailure;
  receiveLocal(fd: number): LocalMessage | NativeFailure;
  /** `done` is called once, when something has come; not after `closeSocket`. Keeps nothing alive. EBUSY: somebody waits for it already. */
  awaitSocket(fd: number, done: () => void): undefined | NativeFailure;
  /** A byte that exactly one of those who have this descriptor can take. */
  makeBaton(): number | NativeFailure;
  takeBaton(fd: number): boolean | NativeFailure;
  describeFilesystem(directory: string): FilesystemFacts | NativeFailure;
}

export function isFailure(result: unknown): result is NativeFailure {
  return typeof result === "object" && result !== null && "syscall" in result;
}

/** The package's own folder: this file lies in lib/ or dist/. */
const ROOT: string = dirname(dirname(fileURLToPath(import.meta.url)));

/** Where there are sources to build from, and what builds them. */
const COMPILERS: { readonly [platform: string]: string } = {
  linux: "a C++ compiler, make",
  darwin: "the Xcode Command Line Tools",
  win32: "the Visual Studio Build Tools for C++",
};

// At import, so that the first refusal is as quick as the next one. Importing never fails: what can't be loaded is said
// when it is needed.
let loaded: Native | Error = load();

/**
 * The addon.
 *
 * @throws Error `ERR_GATEWAY_LOCK_ADDON` where this package has no binary that fits, with the command that builds one.
 */
export function native(): Native {
  if (loaded instanceof Error) loaded = load();
  if (loaded instanceof Error) throw loaded;
  return loaded;
}

function load(): Native | Error {
  const require = createRequire(import.meta.url);
  try {
    const { resolve } = require("node-gyp-build") as { resolve(folder: string): string };
    const path = resolve(ROOT);
    // GATEWAY_LOCK_PREBUILD leads anywhere, and so does a `prebuilds` beside Node's own binary.
    if (!path.startsWith(ROOT.endsWith(sep) ? ROOT : ROOT + sep))
      throw new Error(`it would come from ${path}, outside of the package`);
    return require(path) as Native;
  } catch (cause) {
    return Object.assign(new Error(explain(cause as NodeJS.ErrnoException), { cause }), {
      code: "ERR_GATEWAY_LOCK_ADDON",
    });
  }
}

function explain({ code, message, resource }: NodeJS.ErrnoException & { readonly resource?: string }): string {
  const libc = process.platform === "linux" ? ` (${libcName()})` : "";
  const target = `${process.platform}-${process.arch}${libc}`;
  if (code === "ERR_DLOPEN_DISABLED")
    return "gateway-lock needs its native addon, and this process may load none: run Node with --allow-addons";
  if (code === "ERR_ACCESS_DENIED")
    return `gateway-lock looks for its native addon and may not read ${resource}: run Node with --allow-fs-read for it`;
  if (COMPILERS[process.platform] === undefined)
    return `gateway-lock does not support ${target}, where it knows no lock to rely on; see Install in its README`;
  const { GATEWAY_LOCK_PREBUILD } = process.env;
  if (GATEWAY_LOCK_PREBUILD)
    return "gateway-lock loads its native addon from its own package only, and GATEWAY_LOCK_PREBUILD is set in its environment: unset it";
  // node-gyp-build has no code for it.
  const problem = message.startsWith("No native build was found")
    ? `has no native addon for ${target}`
    : `has a native addon for ${target} that does not load (${message.split("\n")[0]})`;
  // node-gyp-build is told by it.
  const { LIBC } = process.env;
  if (libc !== "" && LIBC !== undefined && LIBC !== libcName())
    return `gateway-lock ${problem}, because LIBC=${LIBC} is set in its environment and this Node uses ${libcName()}: unset it`;
  const npm = `npm --prefix "${ROOT}"`;
  return (
    `gateway-lock ${problem}; build it with ${COMPILERS[process.platform]} and Python 3: ` +
    `${npm} install --ignore-scripts && ${npm} run build:native`
  );
}

function libcName(): string {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return report?.header?.glibcVersionRuntime === undefined ? "musl" : "glibc";
}
