// What a contender does about locks that someone else has: refuse, wait, or try again for a moment.

import { existsSync } from "node:fs";
import { constants } from "node:os";
import type { Chronicle } from "./diagnostics.ts";
import {
  alreadyListening,
  alreadyRunning,
  type ConflictingResource,
  codeOf,
  formatUrl,
  type GatewayLockError,
  handoverFailed,
  printable,
  reasonOf,
  systemError,
} from "./errors.ts";
import { HOOK_LIMIT, NoOffer, socketPathOf } from "./handover/protocol.ts";
import type { Bequest } from "./handover/request.ts";
import { explainDisinheritance } from "./inheritance.ts";
import { findListener } from "./listener/port-owner.ts";
import { type FileLock, type InheritedLocks, waitForLock } from "./lock/file-lock.ts";
import { type Advance, LockSet, type Refusal } from "./lock/lock-set.ts";
import { endpointOf, livenessOf, type OwnerRecord, readRecord, whereaboutsOf } from "./lock/record.ts";
import { type Resource, resolveResources } from "./lock/resources.ts";
import { pause } from "./lock/wait.ts";
import { LOCK_SYSCALL, native } from "./native.ts";
import type { ResolvedOptions, Scheme } from "./options.ts";

/** A lock may be held by a rival that is about to be refused itself, or by a winner that has no record yet. */
const GRACE = 100; // ms
const GRACE_INTERVAL = 5;

/**
 * Pauses before a lock is taken that a live owner may just have lost (LockSet#isSettled): one for passing contenders, and one that is
 * longer than an owner takes to notice. ms
 */
const SETTLING: readonly number[] = [5, 1050];

/** How often a gateway is asked for again that is just being handed over to somebody else, or just starting. ms */
const ASK_INTERVAL = 1000;
/** The same of one whose owner is gone without a word. ms */
const ORPHAN_INTERVAL = 100;

export interface Won {
  readonly locks: LockSet;
  readonly resources: readonly Resource[];
  /** Somebody else had one of the locks before. */
  readonly waited: boolean;
  /** What the owner has given: it still is the owner. */
  readonly bequest: Bequest | null;
}

/** What is known before, and who wants to know. */
export interface Contest {
  /** Somebody had one of the locks when this was tried before. */
  readonly waited: boolean;
  /** Called when a wait begins, with what the record says of who is waited for. */
  readonly onWait: (owner: OwnerRecord | null) => void;
  /** When to stop waiting, on the clock of performance.now(), in ms. Default: after the options' `timeout`. */
  readonly deadline?: number;
  /** Why the owner, who was asked already, does not hand over. */
  readonly refusal?: NoOffer | null;
  /** False: the owner is not to be asked for a handover any more. */
  readonly asks?: boolean;
}

/**
 * All locks, or the reason why not: never taken from a holder, however old its record.
 *
 * Nobody waits while holding a lock, because others may want the same ones in another order. What was waited for is kept while
 * the rest is tried; if somebody has that, everything is let go, and that is waited for.
 *
 * With `handover`, the owner is asked first, and waited for only if that comes to nothing.
 *
 * @throws GatewayLockError `ALREADY_LISTENING`, `ALREADY_RUNNING`, `HANDOVER_FAILED`, `LOCK_FAILED`, `LOCK_UNSUPPORTED`; `signal.reason`
 */
export async function contend(
  options: ResolvedOptions,
  inherited: InheritedLocks | null,
  chronicle: Chronicle,
  contest: Contest,
): Promise<Won> {
  const { timeout, signal, scheme } = options;
  const { deadline = performance.now() + timeout } = contest;
  let granted: FileLock | null = null;
  let { waited, refusal = null } = contest;
  let settling = 0;
  let orphaned: number | null = null;
  for (;;) {
    const { resources, locks } = tryAll(options, { granted, inherited }, chronicle);
    granted = null;
    if (locks instanceof LockSet) {
      const ms = locks.isSettled ? undefined : SETTLING[settling++];
      if (ms === undefined) return { locks, resources, waited, bequest: null };
      locks.release();
      await pause(ms, signal);
      continue;
    }
    if (options.handover !== null && contest.asks !== false && (refusal === null || refusal.passes)) {
      const asked = await ask(locks, options, resources, chronicle);
      if (asked === null) {
        // It has died over that, and what it has left behind may take a moment to end: a program that it was about to end, say. Or it has just gone to somebody else.
        waited = true;
        orphaned ??= performance.now() + HOOK_LIMIT;
        granted = await waitForLock(locks.held, { deadline: performance.now() + ORPHAN_INTERVAL, signal });
        if (granted !== null || performance.now() < orphaned) continue;
        refusal = new NoOffer("it ends without a word, and somebody has its lock");
      } else if (asked instanceof NoOffer) refusal = asked;
      else return { ...asked, waited: true };
    }
    if (performance.now() < deadline) {
      waited = true;
      chronicle.tell("wait");
      contest.onWait(readRecord(locks.resource.lockPath).record);
      const again = refusal?.passes === true ? performance.now() + ASK_INTERVAL : Infinity;
      granted = await waitForLock(locks.held, { deadline: Math.min(deadline, again), signal });
      continue;
    }
    waited = true;
    const owner = readRecord(locks.resource.lockPath).record;
    const patience = Math.max(deadline + GRACE, orphaned ?? 0);
    if (refusal !== null && (!refusal.passes || performance.now() >= patience))
      throw describeRefusal(refusal, owner, locks);
    if (refusal !== null) {
      if (orphaned === null) await pause(GRACE_INTERVAL * (0.5 + Math.random()), signal);
      else granted = await waitForLock(locks.held, { deadline: performance.now() + ORPHAN_INTERVAL, signal });
      continue;
    }
    const listening = owner === null ? null : await describeListening(owner, locks, scheme);
    if (listening !== null) throw listening;
    if (performance.now() >= deadline + GRACE) throw describeRunning(owner, locks, timeout);
    // The pauses differ, so that two who hold each other's second lock get apart.
    await pause(GRACE_INTERVAL * (0.5 + Math.random()), signal);
  }
}

/** What the owner gives, or why it does not; `null`: it has ended meanwhile. */
async function ask(
  { resource }: Refusal,
  options: ResolvedOptions,
  resources: readonly Resource[],
  chronicle: Chronicle,
): Promise<Omit<Won, "waited"> | NoOffer | null> {
  const [state] = resources;
  if (resource.role !== "state" || state === undefined)
    return new NoOffer(`it has ${nameIn(resource)}, and another state directory`);
  const { record } = readRecord(state.lockPath);
  const { port } = options;
  if (port !== 0 && record?.port && record.port !== port)
    return new NoOffer(
      `it listens on port ${record.port}, and this one would on ${port}, which would refuse its clients: give both the same, or stop the old one first`,
    );
  try {
    const { requestHandover } = await import("./handover/request.ts");
    const bequest = await requestHandover(state.lockPath, options.signal);
    if (bequest === null) return null;
    try {
      for (let settling = 0; ; settling++) {
        const taken = tryAll(options, { granted: null, inherited: bequest }, chronicle);
        if (!(taken.locks instanceof LockSet))
          throw new NoOffer(`it has not given ${nameIn(taken.locks.resource)}, which somebody has`);
        const ms = taken.locks.isSettled ? undefined : SETTLING[settling];
        if (ms === undefined) return { resources: taken.resources, locks: taken.locks, bequest };
        taken.locks.release();
        await pause(ms, options.signal);
      }
    } catch (error) {
      bequest.giveBack(reasonOf(error));
      throw error;
    }
  } catch (error) {
    if (error instanceof NoOffer) return error;
    throw error;
  }
}

/** Takes over what was granted. */
function tryAll(
  options: ResolvedOptions,
  advance: Advance,
  chronicle: Chronicle,
): { resources: readonly Resource[]; locks: LockSet | Refusal } {
  let resources: readonly Resource[];
  try {
    options.signal?.throwIfAborted();
    resources = resolveResources(options);
    chronicle.lockPaths = resources.map(({ lockPath }) => lockPath);
  } catch (error) {
    advance.granted?.release();
    throw error;
  }
  return { resources, locks: LockSet.tryLock(resources, options.allowNetworkFilesystem, advance) };
}

/** The error if the record's process is there and listens, else `null`. */
async function describeListening(
  owner: OwnerRecord,
  { resource, held }: Refusal,
  scheme: Scheme,
): Promise<GatewayLockError | null> {
  const endpoint = endpointOf(owner, scheme);
  const liveness = livenessOf(owner);
  if (endpoint === null || liveness === "gone") return null;
  const listener = await findListener(endpoint.host, endpoint.port, [owner.pid]);
  if (listener === null) return null;
  // An owner in another network namespace has that port there. Here it may be anybody's.
  const isOwner = liveness === "alive" && listener.pid === owner.pid;
  const holders = isOwner ? [owner.pid] : findHolders(held.path, owner);
  if (listener.pid !== null && !isOwner && !holders.includes(listener.pid)) return null;
  const cause = describeHeld({ resource, held }, holders, owner);
  return alreadyListening(endpoint, {
    cause,
    lockPath: resource.lockPath,
    resource: nameOf(resource),
    owner,
    listener,
  });
}

function describeRefusal(refusal: NoOffer, owner: OwnerRecord | null, { resource, held }: Refusal): GatewayLockError {
  const cause = refusal.cause ?? describeHeld({ resource, held }, findHolders(held.path, owner), owner);
  const details = { cause, lockPath: resource.lockPath, resource: nameOf(resource), owner: owner ?? undefined };
  return handoverFailed(printable(refusal.message), details);
}

function describeRunning(owner: OwnerRecord | null, { resource, held }: Refusal, timeout: number): GatewayLockError {
  const holders = findHolders(held.path, owner);
  const recorded = owner !== null && livenessOf(owner) === "alive" ? owner.pid : null;
  const cause = describeHeld({ resource, held }, holders, owner);
  const details = { cause, lockPath: resource.lockPath, resource: nameOf(resource), owner: owner ?? undefined };
  return alreadyRunning(holders[0] ?? recorded, timeout, details);
}

/** Who holds the lock, by the kernel; nobody where this user may not see them, or this pid namespace does not have them. */
function findHolders(heldPath: string, owner: OwnerRecord | null): readonly number[] {
  return native().findLockHolders([heldPath], owner === null ? [] : [owner.pid], true)[0]?.holders ?? [];
}

function nameOf({ role, path }: Resource): ConflictingResource {
  return { role, path };
}

function nameIn({ role, path, isDirectory }: Resource): string {
  const kind = { state: "state directory", config: "config", other: isDirectory ? "directory" : "file" };
  return `the ${kind[role]} ${path}`;
}

function isOffered({ role, lockPath }: Resource): boolean {
  return role === "state" && existsSync(socketPathOf(lockPath));
}

/** What the kernel said, the errno of a refused flock(2); and what it is that somebody else has, and who that is. */
function describeHeld({ resource, held }: Refusal, holders: readonly number[], owner: OwnerRecord | null): Error {
  const who = holders[0] === undefined ? "a process that can't be seen from here" : `pid ${holders[0]}`;
  const elsewhere = owner === null ? null : whereaboutsOf(owner);
  const disinherited = explainDisinheritance();
  const hints = [
    `${who} has it, and with it ${nameIn(resource)}`,
    ...(elsewhere === null ? [] : [`the record is of an owner ${elsewhere}`]),
    ...(isOffered(resource) ? ["it can be taken over by a process that is started with `handover`"] : []),
    ...(disinherited === null ? [] : [disinherited]),
  ];
  return systemError({ errno: constants.errno.EAGAIN, syscall: LOCK_SYSCALL }, held.path, printable(hints.join("; ")));
}

/** Whether a refusal came from the kernel's lock, so that it can be waited for, and not from a port. */
export function isHeld({ code, cause }: GatewayLockError): boolean {
  return (
    code === "ALREADY_RUNNING" ||
    code === "HANDOVER_FAILED" ||
    (code === "ALREADY_LISTENING" && codeOf(cause) === "EAGAIN")
  );
}

/**
 * Refuses a lock that the kernel granted although the record's owner is alive and its port is busy: that gateway uses
 * no kernel lock, because it is an older program or its filesystem lies.
 *
 * @throws GatewayLockError `ALREADY_LISTENING`
 */
export async function refuseUnlockedOwner(locks: LockSet, { scheme }: ResolvedOptions): Promise<void> {
  if (locks.isInherited) return; // the record is the parent's, or names this process
  for (const lockPath of locks.writtenPaths) {
    const owner = readRecord(lockPath).record;
    const endpoint = owner === null ? null : endpointOf(owner, scheme);
    if (owner === null || endpoint === null || livenessOf(owner) !== "alive") continue;
    const listener = await findListener(endpoint.host, endpoint.port, [owner.pid]);
    if (listener === null) continue;
    const cause = new Error(
      `${lockPath} is not locked, but the gateway that its record names is alive and its port is busy`,
    );
    throw alreadyListening(endpoint, { cause, lockPath, owner, listener });
  }
}

/** Where a record's owner listens, as a URL; `null` where it says nothing of it. */
export function urlOf(owner: OwnerRecord, scheme: Scheme): string | null {
  const endpoint = endpointOf(owner, scheme);
  return endpoint === null ? null : formatUrl(endpoint.scheme, endpoint.host, endpoint.port);
}
