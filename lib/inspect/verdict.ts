// What the evidence means: the verdict, by the contract's order, and the next step in one sentence.

import { EXIT, formatUrl, printable } from "../errors.ts";
import type { Probe } from "../listener/health.ts";
import type { SeenListener } from "../listener/port-owner.ts";
import type { ResolvedInspection } from "../options.ts";
import type { Picture } from "./look.ts";
import type { GatewayReport, GatewayVerdict } from "./report.ts";

/** `health` is null where nobody was asked. */
export function judge(picture: Picture, health: Probe | null, options: ResolvedInspection): GatewayReport {
  const verdict = decide(picture, health, options.requireHealth);
  return {
    verdict,
    exitCode: exitCodeOf(verdict, options.requireHealth),
    next: printable(nextStep(verdict, picture, health, options)),
    lock: { paths: lockPathsOf(picture), locked: picture.locked, holders: picture.holders },
    owner: picture.owner,
    listener: picture.listeners.map(({ address, port, pid, command }) => ({ address, port, pid, command })),
    health: health && { ok: health.ok, status: health.status, ms: health.ms, error: health.error },
  };
}

/** Those who listen and are none of the holders. */
export function strangersIn({ holders, listeners }: Picture): SeenListener[] {
  return listeners.filter(({ pid }) => pid !== null && !holders.includes(pid));
}

function decide(picture: Picture, health: Probe | null, requireHealth: boolean): GatewayVerdict {
  const { locked, listeners, locks, isSettled } = picture;
  // An answer with the record's ownerId shows both that the owner lives and that it is the one who listens.
  const isProven = health?.ok === true;
  const strangers = strangersIn(picture);
  if (locked === null && !isProven) return "unknown";
  if (locked !== false) {
    if (strangers.length > 0) return isSettled ? "split" : "unknown";
    if (listeners.length === 0) return "starting";
    if (isProven) return "expected";
    if (listeners.some(({ pid }) => pid === null)) return "unknown";
    if (requireHealth && !isSettled) return "unknown";
    return requireHealth || health?.contradicts ? "unhealthy" : "expected";
  }
  if (listeners.length > 0) return isSettled ? "foreign-listener" : "unknown";
  return locks.some(({ record, torn }) => record !== null || torn) ? "stale-record" : "free";
}

function exitCodeOf(verdict: GatewayVerdict, requireHealth: boolean): number {
  switch (verdict) {
    case "unknown":
      return EXIT.UNKNOWN;
    case "split":
    case "foreign-listener":
      return EXIT.FAILURE;
    case "expected":
      return EXIT.OK;
    case "unhealthy":
    case "starting":
      return requireHealth ? EXIT.FAILURE : EXIT.OK;
    case "stale-record":
    case "free":
      return EXIT.NOT_RUNNING;
  }
}

/** A config whose directory can't be written has its lock at the other place. */
function lockPathsOf({ locks }: Picture): string[] {
  const files = locks.filter(({ isFile }) => isFile);
  return [...new Set(files.map(({ resource }) => resource))].map((resource) => {
    const [usual, fallback] = files.filter((file) => file.resource === resource);
    const isElsewhere = fallback !== undefined && usual?.locked === false && isInUse(fallback) && !isInUse(usual);
    return isElsewhere ? fallback.path : resource.lockPath;
  });
}

function isInUse({ locked, record, torn }: Picture["locks"][number]): boolean {
  return locked !== false || record !== null || torn;
}

function nextStep(
  verdict: GatewayVerdict,
  picture: Picture,
  health: Probe | null,
  options: ResolvedInspection,
): string {
  const { owner, holders, listeners } = picture;
  const who = holders.length === 0 ? "a process that this user may not see" : pidsOf(holders);
  const url = urlOf(picture);
  switch (verdict) {
    case "unknown":
      return explainUnknown(picture, who, options);
    case "split": {
      const strangers = describeListeners(strangersIn(picture));
      return `${strangers} and is none of the lock's holders (${who}): end it if it should not be there, else give the gateway another port`;
    }
    case "expected":
      return `nothing to do: the gateway (${who}) has its lock and listens on ${url}${elsewhere(picture)}`;
    case "unhealthy": {
      const why = health === null ? "can't be asked whether it is well" : `is not well (${health.error})`;
      return `the gateway (${who}) listens on ${url} and ${why}: look at its log, or end it by \`${command("stop --force", options)}\`${elsewhere(picture)}`;
    }
    case "starting":
      if (owner?.phase === "stopping")
        return `the gateway (${who}) is stopping: wait by \`${command("wait --for free", options)}\`${elsewhere(picture)}`;
      return `the gateway (${who}) has its lock and does not listen yet: wait by \`${command("wait --for ready", options)}\`, or end it by \`${command("stop", options)}\` if that takes too long${elsewhere(picture)}`;
    case "foreign-listener": {
      const strangers = describeListeners(listeners);
      if (isUnlockedOwner(picture))
        return `${strangers} and is the gateway of the record, without a lock: it is of an older program, or the filesystem loses locks; end it before another one starts`;
      return `${strangers} and holds no lock of this gateway: end it, or give the gateway another port`;
    }
    case "stale-record": {
      const left = picture.locks.find(({ record, torn }) => record !== null || torn);
      return `nothing to do: the next start takes over ${left?.path}, which ${describeLeft(picture)} has left`;
    }
    case "free":
      return "nothing to do: no gateway runs, and the next one can start";
  }
}

function explainUnknown(picture: Picture, who: string, options: ResolvedInspection): string {
  const { locked, owner, listeners, isSettled } = picture;
  const again = `\`${command("status", options)}\``;
  if (!isSettled)
    return `it changes all the time: see whether something starts and ends it again and again, then ask ${again}`;
  const another = `ask as root, or as the user who runs the gateway${owner?.hostname ? ` on ${owner.hostname}` : ""}`;
  if (locked === null) {
    const lock = picture.locks.find((seen) => seen.locked === null);
    return `whether the lock at ${lock?.path} is held can't be seen by this user and from here: ${another}, outside of containers`;
  }
  return `the lock is held by ${who}, and ${describeListeners(listeners)}: ${another}`;
}

/** An older program, or one on a filesystem that loses locks: its record is there, its process alive, and its port busy. */
export function isUnlockedOwner({ locked, owner, liveness, listeners, endpoint }: Picture): boolean {
  if (locked !== false || liveness !== "alive" || endpoint === null) return false;
  return listeners.some(({ pid, port }) => port === endpoint.port && (pid === null || pid === owner?.pid));
}

function urlOf({ endpoint, listeners: [listener] }: Picture): string {
  if (endpoint !== null) return formatUrl(endpoint.scheme, endpoint.host, endpoint.port);
  return listener === undefined ? "its port" : addressOf(listener);
}

function addressOf({ address, port }: SeenListener): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

export function describeListeners(listeners: readonly SeenListener[]): string {
  const processes = new Map<number | null, SeenListener[]>();
  for (const listener of listeners) processes.set(listener.pid, [...(processes.get(listener.pid) ?? []), listener]);
  const sentences = [...processes].map(([pid, sockets]) => {
    const command = sockets[0]?.command;
    const process = pid === null ? "a process that this user may not see" : `pid ${pid}`;
    return `${process}${command ? ` (${command})` : ""} listens on ${sockets.map(addressOf).join(" and ")}`;
  });
  return sentences.join(", and ");
}

function describeLeft({ owner, liveness }: Picture): string {
  if (owner === null) return "a record that can't be read";
  return liveness === "gone" ? `pid ${owner.pid}, which is gone,` : `pid ${owner.pid}, which holds it no more,`;
}

/** Whoever has the config, say, may be the gateway of another state directory. */
function elsewhere({ owner, locks }: Picture): string {
  const state = locks.find(({ resource }) => resource.role === "state")?.resource.path;
  return owner === null || owner.stateDir === null || owner.stateDir === state
    ? ""
    : `; its state directory is another one, ${owner.stateDir}`;
}

export function pidsOf(pids: readonly number[]): string {
  return pids.length === 1 ? `pid ${pids[0]}` : `pids ${pids.join(", ")}`;
}

/** As it would be typed, in a POSIX shell. */
export function command(words: string, { stateDir }: ResolvedInspection): string {
  const quoted = /^[\w./:@%+=,-]+$/.test(stateDir) ? stateDir : `'${stateDir.replaceAll("'", `'\\''`)}'`;
  return `gateway-lock ${words} --state-dir ${quoted}`;
}
