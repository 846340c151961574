// The owner record: who holds the lock, in the lock file, for anybody to read.
//
// A file is not read atomically: while the owner writes 4096 bytes, a reader may see the first half of the new record
// and the second half of the old one, and now and then that is valid JSON. So the last field is a hash over all bytes
// before it. A reader that finds it wrong reads again; nobody ever acts on a record whose hash is wrong.

import { closeSync, constants, fstatSync, lstatSync, openSync, readSync } from "node:fs";
import { dirname } from "node:path";
import { digest } from "../digest.ts";
import { printable } from "../errors.ts";
import { parseAddress } from "../listener/addresses.ts";
import { isFailure, type LockEvidence, native } from "../native.ts";
import { checkPath, MAX_METADATA_BYTES, type Metadata, type Scheme } from "../options.ts";
import { filesystemOf } from "./filesystem.ts";

export type Phase = "starting" | "listening" | "ready" | "stopping";
export type Supervisor = "systemd" | "launchd" | "schtasks" | "pm2" | "kubernetes" | "docker";

/** The PID metadata in a lock file. An older program's record lacks some fields: those are `null`. */
export interface OwnerRecord {
  /** The owner's process id, in `pidNamespace`. */
  readonly pid: number;
  /** When that process started, in the system's own unit; on Linux field 22 of proc_pid_stat(5). */
  readonly startTime: number | null;
  /** A UUID for each acquisition. */
  readonly ownerId: string | null;
  /** ISO 8601. */
  readonly createdAt: string | null;
  readonly configPath: string | null;
  readonly stateDir: string | null;
  /** 0 while the kernel has not chosen yet. */
  readonly port: number | null;
  readonly host: string | null;
  readonly url: string | null;
  readonly phase: Phase | null;
  readonly hostname: string | null;
  readonly bootId: string | null;
  readonly pidNamespace: string | null;
  readonly supervisor: Supervisor | null;
  /** For example `node 24.9.0`. */
  readonly runtime: string | null;
  /** The version of gateway-lock that wrote it. */
  readonly version: string | null;
  /** `state-only`: the config's directory can't be written, so that another state directory is not kept off it. */
  readonly configLock: "exclusive" | "state-only" | null;
  readonly metadata: Metadata;
  /** The hash; `null` in an older program's record. */
  readonly check: string | null;
}

/** What `readOwner` finds. */
export interface OwnerReading {
  /** `null` where there is none, or none that can be understood. */
  readonly record: OwnerRecord | null;
  /** There is something, and it still was no whole record after five readings. */
  readonly torn: boolean;
  /** Whether somebody holds the lock; `null` where the kernel does not show enough to tell. */
  readonly locked: boolean | null;
  /** The pids of those who do, as far as this user may see. */
  readonly holders: number[];
}

export type OwnerFields = Omit<OwnerRecord, "check">;

/** The content is a multiple of this: one page, so that the single write does not straddle more than it must. */
const BLOCK = 4096;
/** No record of ours is larger: metadata of 2 KiB, and two paths of at most 4 KiB that JSON may write six times as long. */
const MAX_RECORD_BYTES = 65536;
const MAX_READINGS = 5;
const CHECKED = /^(.*),"check":"([0-9a-f]{16})"\}$/s;

function hash(text: string): string {
  return digest(text, 16);
}

/** The bytes of a record, padded to whole blocks and to at least `minBytes`: a record never shrinks while it is held. */
export function encodeRecord(fields: OwnerFields, minBytes = 0): { record: OwnerRecord; bytes: Buffer } {
  const body = JSON.stringify(fields).slice(0, -1);
  const check = hash(`${body}}`);
  const text = `${body},"check":"${check}"}`;
  const length = Buffer.byteLength(text);
  const padded = Math.max(Math.ceil(length / BLOCK) * BLOCK, minBytes);
  const bytes = Buffer.alloc(padded, " ");
  bytes.write(text);
  return { record: { ...fields, check }, bytes };
}

type Decoded = { kind: "record"; record: OwnerRecord } | { kind: "empty" | "foreign" } | { kind: "torn" };

/** Takes any text; never throws. "foreign" is whole JSON that is no owner record. */
export function decodeRecord(text: string): Decoded {
  const trimmed = text.trim();
  if (trimmed === "") return { kind: "empty" };
  let value: unknown;
  try {
    value = JSON.parse(trimmed);
  } catch {
    return { kind: "torn" };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return { kind: "foreign" };
  if (Object.hasOwn(value, "check")) {
    const [, body, check] = CHECKED.exec(trimmed) ?? [];
    if (body === undefined || hash(`${body}}`) !== check) return { kind: "torn" };
  }
  const record = recordFrom(value as Record<string, unknown>);
  return record === null ? { kind: "foreign" } : { kind: "record", record };
}

/** `null` as soon as a field has a type that no owner writes. */
function recordFrom(json: Record<string, unknown>): OwnerRecord | null {
  let valid = true;
  function field<T>(name: string, fits: (value: unknown) => boolean): T | null {
    const value = json[name] ?? null;
    if (value !== null && !fits(value)) valid = false;
    return value as T | null;
  }
  const text = (name: string) => field<string>(name, (value) => typeof value === "string");
  const integer = (name: string, max: number) =>
    field<number>(name, (value) => Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max);
  const oneOf = <T extends string>(name: string, values: readonly T[]) =>
    field<T>(name, (value) => (values as readonly unknown[]).includes(value));

  const record: Omit<OwnerRecord, "pid" | "metadata"> & { pid: number | null; metadata: Metadata | null } = {
    pid: integer("pid", 2 ** 31 - 1),
    startTime: integer("startTime", Number.MAX_SAFE_INTEGER),
    ownerId: text("ownerId"),
    createdAt: text("createdAt"),
    configPath: text("configPath"),
    stateDir: text("stateDir"),
    port: integer("port", 65535),
    host: text("host"),
    url: text("url"),
    phase: oneOf("phase", ["starting", "listening", "ready", "stopping"]),
    hostname: text("hostname"),
    bootId: text("bootId"),
    pidNamespace: text("pidNamespace"),
    supervisor: oneOf("supervisor", ["systemd", "launchd", "schtasks", "pm2", "kubernetes", "docker"]),
    runtime: text("runtime"),
    version: text("version"),
    configLock: oneOf("configLock", ["exclusive", "state-only"]),
    metadata: field<Metadata>("metadata", isMetadata),
    check: text("check"),
  };
  if (!valid || !record.pid) return null;
  return { ...record, pid: record.pid, metadata: record.metadata ?? {} };
}

/** No owner writes more than 2 KiB, which also bounds how deep it can be: whoever prints a deeper one runs out of stack. */
function isMetadata(value: unknown): boolean {
  if (typeof value !== "object" || Array.isArray(value)) return false;
  try {
    return Buffer.byteLength(JSON.stringify(value)) <= MAX_METADATA_BYTES;
  } catch {
    return false;
  }
}

/** The record alone, without asking who holds the lock. */
export function readRecord(lockPath: string): { record: OwnerRecord | null; torn: boolean } {
  let last: string | null = null;
  let same = 1;
  for (let reading = 1; reading <= MAX_READINGS; reading++) {
    const text = readText(lockPath);
    if (text === null) return { record: null, torn: false };
    const decoded = decodeRecord(text);
    if (decoded.kind === "empty") return { record: null, torn: false };
    if (decoded.kind === "record" && decoded.record.check !== null) return { record: decoded.record, torn: false };
    same = text === last ? same + 1 : 1;
    // Without a hash, a record proves itself whole by staying the same. One of ours has lost its hash, and has more to prove.
    const ours = decoded.kind === "record" && decoded.record.version !== null;
    if (decoded.kind !== "torn" && same === (ours ? MAX_READINGS : 2)) {
      return { record: decoded.kind === "record" ? decoded.record : null, torn: false };
    }
    last = text;
    if (reading > 1) pauseBriefly();
  }
  return { record: null, torn: true };
}

/** Lets a writer that was interrupted finish. 1 ms, and only after a second reading that is no whole record. */
function pauseBriefly(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
}

/** One for all: nothing comes between reading and decoding. */
let readBuffer: Buffer | undefined;

/** `null` where there is no file that this user may read. A file that is too large for a record is read as torn. */
function readText(lockPath: string): string | null {
  let fd: number;
  try {
    // Opening a FIFO would wake whoever waits at its other end.
    if (!lstatSync(lockPath).isFile()) return null;
    fd = openSync(lockPath, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return null;
  }
  try {
    if (!fstatSync(fd).isFile()) return null;
    readBuffer ??= Buffer.allocUnsafe(MAX_RECORD_BYTES);
    const count = readSync(fd, readBuffer, 0, readBuffer.length, 0);
    return readBuffer.toString("utf8", 0, count);
  } catch {
    return null;
  } finally {
    closeSync(fd);
  }
}

/**
 * Who owns the lock at `lockPath`: what its record says, and what the kernel says. It only looks: it takes no lock that
 * a starting gateway could meet, and changes nothing. It does not throw for what it finds in the file.
 *
 * `holders` come from `/proc/PID/fdinfo` (proc_pid_fdinfo(5)), which this user may read for its own processes only,
 * unless it is root. `locked: false` is said only where nobody on this host can hold it.
 */
export function readOwner(lockPath: string): OwnerReading {
  checkPath("lockPath", lockPath);
  const { record, torn } = readRecord(lockPath);
  const [evidence] = lockEvidence([lockPath], record === null ? [] : [record.pid]);
  return { record, torn, ...(evidence as LockEvidence) }; // one for each path
}

export interface Endpoint {
  readonly scheme: string;
  readonly host: string;
  readonly port: number;
}

/** Where a record's owner listens. What stands in the file is checked: it goes into messages and a connection. */
export function endpointOf({ host, port, url }: OwnerRecord, scheme: Scheme): Endpoint | null {
  if (port === null || port === 0) return null;
  const [, recorded = scheme] = /^(wss?|https?):\/\//.exec(url ?? "") ?? [];
  return { scheme: recorded, host: parseAddress(host ?? "") ?? "127.0.0.1", port };
}

/** For each of these files and directories, whether somebody has the lock on it, and who. The processes in `hints` are looked at first. */
export function lockEvidence(paths: readonly string[], hints: readonly number[]): LockEvidence[] {
  return native()
    .findLockHolders(paths, hints, false)
    .map(({ locked, holders }, index) => {
      const isUncertain = locked === false && isShared(paths[index] ?? "");
      return { locked: isUncertain ? null : locked, holders };
    });
}

/** Whether another host could hold a lock here that this kernel does not know. */
function isShared(lockPath: string): boolean {
  try {
    return filesystemOf(dirname(lockPath)).network;
  } catch {
    return false;
  }
}

export interface HostIdentity {
  readonly bootId: string | null;
  readonly pidNamespace: string | null;
}

let host: HostIdentity | undefined;

/** Where this process's pids mean something: the same as long as it lives (pid_namespaces(7): unshare(2) and setns(2) concern children only). */
export function identifyHost(): HostIdentity {
  if (host !== undefined) return host;
  const found = native().identifyHost();
  // What can't be read now may be read later: where there are no descriptors left, say.
  if (found.bootId !== null && found.pidNamespace !== null) host = found;
  return found;
}

let ownStartTime: number | null = null;

/** For this process's own record. */
export function startTimeOfThis(): number | null {
  ownStartTime ??= startTimeOf(process.pid);
  return ownStartTime;
}

/** Whether the process that wrote a record is still there. `unknown`: its pid means nothing here. */
export type Liveness = "alive" | "gone" | "unknown";

/** By pid, start time, boot and pid namespace; a field that the record lacks contradicts nothing. */
export function livenessOf(record: OwnerRecord): Liveness {
  const here = identifyHost();
  if (contradicts(record.bootId, here.bootId)) return "gone";
  if (contradicts(record.pidNamespace, here.pidNamespace)) return "unknown";
  const startTime = native().identifyProcess(record.pid);
  if (startTime === null) return "gone";
  if (isFailure(startTime)) return "unknown";
  // 0: a process that procfs hides from us, of which only kill(2) knows. Without procfs it is not known either whose number that is.
  if (startTime === 0 && here.pidNamespace === null && record.pidNamespace !== null) return "unknown";
  return startTime !== 0 && contradicts(record.startTime, startTime) ? "gone" : "alive";
}

/** For a record; `null` where the system does not say. */
export function startTimeOf(pid: number): number | null {
  const startTime = native().identifyProcess(pid);
  return isFailure(startTime) ? null : startTime;
}

/** Where a record's pid means something, if that is not here: in words, to come after "an owner". */
export function whereaboutsOf({ bootId, pidNamespace, hostname }: OwnerRecord): string | null {
  const here = identifyHost();
  const name = hostname ? printable(hostname).slice(0, MAX_NAME_LENGTH) : "";
  if (contradicts(bootId, here.bootId))
    return `on another host, or of an earlier boot${name === "" ? "" : ` (${name})`}`;
  const isElsewhere = pidNamespace !== null && pidNamespace !== here.pidNamespace;
  if (!isElsewhere) return null;
  const number = printable(pidNamespace).slice(0, MAX_NAME_LENGTH);
  return `in another pid namespace (${number}${name === "" ? "" : `, host name ${name}`}), a container say`;
}

/** Anything may stand in a record; a name is no longer than that (HOST_NAME_MAX, limits.h). */
const MAX_NAME_LENGTH = 64;

function contradicts<T>(recorded: T | null, actual: T | null): boolean {
  return recorded !== null && actual !== null && recorded !== actual;
}
