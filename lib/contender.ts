// What a contender does about locks that someone else has: refuse, wait, or try again for a moment.

import { constants } from "node:os";
import { alreadyListening, alreadyRunning, type GatewayLockError, systemError } from "./errors.ts";
import { parseAddress } from "./listener/addresses.ts";
import { findPortOwner, isListening } from "./listener/port-owner.ts";
import { POLL_INTERVAL, pause } from "./lock/file-lock.ts";
import { LockSet, type Refusal } from "./lock/lock-set.ts";
import { livenessOf, type OwnerRecord, readRecord } from "./lock/record.ts";
import { type Resource, resolveResources } from "./lock/resources.ts";
import { native } from "./native.ts";
import type { ResolvedOptions, Scheme } from "./options.ts";

/** A lock may be held by a rival that is about to be refused itself, or by a winner that has no record yet. */
const GRACE = 100; // ms
const GRACE_INTERVAL = 5;

export interface Won {
  readonly locks: LockSet;
  readonly resources: readonly Resource[];
  /** Somebody else had one of the locks before. */
  readonly waited: boolean;
}

/**
 * All locks, or the reason why not: never taken from a holder, however old its record.
 *
 * @throws GatewayLockError `ALREADY_LISTENING`, `ALREADY_RUNNING`, `LOCK_FAILED`, `LOCK_UNSUPPORTED`; `signal.reason`
 */
export async function contend(options: ResolvedOptions): Promise<Won> {
  const { timeout, signal, allowNetworkFilesystem } = options;
  const started = performance.now();
  for (let waited = false; ; waited = true) {
    signal?.throwIfAborted();
    const resources = resolveResources(options);
    const locks = LockSet.tryLock(resources, allowNetworkFilesystem);
    if (locks instanceof LockSet) return { locks, resources, waited };
    const elapsed = performance.now() - started;
    if (elapsed < timeout) {
      await pause(Math.min(POLL_INTERVAL, timeout - elapsed), signal);
      continue;
    }
    const owner = readRecord(locks.resource.lockPath).record;
    const listening = owner === null ? null : await describeListening(owner, locks, options.scheme);
    if (listening !== null) throw listening;
    if (elapsed >= timeout + GRACE) throw describeRunning(owner, locks, timeout);
    // Everything was let go meanwhile, and the pauses differ, so that two who hold each other's second lock get apart.
    await pause(GRACE_INTERVAL * (0.5 + Math.random()), signal);
  }
}

/** The error if the record's process is there and listens, else `null`. */
async function describeListening(
  owner: OwnerRecord,
  { resource, heldPath }: Refusal,
  scheme: Scheme,
): Promise<GatewayLockError | null> {
  const endpoint = endpointOf(owner, scheme);
  if (endpoint === null || livenessOf(owner) === "gone") return null;
  if (!(await isListening(endpoint.host, endpoint.port))) return null;
  const { listener } = findPortOwner(endpoint.host, endpoint.port, [owner.pid]);
  const cause = describeHeld(heldPath, findHolder(heldPath, owner));
  return alreadyListening(endpoint, { cause, lockPath: resource.lockPath, owner, listener });
}

function describeRunning(
  owner: OwnerRecord | null,
  { resource, heldPath }: Refusal,
  timeout: number,
): GatewayLockError {
  const holder = findHolder(heldPath, owner);
  const recorded = owner !== null && livenessOf(owner) === "alive" ? owner.pid : null;
  const cause = describeHeld(heldPath, holder);
  const details = { cause, lockPath: resource.lockPath, owner: owner ?? undefined };
  return alreadyRunning(holder ?? recorded, timeout, details);
}

/** A process that holds the lock, by the kernel; `null` where this user may not see it, or this pid namespace does not have it. */
function findHolder(heldPath: string, owner: OwnerRecord | null): number | null {
  return native().findLockHolders(heldPath, owner === null ? [] : [owner.pid], true).holders[0] ?? null;
}

/** What the kernel said: the errno of a refused flock(2). */
function describeHeld(heldPath: string, holder: number | null): Error {
  const who = holder === null ? "a process that can't be seen from here has it" : `pid ${holder} has it`;
  return systemError({ errno: constants.errno.EAGAIN, syscall: "flock" }, heldPath, who);
}

/**
 * Refuses a lock that the kernel granted although the record's owner is alive and its port is busy: that gateway uses
 * no kernel lock, because it is an older program or its filesystem lies.
 *
 * @throws GatewayLockError `ALREADY_LISTENING`
 */
export async function refuseUnlockedOwner(locks: LockSet, { scheme }: ResolvedOptions): Promise<void> {
  for (const lockPath of locks.paths) {
    const owner = readRecord(lockPath).record;
    const endpoint = owner === null ? null : endpointOf(owner, scheme);
    if (owner === null || endpoint === null || livenessOf(owner) !== "alive") continue;
    if (!(await isListening(endpoint.host, endpoint.port))) continue;
    const { listener } = findPortOwner(endpoint.host, endpoint.port, [owner.pid]);
    const cause = new Error(
      `${lockPath} is not locked, but the gateway that its record names is alive and its port is busy`,
    );
    throw alreadyListening(endpoint, { cause, lockPath, owner, listener });
  }
}

interface Endpoint {
  readonly scheme: string;
  readonly host: string;
  readonly port: number;
}

/** Where a record's owner listens. What stands in the file is checked: it goes into messages and a connection. */
function endpointOf({ host, port, url }: OwnerRecord, scheme: Scheme): Endpoint | null {
  if (port === null || port === 0) return null;
  const [, recorded = scheme] = /^(wss?|https?):\/\//.exec(url ?? "") ?? [];
  return { scheme: recorded, host: parseAddress(host ?? "") ?? "127.0.0.1", port };
}
