// The verb: lock, check, bind, publish; and one place that undoes it all in reverse.

import { hostname } from "node:os";
import { crypto } from "./builtins.ts";
import { type Contest, contend, refuseUnlockedOwner, type Won } from "./contender.ts";
import { Chronicle } from "./diagnostics.ts";
import { codeOf, formatUrl, reasonOf } from "./errors.ts";
import { Gateway } from "./gateway.ts";
import type { Offer } from "./handover/offer.ts";
import { NoOffer } from "./handover/protocol.ts";
import { activatedSockets, Inheritance } from "./inheritance.ts";
import { claimPorts } from "./listener/claim.ts";
import { InheritedSockets } from "./listener/inherited-sockets.ts";
import type { PortSet } from "./listener/port-set.ts";
import { prepareHandles } from "./listener/tcp-handle.ts";
import { encodeRecord, identifyHost, type OwnerFields, type OwnerRecord, startTimeOfThis } from "./lock/record.ts";
import type { Resource } from "./lock/resources.ts";
import { pause } from "./lock/wait.ts";
import { native } from "./native.ts";
import { type GatewayOptions, type ResolvedOptions, resolveGatewayOptions } from "./options.ts";
import { detectSupervisor } from "./supervisor/detect.ts";
import { describeOwner, WaitNotice } from "./supervisor/notify.ts";
import { packageVersion } from "./version.ts";

/** For how long a claim is tried again after a wait, although somebody seems to have the port: the old owner is still dying. ms */
const DYING = 1000;
const DYING_INTERVAL = 2;

/**
 * Makes this process the only gateway on its state directory, its config and its port.
 *
 * Locks, checks the record, binds and listens, publishes the record. When it resolves, all of that is held; when it
 * rejects, nothing is left behind but directories that it made. It never throws synchronously.
 *
 * With a `timeout` it waits in the kernel for whoever has one of its locks, and keeps the event loop alive meanwhile. After a
 * wait, a port that is still taken is tried again for a second: the old owner may be dying.
 *
 * With `handover` it asks a running gateway for all of that, which goes from one process to the other without an instant in which nobody has it.
 *
 * @throws GatewayLockError `ALREADY_LISTENING`, `ALREADY_RUNNING` (a duplicate), `HANDOVER_FAILED`, `BIND_FAILED`, `LOCK_FAILED`,
 * `LOCK_UNSUPPORTED`; TypeError and RangeError for bad options, before anything is touched; `signal.reason`
 */
export async function acquireGateway(options: GatewayOptions): Promise<Gateway> {
  const resolved = resolveGatewayOptions(options);
  return await tellStory(resolved, async (chronicle) => {
    let notice: WaitNotice | undefined;
    const onWait = (owner: OwnerRecord | null) => {
      notice ??= new WaitNotice();
      notice.say(`standby: ${describeOwner(owner)}`);
    };
    try {
      const gateway = await acquire(resolved, chronicle, { waited: false, onWait });
      notice?.end(`starting: owns ${gateway.url}`);
      return gateway;
    } catch (error) {
      notice?.end(reasonOf(error));
      throw error;
    }
  });
}

/** One acquisition, however many attempts it takes: it ends with one `acquire` (which acquire() tells) or one `refused`. */
export async function tellStory<T>(options: ResolvedOptions, play: (chronicle: Chronicle) => Promise<T>): Promise<T> {
  native(); // before anything is made
  const chronicle = new Chronicle(crypto().randomUUID(), literalOf(options), options.port);
  try {
    return await play(chronicle);
  } catch (error) {
    chronicle.tell("refused", error);
    throw error;
  }
}

export async function acquire(options: ResolvedOptions, chronicle: Chronicle, contest: Contest): Promise<Gateway> {
  const deadline = performance.now() + options.timeout;
  // Now, and not after a wait: by then there may be another version of this package in its place.
  const offer = options.handover === null ? null : (await import("./handover/offer.ts")).Offer;
  const inheritance = Inheritance.find();
  let refusal: NoOffer | null = null;
  let rehearsal: NodeJS.Immediate | undefined;
  const onWait = (owner: OwnerRecord | null) => {
    rehearsal ??= setImmediate(rehearse, options, chronicle);
    contest.onWait(owner);
  };
  try {
    for (;;) {
      const won = await contend(options, inheritance, chronicle, { ...contest, onWait, deadline, refusal });
      try {
        const legacy = won.locks.isInherited && won.bequest === null ? inheritance : null;
        const gateway = await bindAndPublish(won, legacy, options, chronicle, offer);
        legacy?.keep(() => gateway.republish());
        return gateway;
      } catch (error) {
        if (won.bequest === null || options.signal?.aborted) throw error;
        // Whoever has time left waits for the owner to leave.
        refusal = new NoOffer(reasonOf(error), { cause: error });
      }
    }
  } catch (error) {
    inheritance?.giveBack();
    throw error;
  } finally {
    clearImmediate(rehearsal);
  }
}

async function bindAndPublish(
  won: Won,
  inheritance: Inheritance | null,
  options: ResolvedOptions,
  chronicle: Chronicle,
  offer: typeof Offer | null,
): Promise<Gateway> {
  const { locks, waited, bequest } = won;
  let ports: PortSet | null = null;
  try {
    // An owner that hands over is not dying, and its clients wait.
    const mayBeDying = waited && bequest === null;
    const patience = { until: performance.now() + (mayBeDying ? DYING : 0), signal: options.signal };
    await inheritance?.settled();
    await whileDying(patience, () => refuseUnlockedOwner(locks, options));
    // Whatever is in the files is nobody's: they go with this attempt.
    if (bequest === null) locks.claimFiles();
    const fields = recordFor({ resources: won.resources, configLock: locks.configLock }, options, chronicle);
    const passed = bequest?.sockets ?? inheritance?.sockets ?? activatedSockets();
    const inherited = new InheritedSockets(passed, bequest !== null);
    // Where the port is there at once, the record says so before anybody could read another one. What is handed over has its owner's until it is ours.
    const onRefusal = () => (bequest === null ? locks.publish(fields) : null);
    ports = await whileDying(patience, () => claimPorts(options, inherited), onRefusal);
    for (const fd of inherited.used) inheritance?.use(fd);
    // What `gateway-lock run` has kept, and nobody asks for, is given back when the claim is complete.
    for (const { fd } of inherited.leftOver) inheritance?.use(fd);
    if (bequest === null) warnOfUnused(inherited);
    if (bequest !== null) {
      if (inherited.abandoned.length > 0)
        throw new NoOffer(
          `it listens on ${inherited.abandoned.join(" and ")}, where this one would refuse its clients: give both the same \`host\` and \`port\`, or stop the old one first`,
        );
      await bequest.take();
      // Until the predecessor knows it, it may yet go on, with these files.
      locks.shareInherited();
    }
    const gateway = new Gateway(locks, ports, fields, options, chronicle, offer);
    if (bequest !== null) {
      bequest.confirm();
      locks.unshare();
      await bequest.released();
    }
    gateway.begin();
    if (waited) chronicle.tell("takeover");
    chronicle.tell("acquire");
    return gateway;
  } catch (error) {
    ports?.close();
    if (inheritance !== null) locks.share(); // they are the parent's still
    locks.release();
    bequest?.giveBack(reasonOf(error));
    throw error;
  }
}

function warnOfUnused({ unused, leftOver }: InheritedSockets): void {
  if (unused.length > 0)
    process.emitWarning(
      `this process was started with a socket for ${unused.join(" and ")} (LISTEN_FDS), which is none of the gateway's: unless something else accepts there, its clients wait for ever`,
      "GatewayLockWarning",
    );
  if (leftOver.length > 0)
    process.emitWarning(
      `gateway-lock run has kept ${leftOver.map(({ name }) => name).join(" and ")} for this process, whose options do not ask for it: it is given back`,
      "GatewayLockWarning",
    );
}

interface Patience {
  readonly until: number;
  readonly signal: AbortSignal | null;
}

/** `onRefusal` is called once, before the first pause. */
async function whileDying<T>(
  { until, signal }: Patience,
  attempt: () => T | Promise<T>,
  onRefusal: (() => unknown) | null = null,
): Promise<T> {
  let isTold = false;
  for (;;) {
    signal?.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      if (codeOf(error) !== "ALREADY_LISTENING" || performance.now() >= until) throw error;
    }
    if (!isTold) onRefusal?.();
    isTold = true;
    await pause(DYING_INTERVAL, signal);
  }
}

function literalOf({ hosts: [host = ""] }: ResolvedOptions): string {
  return host === "localhost" ? "127.0.0.1" : host;
}

/**
 * Does beforehand, while there is nothing to do but to wait, what would take milliseconds when it is done for the first time: after the grant,
 * every one of them is a client's.
 */
function rehearse(options: ResolvedOptions, chronicle: Chronicle): void {
  try {
    encodeRecord(recordFor({ resources: [], configLock: "exclusive" }, options, chronicle));
    prepareHandles();
  } catch {
    // Whatever it is, it may have passed by then.
  }
}

function recordFor(
  {
    resources,
    configLock,
  }: { readonly resources: readonly Resource[]; readonly configLock: OwnerRecord["configLock"] },
  options: ResolvedOptions,
  { ownerId }: Chronicle,
): OwnerFields {
  const path = (role: "state" | "config") => resources.find((resource) => resource.role === role)?.path ?? null;
  const host = literalOf(options);
  return {
    pid: process.pid,
    startTime: startTimeOfThis(),
    ownerId,
    createdAt: new Date().toISOString(),
    configPath: path("config"),
    stateDir: path("state"),
    port: options.port,
    host,
    url: formatUrl(options.scheme, host, options.port),
    phase: "starting",
    hostname: hostname(),
    ...identifyHost(),
    supervisor: detectSupervisor(),
    runtime: runtimeName(),
    version: packageVersion(),
    configLock,
    metadata: options.metadata,
  };
}

function runtimeName(): string {
  const { bun, deno, node } = process.versions;
  return deno === undefined ? (bun === undefined ? `node ${node}` : `bun ${bun}`) : `deno ${deno}`;
}
