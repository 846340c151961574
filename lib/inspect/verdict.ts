// What the evidence means: the verdict, by the contract's order, and the next step in one sentence.

import { EXIT, formatUrl, printable, quote } from "../errors.ts";
import type { Probe } from "../listener/health.ts";
import type { SeenListener } from "../listener/port-owner.ts";
import {
  DEFAULT_HEALTH_PATH,
  DEFAULT_HEALTH_TIMEOUT,
  DEFAULT_HOST,
  DEFAULT_SCHEME,
  type ResolvedInspection,
} from "../options.ts";
import type { Picture } from "./look.ts";
import type { GatewayReport, GatewayVerdict } from "./report.ts";

/** `health` is null where nobody was asked. */
export function judge(picture: Picture, health: Probe | null, options: ResolvedInspection): GatewayReport {
  const verdict = decide(picture, health, options.requireHealth, options.port !== null);
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

function decide(picture: Picture, health: Probe | null, requireHealth: boolean, isPortGiven: boolean): GatewayVerdict {
  const { locked, listeners, locks, isSettled } = picture;
  // An answer with the record's ownerId shows both that the owner lives and that it is the one who listens.
  const isProven = health?.ok === true;
  const strangers = strangersIn(picture);
  if (picture.stateDir.kind === "no-directory") return "unknown";
  if (locked === null && !isProven) return "unknown";
  if (locked === true && isPortUnknown(picture, isPortGiven)) return "unknown";
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

/** Whether a gateway that holds its lock may well listen, where this user does not see it or does not know to look. */
function isPortUnknown(picture: Picture, isPortGiven: boolean): boolean {
  const { owner, holders, listeners, network } = picture;
  if (holders.length === 0 && unreadableIn(picture) !== null) return listeners.length === 0 || !isPortGiven;
  if (listeners.some(({ pid }) => pid === null || holders.includes(pid))) return false;
  return network === "another" || (network === "hidden" && listeners.length === 0 && owner?.phase === "ready");
}

/** A lock file that may have the record, where no record was found. */
function unreadableIn({ owner, locks }: Picture): Picture["locks"][number] | null {
  return owner === null ? (locks.find(({ unreadable }) => unreadable !== null) ?? null) : null;
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
      return `${strangers} and is none of the lock's holders (${who}): give the gateway another port, or end that process if it should not be there`;
    }
    case "expected":
      return `nothing to do: the gateway (${who}) has its lock and listens on ${url}${elsewhere(picture)}`;
    case "unhealthy": {
      if (owner?.phase === "stopping")
        return `the gateway (${who}) is stopping, or making room for a successor: look again in a moment${elsewhere(picture)}`;
      if (owner?.phase === "listening" && health !== null)
        return `the gateway (${who}) has its port, ${url}, and has not said that it is ready yet (${health.error}): wait by \`${command("wait --for ready", options)}\`; if that takes too long, look at its log, or end it by \`${command("stop --force", options)}\`${elsewhere(picture)}`;
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
      return `${strangers} and holds no lock of ${picture.stateDir.path}: if it is a gateway of another state directory, name that with --state-dir; otherwise give this gateway another port, or end it`;
    }
    case "stale-record": {
      const left = picture.locks.find(({ record, torn }) => record !== null || torn);
      return `nothing to do: the next start takes over ${left?.path}${describeLeft(picture)}`;
    }
    case "free":
      return "nothing to do: no gateway runs, and the next one can start";
  }
}

function explainUnknown(picture: Picture, who: string, options: ResolvedInspection): string {
  const { stateDir, locked, owner, holders, listeners, isSettled, network } = picture;
  if (stateDir.kind === "no-directory")
    return `${stateDir.path} is not a directory: name the gateway's state directory with --state-dir`;
  const again = `\`${command("status", options)}\``;
  if (!isSettled)
    return `it changes all the time: see whether something starts and ends it again and again, then ask ${again}`;
  const another = `ask as root, or as the user who runs the gateway${owner?.hostname ? ` on ${owner.hostname}` : ""}`;
  if (locked === null) {
    const lock = picture.locks.find((seen) => seen.locked === null);
    return `whether the lock at ${lock?.path} is held can't be seen by this user and from here: ${another}, outside of containers`;
  }
  const hidden = unreadableIn(picture);
  if (holders.length === 0 && hidden !== null)
    return `the lock is held by ${who}, and its port stands in a record that this user can't read (${hidden.unreadable}: ${hidden.path}): ${another}`;
  if (network === "another") return `the gateway (${who}) ${askThere(picture, "status", options)}`;
  if (listeners.length === 0)
    return `the gateway says that it is ready, and nobody listens on ${urlOf(picture)} here: it may listen in another network namespace, a container say; ${another}`;
  return `the lock is held by ${who}, and ${describeListeners(listeners)}: ${another}`;
}

/** Of a gateway whose sockets can't be seen from here. */
export function askThere({ owner, holders }: Picture, words: string, options: ResolvedInspection): string {
  const pid = owner !== null && holders.includes(owner.pid) ? owner.pid : holders[0];
  return `is in another network namespace, where its port can't be seen from here: as root, run \`nsenter -t ${pid} -n ${command(words, options)}\``;
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
  if (owner === null) return " (its record is torn, and can't be read)";
  return `, which pid ${owner.pid}, which ${liveness === "gone" ? "is gone" : "holds it no more"}, has left`;
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

/** As it would be typed, in a POSIX shell, with all that says which gateway is meant. */
export function command(words: string, options: ResolvedInspection): string {
  const { stateDir, configPath, port, hosts, scheme, locks, lockDir, loopbackGuard, health } = options;
  const given: readonly (readonly [name: string, value: string | number | null])[] = [
    ["--state-dir", stateDir],
    ["--config", configPath],
    ["--port", port],
    ...(hosts.join() === DEFAULT_HOST ? [] : hosts.map((host) => ["--host", host] as const)),
    ["--scheme", scheme === DEFAULT_SCHEME ? null : scheme],
    ...locks.map((lock) => ["--lock", lock] as const),
    ["--lock-dir", lockDir],
    ["--health-path", health.path === DEFAULT_HEALTH_PATH ? null : health.path],
    ["--health-timeout", health.timeout === DEFAULT_HEALTH_TIMEOUT ? null : health.timeout],
  ];
  const parts = given.flatMap(([name, value]) => (value === null ? [] : [name, quote(`${value}`)]));
  return ["gateway-lock", words, ...parts, ...(loopbackGuard ? [] : ["--no-loopback-guard"])].join(" ");
}
