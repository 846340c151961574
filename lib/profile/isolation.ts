// Whether gateways that are to run side by side keep out of each other's way: what a start would claim, compared without starting.
//
// The locks are those that acquireGateway would take, found by the same code; the sockets are those that it would bind.

import { statSync } from "node:fs";
import { rangesOf } from "../errors.ts";
import { isIPv4, type Target, targetsFor } from "../listener/addresses.ts";
import { identify, locateResources, lockIdentities } from "../lock/resources.ts";
import { isFailure, native } from "../native.ts";
import {
  checkArray,
  checkBoolean,
  checkHosts,
  checkPath,
  checkPort,
  checkReservedPort,
  checkSpelling,
  DEFAULT_HOST,
  DEFAULT_PORT,
  GATEWAY_OPTIONS,
  type GatewayOptions,
  invalidType,
  type Placement,
} from "../options.ts";
import { PORT_SPACING } from "./profile.ts";

/**
 * What is compared of a gateway: a profile, or the options of its `acquireGateway`. What a profile does not have itself is taken from its
 * `options`. Other fields are left alone, unless they look like a slip of the pen.
 */
export interface ProfileInstance {
  readonly stateDir: string;
  /** Default: `<stateDir>/gateway.json`. */
  readonly configPath?: string | undefined;
  /** Default: 18789. 0 is in nobody's way. */
  readonly port?: number | undefined;
  /** Default: none. It is kept from others only if the gateway has it in `locks` too. */
  readonly workspace?: string | undefined;
  /** The files and directories that it locks beside these. Default: none. */
  readonly locks?: readonly string[] | undefined;
  /** Where its lock files lie, if not beside their resources. */
  readonly lockDir?: string | undefined;
  /** The ports that it claims beside `port`; of a profile, what you reserve of `derived`. Default: none. */
  readonly reserve?: readonly number[] | undefined;
  /** Where it listens. Default: `"127.0.0.1"`. */
  readonly host?: string | readonly string[] | undefined;
  /** Default: true. */
  readonly loopbackGuard?: boolean | undefined;
  readonly options?: Partial<GatewayOptions> | undefined;
  /** What it is called in a finding; `null` is the default profile. */
  readonly profile?: string | null | undefined;
}

/** Two gateways that are in each other's way. */
export interface IsolationFinding<Instance extends ProfileInstance = ProfileInstance> {
  /** With an error they can't both run, or harm each other; a warning is what they may meet later. */
  readonly level: "error" | "warning";
  readonly kind: "config" | "state" | "workspace" | "port" | "derived" | "spacing";
  /** The two, as they were given. */
  readonly instances: readonly [Instance, Instance];
  /** What is shared, in a sentence. */
  readonly detail: string;
}

interface Known<Instance> {
  readonly instance: Instance;
  readonly name: string;
  readonly places: readonly Place[];
  readonly port: number;
  readonly reserve: readonly number[];
  readonly targets: readonly Target[];
}

/** A file or directory that one gateway alone may use. */
interface Place {
  readonly noun: "config" | "state directory" | "workspace" | "locked directory" | "locked file";
  readonly path: string;
  readonly identity: string;
  /** What is locked for it. */
  readonly locks: readonly string[];
  /** The file itself, which may have more names than this one; `null` for a directory, and where there is none. */
  readonly file: string | null;
  /** Nobody knows yet which lock it will have: a file's or a directory's. */
  readonly isUnknown: boolean;
}

const FIELDS: readonly string[] = [...GATEWAY_OPTIONS, "workspace", "options", "app", "profile", "derived"];

/** Closer base ports than this leave no room for what a gateway has beside its port. */
const MIN_SPACING = 20;

/**
 * What each two of `instances` would share: a config, a state directory, a workspace or a port, or ports that both claim (an
 * error); and base ports that are closer than 20 (an error) or 120 (a warning, because derived ports would meet).
 *
 * The kernel sees it the same way: of two with an error, the one that starts second is refused, and without one both start. What it does not
 * enforce: base ports that are only too close; a workspace that is not among `locks`; and, as the finding then says, a shared file that has two names
 * (hard links, a mount of the file alone), whose directory this user can't write, or that is used with different `lockDir`s.
 *
 * Paths are compared by what they lead to: through symbolic links, `..`, another case where the directory ignores it, and
 * mounts. Nothing is made. What this user may not look at is compared by its name.
 *
 * @throws TypeError `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE`, RangeError `ERR_SOCKET_BAD_PORT`
 */
export function checkIsolation<Instance extends ProfileInstance>(
  instances: readonly Instance[],
): IsolationFinding<Instance>[] {
  const known = checkArray("instances", instances, lookAt<Instance>);
  return known.flatMap((first, index) => known.slice(index + 1).flatMap((second) => compare(first, second)));
}

function lookAt<Instance extends ProfileInstance>(name: string, value: unknown): Known<Instance> {
  if (typeof value !== "object" || value === null) throw invalidType(name, "a profile", value);
  checkSpelling(value, FIELDS, name);
  const instance = value as Instance;
  const { options = {} } = instance;
  const given = { ...options, ...definedOf(instance) } as ProfileInstance;
  const { configPath, workspace, lockDir, locks = [], reserve = [], port = DEFAULT_PORT, host = DEFAULT_HOST } = given;
  const path = (field: string, value: string | undefined) =>
    value === undefined ? null : checkPath(`${name}.${field}`, value);
  const paths = {
    stateDir: checkPath(`${name}.stateDir`, given.stateDir),
    configPath: path("configPath", configPath),
    lockDir: path("lockDir", lockDir),
    locks: checkArray(`${name}.locks`, locks, checkPath),
  };
  const guarded = checkBoolean(`${name}.loopbackGuard`, given.loopbackGuard, true);
  return {
    instance,
    name: nameOf(given, name),
    places: placesOf(paths, path("workspace", workspace)),
    port: checkPort(`${name}.port`, port),
    reserve: checkArray(`${name}.reserve`, reserve, checkReservedPort),
    targets: targetsFor(checkHosts(host, `${name}.host`), guarded).filter(isThere),
  };
}

function definedOf(instance: object): object {
  return Object.fromEntries(Object.entries(instance).filter(([, value]) => value !== undefined));
}

/** An address that this host lacks is skipped by a start. */
function isThere({ host, optional }: Target): boolean {
  if (!optional) return true;
  try {
    const socket = native().guard(host, 0, 0, false);
    if (isFailure(socket)) return false;
    native().closeSocket(socket.fd);
  } catch {
    // There is no addon to ask, and nothing to be started.
  }
  return true;
}

function placesOf(placement: Placement, workspace: string | null): Place[] {
  const { locks } = placement;
  const all = locateResources({ ...placement, locks: workspace === null ? locks : [workspace, ...locks] });
  const [alone] = workspace === null ? [] : locateResources({ ...placement, locks: [workspace] }).slice(2);
  const workspaceIdentity = alone === undefined ? null : identify(alone);
  return all.map((resource) => {
    const { role, path, isDirectory } = resource;
    const identity = identify(resource);
    const extra = identity === workspaceIdentity ? "workspace" : isDirectory ? "locked directory" : "locked file";
    const noun = role === "other" ? extra : role === "config" ? "config" : "state directory";
    const file = isDirectory ? null : fileAt(path);
    const isUnknown = role === "other" && !isDirectory && file === null;
    return { noun, path, identity, locks: lockIdentities(resource), file, isUnknown };
  });
}

function nameOf({ profile, stateDir }: ProfileInstance, argument: string): string {
  if (profile === undefined) return `the gateway of ${stateDir}`;
  if (profile === null) return "the default profile";
  if (typeof profile !== "string") throw invalidType(`${argument}.profile`, "a string or null", profile);
  return `profile '${profile}'`;
}

function compare<Instance>(
  a: Known<Instance & ProfileInstance>,
  b: Known<Instance & ProfileInstance>,
): IsolationFinding<Instance & ProfileInstance>[] {
  const findings: IsolationFinding<Instance & ProfileInstance>[] = [];
  const both = `${a.name} and ${b.name}`;
  const add = (level: "error" | "warning", kind: IsolationFinding["kind"], detail: string) =>
    findings.push({ level, kind, instances: [a.instance, b.instance], detail });

  for (const one of a.places) {
    for (const other of b.places) {
      const isEnforced = one.locks.some((lock) => other.locks.includes(lock));
      // Two names of one file: hard links, or a mount of the file.
      const isOneFile = one.file !== null && one.file === other.file;
      if (!isEnforced && !isOneFile && one.identity !== other.identity) continue;
      const told = describeShared(a.name, one, b.name, other);
      const isSilent = isEnforced || one.isUnknown || other.isUnknown;
      add("error", kindOf(one, other), isSilent ? told : `${told}; each of them has a lock of its own there`);
    }
  }
  findings.sort((x, y) => KINDS.indexOf(x.kind) - KINDS.indexOf(y.kind));

  const theirs = new Set([b.port, ...b.reserve]);
  const shared = [...new Set([a.port, ...a.reserve])].filter((port) => port !== 0 && theirs.has(port));
  const meeting = shared.length === 0 ? null : meetingOf(a.targets, b.targets);
  if (meeting !== null) {
    const claimed = shared.filter((port) => !(port === a.port && port === b.port));
    if (claimed.length < shared.length) add("error", "port", `${both} have one port: ${a.port}${meeting}`);
    if (claimed.length > 0) add("error", "derived", `${both} both claim ${rangesOf(claimed)}${meeting}`);
  }

  const distance = Math.abs(a.port - b.port);
  if (a.port !== 0 && b.port !== 0 && distance > 0 && distance < PORT_SPACING) {
    const level = distance < MIN_SPACING ? "error" : "warning";
    const detail = `the ports of ${both} (${a.port}, ${b.port}) are ${distance} apart: their derived ports (up to 110 above) would meet; leave ${PORT_SPACING}`;
    add(level, "spacing", detail);
  }
  return findings;
}

function describeShared(a: string, one: Place, b: string, other: Place): string {
  if (isExtra(other) && !isExtra(one)) return describeShared(b, other, a, one);
  const where = one.path === other.path ? one.path : `${one.path}, which is ${other.path}`;
  if (one.noun === other.noun) return `${a} and ${b} have one ${one.noun}: ${where}`;
  return `the ${one.noun} of ${a} is the ${other.noun} of ${b}: ${where}`;
}

/** What a gateway has beside what every gateway has. */
function isExtra({ noun }: Place): boolean {
  return noun !== "config" && noun !== "state directory";
}

/** What to do about a finding. */
export const REMEDIES: Readonly<Record<IsolationFinding["kind"], string>> = {
  config: "give each its own config (--config, <APP>_CONFIG_PATH)",
  state: "give each its own state directory (--state-dir, <APP>_STATE_DIR)",
  workspace: "give each its own state directory (--state-dir, <APP>_STATE_DIR)",
  port: "give one of them another port (--port, <APP>_GATEWAY_PORT)",
  derived: "give one of them another port (--port, <APP>_GATEWAY_PORT), or reserve other ports",
  spacing: "give one of them another port (--port, <APP>_GATEWAY_PORT)",
};

/** In the order in which findings are told. */
const KINDS: readonly IsolationFinding["kind"][] = ["config", "state", "workspace", "port", "derived", "spacing"];

function kindOf(one: Place, other: Place): IsolationFinding["kind"] {
  if (one.noun === "config" || other.noun === "config") return "config";
  return one.noun === "state directory" && other.noun === "state directory" ? "state" : "workspace";
}

function fileAt(path: string): string | null {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return null; // it is not there, or not for this user to look at
  }
}

/** Where two gateways stand in each other's way, if they have one port; `null` if nowhere. */
function meetingOf(targets: readonly Target[], others: readonly Target[]): string | null {
  const pairs = targets.flatMap((one) => others.map((other) => [one, other] as const));
  const meeting = pairs.filter(([one, other]) => areRivals(one, other));
  const [first] = meeting;
  if (first === undefined) return null;
  const isPlain = meeting.some(([one, other]) => one.host === other.host);
  return isPlain ? "" : `, at ${first[0].host} and ${first[1].host}`;
}

/** Whether the kernel lets only one of two sockets have a port. */
function areRivals(one: Target, other: Target): boolean {
  const [mine, theirs] = [withoutZone(one.host), withoutZone(other.host)];
  if (mine === theirs) return true;
  if (isIPv4(mine) === isIPv4(theirs)) return isWildcard(mine) || isWildcard(theirs);
  // IPv4 and IPv6 meet only at a socket that takes both.
  return isIPv4(mine) ? theirs === "::" && other.dualStack : mine === "::" && one.dualStack;
}

/** Only an address that is local to a link is another one by its zone (RFC 4007). */
function withoutZone(host: string): string {
  return /^fe[89ab]/i.test(host) ? host : (host.split("%")[0] ?? host);
}

function isWildcard(address: string): boolean {
  return address === "0.0.0.0" || address === "::";
}
