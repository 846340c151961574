// Every way in which a gateway is refused: one class, stable codes, and the exact words.

import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";
import { reachable } from "./listener/addresses.ts";
import type { HealthReport } from "./listener/health.ts";
import type { OwnerRecord } from "./lock/record.ts";
import type { NativeFailure } from "./native.ts";

/** Exit codes of a gateway and of the `gateway-lock` command. 75 is `EX_TEMPFAIL` and 78 `EX_CONFIG` of sysexits(3). */
export const EXIT: {
  readonly OK: 0;
  readonly FAILURE: 1;
  readonly NOT_RUNNING: 3;
  readonly UNKNOWN: 4;
  readonly DUPLICATE: 75;
  readonly SUPERVISED_DUPLICATE: 78;
  readonly TIMEOUT: 124;
} = Object.freeze({
  OK: 0,
  FAILURE: 1,
  NOT_RUNNING: 3,
  UNKNOWN: 4,
  DUPLICATE: 75,
  SUPERVISED_DUPLICATE: 78,
  TIMEOUT: 124,
});

/** See the table under Errors in the README for when each one occurs and what to do about it. */
export type GatewayLockErrorCode =
  | "ALREADY_LISTENING"
  | "ALREADY_RUNNING"
  | "BIND_FAILED"
  | "HANDOFF_FAILED"
  | "HANDOVER_FAILED"
  | "LOCK_UNSUPPORTED"
  | "LOCK_FAILED"
  | "LOCK_LOST"
  | "NOT_HEALTHY";

/** The process that the kernel says listens; a field is `null` where this user may not see it. */
export interface PortListener {
  readonly pid: number | null;
  readonly command: string | null;
}

/** What another gateway has, of what was to be this one's alone. */
export interface ConflictingResource {
  /** `other`: one of `locks`. */
  readonly role: "state" | "config" | "other";
  /** Its real path. */
  readonly path: string;
}

/** What an error knows beside its code; a field that is not known is missing. */
export interface GatewayLockErrorDetails {
  readonly cause?: unknown;
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly url?: string | undefined;
  readonly lockPath?: string | undefined;
  readonly resource?: ConflictingResource | undefined;
  readonly owner?: OwnerRecord | undefined;
  readonly listener?: PortListener | undefined;
  readonly health?: HealthReport | undefined;
  /** In place of what follows from the code. */
  readonly exitCode?: number | undefined;
}

/** The codes for which the same call may succeed later, when the other gateway has gone. */
const RETRYABLE: ReadonlySet<GatewayLockErrorCode> = new Set([
  "ALREADY_LISTENING",
  "ALREADY_RUNNING",
  "HANDOVER_FAILED",
]);

/**
 * Why a gateway may not run, or could not be told.
 *
 * `code` says which of the cases it is and never changes; `message` is for people. `cause` is the system's own error,
 * with its errno name in `cause.code` (`EADDRINUSE`, `EACCES`, …).
 */
export class GatewayLockError extends Error {
  override readonly name: string = "GatewayLockError";
  readonly code: GatewayLockErrorCode;
  /** Whether the same call may succeed later without anybody mending anything. */
  readonly retryable: boolean;
  /** What the process should exit with: 75 for a duplicate, 1 for a failure. See {@link EXIT}. */
  readonly exitCode: number;
  /** The address in conflict: a literal. */
  declare readonly host?: string;
  declare readonly port?: number;
  /** The address in conflict, as `scheme://host:port`. */
  declare readonly url?: string;
  declare readonly lockPath?: string;
  /** What the lock at `lockPath` stands for, where somebody else has it. */
  declare readonly resource?: ConflictingResource;
  /** The record of the gateway that has the lock. */
  declare readonly owner?: OwnerRecord;
  declare readonly listener?: PortListener;
  /** Of `NOT_HEALTHY`: what came of asking the owner for the last time. */
  declare readonly health?: HealthReport;

  constructor(
    code: GatewayLockErrorCode,
    message: string,
    { cause, exitCode, ...details }: GatewayLockErrorDetails = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retryable = RETRYABLE.has(code);
    this.exitCode = exitCode ?? (this.retryable ? EXIT.DUPLICATE : EXIT.FAILURE);
    for (const [key, value] of Object.entries(details)) {
      if (value !== undefined) Object.defineProperty(this, key, { value, enumerable: true });
    }
  }
}

/** `scheme://host:port` as a person would type it: a wildcard is shown as its loopback, IPv6 stands in brackets. */
export function formatUrl(scheme: string, host: string, port: number): string {
  const shown = reachable(host);
  return `${scheme}://${shown.includes(":") ? `[${shown}]` : shown}:${port}`;
}

interface Endpoint {
  readonly scheme: string;
  readonly host: string;
  readonly port: number;
}

export function alreadyListening({ scheme, host, port }: Endpoint, details: GatewayLockErrorDetails): GatewayLockError {
  const url = formatUrl(scheme, host, port);
  return new GatewayLockError("ALREADY_LISTENING", `another gateway instance is already listening on ${url}`, {
    host,
    port,
    url,
    ...details,
  });
}

export function alreadyRunning(
  pid: number | null,
  timeout: number,
  details: GatewayLockErrorDetails,
): GatewayLockError {
  return new GatewayLockError(
    "ALREADY_RUNNING",
    `gateway already running (pid ${pid ?? "unknown"}); lock timeout after ${timeout}ms`,
    details,
  );
}

export function bindFailed({ scheme, host, port }: Endpoint, reason: string, cause: unknown): GatewayLockError {
  const url = formatUrl(scheme, host, port);
  return new GatewayLockError("BIND_FAILED", `failed to bind gateway socket on ${url}: ${reason}`, {
    host,
    port,
    url,
    cause,
  });
}

export function handOffFailed(reason: string, details: GatewayLockErrorDetails = {}): GatewayLockError {
  return new GatewayLockError("HANDOFF_FAILED", `failed to hand the gateway socket to the server: ${reason}`, details);
}

/** What to do about the failures that are not the lock's own. */
const NEXT_STEPS: Readonly<Record<string, string>> = {
  EACCES: "; give this user access, or choose another directory (for a gateway by lockDir)",
  EPERM: "; give this user access, or choose another directory (for a gateway by lockDir)",
  EROFS: "; choose a writable directory (for a gateway by lockDir)",
  ENOSPC: "; free some space there",
  EDQUOT: "; free some space there",
  EMFILE: "; raise the limit of open files (ulimit -n)",
  EBUSY:
    "; another program has it open and shares it with nobody: close that program, or try again if it is a virus scanner",
  EAGAIN:
    "; every wait takes a thread: raise the limit of processes and threads (ulimit -u, or pids.max of the cgroup)",
};

export function lockFailed(lockPath: string, reason: string, cause?: unknown): GatewayLockError {
  const nextStep = NEXT_STEPS[codeOf(cause) ?? ""] ?? "";
  return new GatewayLockError("LOCK_FAILED", `failed to acquire gateway lock at ${lockPath}: ${reason}${nextStep}`, {
    lockPath,
    cause,
  });
}

export function lockUnsupported(
  { directory, type, lockPath }: { directory: string; type: string; lockPath: string },
  reason: string,
  cause?: unknown,
): GatewayLockError {
  return new GatewayLockError(
    "LOCK_UNSUPPORTED",
    `the filesystem at ${directory} (${type}) cannot hold a lock: ${reason}`,
    { lockPath, cause },
  );
}

export function lockLost(lockPath: string, how: string, cause?: unknown): GatewayLockError {
  return new GatewayLockError("LOCK_LOST", `the gateway lock at ${lockPath} was lost: ${how}`, { lockPath, cause });
}

export function handoverFailed(reason: string, details: GatewayLockErrorDetails): GatewayLockError {
  return new GatewayLockError("HANDOVER_FAILED", `the running gateway did not hand over: ${reason}`, details);
}

export function notHealthy(supervisor: string, ms: number, details: GatewayLockErrorDetails): GatewayLockError {
  return new GatewayLockError(
    "NOT_HEALTHY",
    `gateway already running under ${supervisor}; existing gateway did not become healthy after ${ms}ms`,
    details,
  );
}

/** The error that Node itself would have made of a failed system call: `code`, `errno` and `syscall`. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

/** Dresses a failure from the addon as Node dresses its own; `hint` goes into the message. */
export function systemError({ errno, syscall, system }: NativeFailure, subject: string, hint?: string): SystemError {
  const { code, number, description } = describeErrno(errno);
  const windows = system === undefined ? "" : ` (Windows error ${system})`;
  const message = `${code}: ${description}${windows}, ${syscall} ${subject}${hint === undefined ? "" : `; ${hint}`}`;
  return Object.assign(new Error(message), { code, errno: number, syscall });
}

/** libuv's number and words, for the errors that libuv knows: ENOLCK, for one, it does not. On Windows its numbers are its own. */
function describeErrno(errno: number): ErrnoWords {
  let words = wordsOf.get(errno);
  if (words === undefined) {
    words = findWords(errno);
    wordsOf.set(errno, words);
  }
  return words;
}

interface ErrnoWords {
  readonly code: string;
  readonly number: number;
  readonly description: string;
}
const wordsOf = new Map<number, ErrnoWords>();

function findWords(errno: number): ErrnoWords {
  const code = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
  if (code === undefined) return { code: `E${errno}`, number: -errno, description: "unknown system error" };
  for (const [number, [name, description]] of getSystemErrorMap())
    if (name === code) return { code, number, description };
  return { code, number: -errno, description: DESCRIPTIONS[code] ?? "system error" };
}

const DESCRIPTIONS: Readonly<Record<string, string>> = { ENOLCK: "no locks available", EDQUOT: "disk quota exceeded" };

/** What went wrong, in one line, for the end of a message. Node has no name for what libuv has none for. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message.replace(/^(Unknown system error -(\d+)): \1/, (_, _all, errno) => {
    const { code, description } = describeErrno(Number(errno));
    return `${code}: ${description}`;
  });
}

/** Fit for a terminal, in one line: what others have written may have control characters in it. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it takes out
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, " ");
}

/** "18800-18899,18901". */
export function formatPorts(ports: readonly number[]): string {
  const ranges: [number, number][] = [];
  for (const port of [...new Set(ports)].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && port === last[1] + 1) last[1] = port;
    else ranges.push([port, port]);
  }
  return ranges.map(([first, last]) => (first === last ? first : `${first}-${last}`)).join(",");
}

/** "ports 18800-18899, 18901". */
export function rangesOf(ports: readonly number[]): string {
  const text = formatPorts(ports).replaceAll(",", ", ");
  return /^\d+$/.test(text) ? `port ${text}` : `ports ${text}`;
}

/** As it is typed in a POSIX shell. */
export function quote(text: string): string {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** The errno name of a system error, else `undefined`. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
