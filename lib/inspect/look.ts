// What can be seen of a gateway without touching it: its locks and their holders, the record, and who listens on its port.
//
// A look is not one moment: processes come and go while they are looked through. So a picture counts only once a second
// look has shown the same, unless it proves itself.

import { accessSync, constants, statSync } from "node:fs";
import { codeOf } from "../errors.ts";
import { targetsFor } from "../listener/addresses.ts";
import { findListeners, type SeenListener } from "../listener/port-owner.ts";
import {
  type Endpoint,
  endpointOf,
  type Liveness,
  livenessOf,
  lockEvidence,
  type OwnerRecord,
  readRecord,
} from "../lock/record.ts";
import { locateResources, type Resource } from "../lock/resources.ts";
import { pause } from "../lock/wait.ts";
import { type LockEvidence, native } from "../native.ts";
import { DEFAULT_PORT, type ResolvedInspection } from "../options.ts";

/** A lock file, or a directory that is locked itself. */
export interface SeenLock {
  readonly resource: Resource;
  readonly path: string;
  readonly isFile: boolean;
  readonly record: OwnerRecord | null;
  readonly torn: boolean;
  /** Why this user can't read what may stand there, `EACCES` say; `null` where it was read, or is not there. */
  readonly unreadable: string | null;
  readonly locked: boolean | null;
  readonly holders: readonly number[];
}

export interface Picture {
  /** The state directory's real path, and what is there. */
  readonly stateDir: { readonly path: string; readonly kind: "directory" | "missing" | "no-directory" };
  /** In lock order; a directory before its file, the config's fallback after the place where it belongs. */
  readonly locks: readonly SeenLock[];
  /** True if any of them is held. */
  readonly locked: boolean | null;
  readonly holders: readonly number[];
  /** The record of a lock that is held, else one that was left. */
  readonly owner: OwnerRecord | null;
  /** `null` without a record. */
  readonly liveness: Liveness | null;
  /** Where the record says that its owner listens. */
  readonly endpoint: Endpoint | null;
  readonly listeners: readonly SeenListener[];
  /** Whether the holders' sockets are among those that are looked at; `hidden` where that can't be seen. */
  readonly network: "here" | "another" | "hidden";
  /** False: two looks in a row have never shown the same. */
  readonly isSettled: boolean;
}

/** Pauses between looks. After a moment that long, the next look counts. ms */
const PAUSES: readonly number[] = [2, 5, 10, 20, 40, 80, 160, 160];
/** So many pauses are made before it is believed that nobody can tell whether the lock is held. */
const PATIENT_LOOKS = 4;
/** What sounds an alarm must have lasted. ms */
const ALARM = 20;
/** A process that is dying shows no descriptors any more, and may still have a lock or a port. ms */
const DYING = 100;

/** Looks until two looks in a row agree, a bounded number of times. */
export async function look(options: ResolvedInspection, signal: AbortSignal | null = null): Promise<Picture> {
  let picture = await lookOnce(options);
  for (const [index, ms] of PAUSES.entries()) {
    if (provesItself(picture)) return picture;
    await pause(Math.max(ms, requiredCalm(picture)), signal);
    const next = await lookOnce(options);
    // While others lock and unlock a lot, the kernel's table may show too little to tell, twice in a row.
    if (agree(picture, next) && (next.locked !== null || index >= PATIENT_LOOKS)) return next;
    picture = next;
  }
  return { ...picture, isSettled: provesItself(picture) };
}

async function lookOnce(options: ResolvedInspection): Promise<Picture> {
  const locks = lookAtLocks(locateResources(options));
  const locked = locks.some((lock) => lock.locked) ? true : locks.some((lock) => lock.locked === null) ? null : false;
  const holders = [...new Set(locks.flatMap((lock) => lock.holders))].sort((a, b) => a - b);
  const owner = ownerOf(locks);
  const liveness = owner === null ? null : livenessOf(owner);
  const endpoint = owner === null ? null : endpointOf(owner, options.scheme);
  // Who shares an inherited socket with the owner is of less interest.
  const hints = owner !== null && holders.includes(owner.pid) ? [owner.pid, ...holders] : holders;
  const listeners: SeenListener[] = [];
  const isCurrent = locked !== false || liveness === "alive";
  for (const [port, hosts] of placesToLook(options, owner, endpoint, isCurrent))
    listeners.push(...(await findListeners(hosts, port, hints)));
  const network = locked === true ? networkOf(holders) : "here";
  const stateDir = lookAtStateDir(locks);
  return { stateDir, locks, locked, holders, owner, liveness, endpoint, listeners, network, isSettled: true };
}

function lookAtLocks(resources: readonly Resource[]): SeenLock[] {
  const { locksDirectories } = native();
  const places = resources.flatMap((resource) => {
    const { path, isDirectory, lockPath, fallbackLockPath } = resource;
    const files = fallbackLockPath === null ? [lockPath] : [lockPath, fallbackLockPath];
    return [
      ...(isDirectory && locksDirectories ? [{ resource, path, isFile: false, ...NOTHING_READ }] : []),
      ...files.map((file) => ({ resource, path: file, isFile: true, ...readLockFile(file) })),
    ];
  });
  const hints = [...new Set(places.flatMap(({ record }) => (record === null ? [] : [record.pid])))];
  const paths = places.map(({ path }) => path);
  const evidence = lockEvidence(paths, hints);
  return places.map((place, index) => ({ ...place, ...(evidence[index] as LockEvidence) })); // one for each path
}

const NOTHING_READ: Pick<SeenLock, "record" | "torn" | "unreadable"> = { record: null, torn: false, unreadable: null };

/** What stands in a lock file, and why it can't be read where it can't. */
export function readLockFile(path: string): Pick<SeenLock, "record" | "torn" | "unreadable"> {
  const reading = readRecord(path);
  if (reading.record !== null || reading.torn) return { ...reading, unreadable: null };
  try {
    accessSync(path, constants.R_OK);
    return NOTHING_READ;
  } catch (error) {
    const code = codeOf(error) ?? "no access";
    return { ...NOTHING_READ, unreadable: code === "ENOENT" || code === "ENOTDIR" ? null : code };
  }
}

function lookAtStateDir(locks: readonly SeenLock[]): Picture["stateDir"] {
  const path = locks.find(({ resource }) => resource.role === "state")?.resource.path ?? "";
  try {
    return { path, kind: statSync(path).isDirectory() ? "directory" : "no-directory" };
  } catch (error) {
    const code = codeOf(error);
    return { path, kind: code === "ENOENT" ? "missing" : code === "ENOTDIR" ? "no-directory" : "directory" };
  }
}

/** network_namespaces(7): the sockets of another one are in no table of ours. */
function networkOf(holders: readonly number[]): Picture["network"] {
  if (process.platform !== "linux") return "here";
  try {
    const ours = statSync("/proc/self/ns/net").ino;
    const theirs = holders.map((pid) => statSync(`/proc/${pid}/ns/net`).ino);
    if (theirs.length === 0) return "hidden";
    return theirs.includes(ours) ? "here" : "another";
  } catch {
    return "hidden"; // by ptrace(2), which says whose namespaces one may see
  }
}

/** A directory that is held speaks for its file, which may just be about to be restored. */
function ownerOf(locks: readonly SeenLock[]): OwnerRecord | null {
  const held = new Set(locks.filter(({ locked }) => locked).map(({ resource }) => resource));
  const records = locks.filter(({ record }) => record !== null);
  const best =
    records.find(({ locked }) => locked) ??
    records.find(({ resource }) => held.has(resource)) ??
    records.find(({ locked }) => locked === null) ??
    records[0];
  return best?.record ?? null;
}

/** Hosts by port: where the record's owner is, or was; and the port that was asked for, or the usual one. */
function placesToLook(
  { port, hosts, loopbackGuard }: ResolvedInspection,
  owner: OwnerRecord | null,
  endpoint: Endpoint | null,
  isCurrent: boolean,
): Map<number, Set<string>> {
  const places = new Map<number, Set<string>>();
  const add = (at: number, on: readonly string[]) => {
    const targets = targetsFor(on, loopbackGuard).map(({ host }) => host);
    places.set(at, new Set([...(places.get(at) ?? []), ...targets]));
  };
  if (endpoint !== null && (isCurrent || port === null)) add(endpoint.port, [endpoint.host]);
  // A record with port 0 says that the kernel will choose one.
  const wanted = port ?? (owner?.port == null ? DEFAULT_PORT : endpoint?.port);
  if (wanted) add(wanted, hosts);
  return places;
}

/**
 * What can't be put together from different moments: held, and every listener is a holder, the recorded owner among them; or
 * nothing at all.
 */
function provesItself({ locks, locked, holders, owner, listeners }: Picture): boolean {
  if (locked === false) return listeners.length === 0 && locks.every(({ record, torn }) => record === null && !torn);
  const isHolder = (pid: number | null | undefined) => holders.includes(pid ?? -1);
  return locked === true && isHolder(owner?.pid) && listeners.length > 0 && listeners.every(({ pid }) => isHolder(pid));
}

function requiredCalm({ locked, holders, owner, listeners }: Picture): number {
  const isHidden = listeners.some(({ pid }) => pid === null) || (locked === true && holders.length === 0);
  if (isHidden && (owner !== null || locked === true)) return DYING;
  return listeners.some(({ pid }) => !holders.includes(pid ?? -1)) ? ALARM : 0;
}

function agree(one: Picture, other: Picture): boolean {
  return keyOf(one) === keyOf(other);
}

/** What must not change between two looks. */
export function keyOf({ locks, locked, owner, listeners }: Picture): string {
  const holders = locks.map((lock) => [lock.path, lock.locked, [...lock.holders].sort()]);
  const record = owner && [owner.pid, owner.startTime, owner.ownerId, owner.host, owner.port, owner.phase];
  const sockets = listeners.map(({ address, port, id, pid }) => `${address} ${port} ${id} ${pid}`).sort();
  return JSON.stringify([holders, locked, record, sockets]);
}
