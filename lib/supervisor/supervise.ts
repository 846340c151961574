// A start under a supervisor that would repeat it for ever: leave a gateway that is well in control, wait for one that is not, and end.

import { acquire, tellStory } from "../acquire.ts";
import { type Contest, isHeld, urlOf } from "../contender.ts";
import type { Chronicle } from "../diagnostics.ts";
import { codeOf, EXIT, GatewayLockError, notHealthy, reasonOf } from "../errors.ts";
import type { Gateway } from "../gateway.ts";
import type { HealthReport } from "../listener/health.ts";
import { livenessOf, type OwnerRecord, type Supervisor } from "../lock/record.ts";
import { pause } from "../lock/wait.ts";
import {
  type ResolvedOptions,
  type ResolvedSuperviseOptions,
  resolveSuperviseOptions,
  type SuperviseOptions,
} from "../options.ts";
import { detectSupervisor, isSupervised } from "./detect.ts";
import { describeOwner, WaitNotice } from "./notify.ts";

/** This process is the gateway now. */
export interface Acquired {
  readonly outcome: "acquired";
  readonly gateway: Gateway;
}

/** Another gateway has everything, and is well: there is nothing to do but to exit. */
export interface LeftInControl {
  readonly outcome: "left-in-control";
  /** 78 under systemd, to be named in RestartPreventExitStatus=; 0 elsewhere, where only a success is not repeated. */
  readonly exitCode: number;
  readonly owner: OwnerRecord;
}

/**
 * As acquireGateway(), for a process that a supervisor starts again whenever it ends. The gateway that refuses it is asked whether it is well:
 *
 * - it is: leave it in control, or with `onDuplicate: "standby"` wait for its end
 * - it is not: ask again every `retry.interval` ms, for `retry.limit` ms at most. A lock that is freed meanwhile is taken at
 *   once, a port that was taken without the lock at the next interval
 *
 * With `handover` it is asked for its gateway first, and all this is about one that does not hand it over; why, a process warning says.
 *
 * Only the owner of the lock is believed. A program that has the port without it is never well, whatever it answers.
 * Without a supervisor (see `GATEWAY_LOCK_SUPERVISOR` in the README), a duplicate is refused as by acquireGateway().
 *
 * @throws GatewayLockError `NOT_HEALTHY`, with the last refusal as its `cause`; and as acquireGateway()
 */
export async function superviseGateway(options: SuperviseOptions): Promise<Acquired | LeftInControl> {
  const resolved = resolveSuperviseOptions(options);
  return await tellStory(resolved.claim, async (chronicle) => {
    const notice = new WaitNotice();
    try {
      const result = await supervise(resolved, chronicle, notice);
      notice.end(
        result.outcome === "acquired"
          ? `starting: owns ${result.gateway.url}`
          : `left in control: ${describeOwner(result.owner)}`,
      );
      return result;
    } catch (error) {
      notice.end(reasonOf(error));
      throw error;
    }
  });
}

async function supervise(
  options: ResolvedSuperviseOptions,
  chronicle: Chronicle,
  notice: WaitNotice,
): Promise<Acquired | LeftInControl> {
  const { claim, retry, onDuplicate } = options;
  const supervisor = isSupervised() ? detectSupervisor() : null;
  const onWait = (owner: OwnerRecord | null) => notice.say(`standby: ${describeOwner(owner)}`);
  let result = await attempt(claim, chronicle, { waited: false, onWait });
  let giveUp = performance.now() + retry.limit;
  let asks = true;
  while (result instanceof GatewayLockError) {
    const refusal = result;
    // One that does not hand over has answered its clients and hung up on some of them for nothing: not again.
    if (refusal.code === "HANDOVER_FAILED") asks = false;
    const { owner } = refusal;
    if (supervisor === null) throw refusal;
    const health = await examineOwner(refusal, options);
    claim.signal?.throwIfAborted();
    if (health.ok && owner !== undefined && onDuplicate === "leave") {
      chronicle.tell("refused", refusal);
      if (refusal.code === "HANDOVER_FAILED") await warn(`${refusal.message}; it is left in control`);
      return {
        outcome: "left-in-control",
        exitCode: supervisor === "systemd" ? EXIT.SUPERVISED_DUPLICATE : EXIT.OK,
        owner,
      };
    }
    const left = health.ok ? Infinity : giveUp - performance.now();
    if (left <= 0) throw describeNotHealthy(supervisor, refusal, health, options);
    notice.say(health.ok ? `standby: ${describeOwner(owner)}` : `waiting: ${refusal.message}; ${health.error}`);
    const contest = { waited: isHeld(refusal), onWait: () => {}, asks };
    result = await attemptLater(contest, health.ok, Math.ceil(Math.min(retry.interval, left)), claim, chronicle);
    if (health.ok) giveUp = performance.now() + retry.limit;
  }
  return { outcome: "acquired", gateway: result };
}

/** Whoever is left in control of nothing exits at once; a warning is printed in the next tick. */
async function warn(message: string): Promise<void> {
  process.emitWarning(message, "GatewayLockWarning");
  await new Promise(setImmediate);
}

const REFUSALS: ReadonlySet<string | undefined> = new Set(["ALREADY_LISTENING", "ALREADY_RUNNING", "HANDOVER_FAILED"]);

/** A refusal by another gateway is a result; everything else is an error. */
async function attempt(
  claim: ResolvedOptions,
  chronicle: Chronicle,
  contest: Contest,
): Promise<Gateway | GatewayLockError> {
  try {
    return await acquire(claim, chronicle, contest);
  } catch (error) {
    if (REFUSALS.has(codeOf(error))) return error as GatewayLockError;
    throw error;
  }
}

/** Within `ms`, or as the standby of a gateway that is well. A lock is waited for in the kernel; nobody tells of a port that is freed. */
async function attemptLater(
  contest: Contest,
  asStandby: boolean,
  ms: number,
  claim: ResolvedOptions,
  chronicle: Chronicle,
): Promise<Gateway | GatewayLockError> {
  if (contest.waited) return await attempt({ ...claim, timeout: asStandby ? Infinity : ms }, chronicle, contest);
  await pause(ms, claim.signal);
  return await attempt({ ...claim, timeout: 0 }, chronicle, contest);
}

/** Only a living owner whose record refused us is believed: not whoever else has the port. */
async function examineOwner(
  { owner }: GatewayLockError,
  { claim, health }: ResolvedSuperviseOptions,
): Promise<HealthReport> {
  const url = owner === undefined || livenessOf(owner) === "gone" ? null : urlOf(owner, claim.scheme);
  if (owner !== undefined && url !== null) {
    const { examine } = await import("../listener/health.ts");
    const { contradicts, ...report } = await examine(url, owner, health, claim.signal);
    return report;
  }
  return {
    ok: false,
    status: null,
    ms: 0,
    error: "there is no owner to be asked: no record of it, or none with a port",
  };
}

function describeNotHealthy(
  supervisor: Supervisor,
  refusal: GatewayLockError,
  health: HealthReport,
  { claim, retry }: ResolvedSuperviseOptions,
): GatewayLockError {
  const { host, port, lockPath, resource, owner, listener } = refusal;
  const url = refusal.url ?? (owner === undefined ? undefined : (urlOf(owner, claim.scheme) ?? undefined));
  return notHealthy(supervisor, retry.limit, {
    cause: refusal,
    host,
    port,
    url,
    lockPath,
    resource,
    owner,
    listener,
    health,
  });
}
