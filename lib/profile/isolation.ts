// Whether gateways that are to run side by side keep out of each other's way.

import { lstatSync, readlinkSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { codeOf } from "../errors.ts";
import { seemsToIgnoreCase } from "../lock/resources.ts";
import {
  checkArray,
  checkPath,
  checkPort,
  checkReservedPort,
  DEFAULT_PORT,
  type GatewayOptions,
  invalidType,
} from "../options.ts";
import { PORT_SPACING } from "./profile.ts";

/** What is compared of a gateway: a profile, or the options of its `acquireGateway`. Other fields are left alone. */
export interface ProfileInstance {
  readonly stateDir: string;
  /** Default: `<stateDir>/gateway.json`. */
  readonly configPath?: string | undefined;
  /** Default: 18789. 0 is in nobody's way. */
  readonly port?: number | undefined;
  /** Default: none. */
  readonly workspace?: string | undefined;
  /** The ports that it claims beside `port`; of a profile, what you reserve of `derived`. Default: `options.reserve`, else none. */
  readonly reserve?: readonly number[] | undefined;
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
  readonly state: Place;
  readonly config: Place;
  readonly workspace: Place | null;
  readonly port: number;
  readonly reserve: readonly number[];
}

interface Place {
  readonly path: string;
  /** Equal for what is the same on this host, whatever it is called. */
  readonly identity: string;
}

/** Closer base ports than this leave no room for what a gateway has beside its port. */
const MIN_SPACING = 20;
const MAX_LINKS = 40; // as path_resolution(7)

/**
 * What each two of `instances` would share: a config, a state directory, a workspace or a port, or ports that both claim (an
 * error); and base ports that are closer than 20 (an error) or 120 (a warning, because derived ports would meet).
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
  const instance = value as Instance;
  const stateDir = checkPath(`${name}.stateDir`, instance.stateDir);
  const { configPath = join(stateDir, "gateway.json"), port = DEFAULT_PORT, workspace } = instance;
  const reserve = instance.reserve ?? instance.options?.reserve ?? [];
  return {
    instance,
    name: nameOf(instance),
    state: placeAt(stateDir),
    // As acquireGateway does: a config's `..` is taken out before links are followed.
    config: placeAt(resolve(checkPath(`${name}.configPath`, configPath))),
    workspace: workspace === undefined ? null : placeAt(checkPath(`${name}.workspace`, workspace)),
    port: checkPort(`${name}.port`, port),
    reserve: checkArray(`${name}.reserve`, reserve, checkReservedPort),
  };
}

function nameOf({ profile, stateDir }: ProfileInstance): string {
  if (profile === undefined) return `the gateway of ${stateDir}`;
  return profile === null ? "the default profile" : `profile '${profile}'`;
}

function compare<Instance>(
  a: Known<Instance & ProfileInstance>,
  b: Known<Instance & ProfileInstance>,
): IsolationFinding<Instance & ProfileInstance>[] {
  const findings: IsolationFinding<Instance & ProfileInstance>[] = [];
  const both = `${a.name} and ${b.name}`;
  const add = (level: "error" | "warning", kind: IsolationFinding["kind"], detail: string) =>
    findings.push({ level, kind, instances: [a.instance, b.instance], detail });
  const isShared = (one: Place | null, other: Place | null): other is Place =>
    one !== null && other !== null && one.identity === other.identity;

  if (isShared(a.config, b.config)) add("error", "config", `${both} have one config: ${spellings(a.config, b.config)}`);
  if (isShared(a.state, b.state))
    add("error", "state", `${both} have one state directory: ${spellings(a.state, b.state)}`);
  if (a.workspace !== null && isShared(a.workspace, b.workspace))
    add("error", "workspace", `${both} have one workspace: ${spellings(a.workspace, b.workspace)}`);
  for (const [one, other] of [
    [a, b],
    [b, a],
  ] as const) {
    if (one.workspace !== null && isShared(one.workspace, other.state))
      add(
        "error",
        "workspace",
        `the workspace of ${one.name} is the state directory of ${other.name}: ${one.workspace.path}`,
      );
  }

  if (a.port !== 0 && a.port === b.port) add("error", "port", `${both} have one port: ${a.port}`);
  const theirs = new Set([b.port, ...b.reserve]);
  const claimed = [...new Set([a.port, ...a.reserve])].filter(
    (port) => port !== 0 && theirs.has(port) && !(port === a.port && port === b.port),
  );
  if (claimed.length > 0) add("error", "derived", `${both} both claim ${rangesOf(claimed)}`);

  const distance = Math.abs(a.port - b.port);
  if (a.port !== 0 && b.port !== 0 && distance > 0 && distance < PORT_SPACING) {
    const level = distance < MIN_SPACING ? "error" : "warning";
    const detail = `the ports of ${both} (${a.port}, ${b.port}) are ${distance} apart: their derived ports (up to 110 above) would meet; leave ${PORT_SPACING}`;
    add(level, "spacing", detail);
  }
  return findings;
}

function spellings(a: Place, b: Place): string {
  return a.path === b.path ? a.path : `${a.path}, which is ${b.path}`;
}

/** "ports 18800-18899, 18901". */
export function rangesOf(ports: readonly number[]): string {
  const ranges: [number, number][] = [];
  for (const port of [...new Set(ports)].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && port === last[1] + 1) last[1] = port;
    else ranges.push([port, port]);
  }
  const text = ranges.map(([first, last]) => (first === last ? first : `${first}-${last}`)).join(", ");
  return /^\d+$/.test(text) ? `port ${text}` : `ports ${text}`;
}

function placeAt(path: string): Place {
  return { path: resolve(path), identity: identityOf(path, MAX_LINKS) };
}

/** Device and inode, which a bind mount does not change; of what is missing, those of what it would lie in, and its name. */
function identityOf(path: string, links: number): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if (codeOf(error) !== "ENOENT") return resolve(path);
  }
  const parent = dirname(path);
  const name = basename(path);
  if (parent === path) return path;
  if (name === "..") return identityOf(resolve(path), links);
  const target = linkAt(path);
  if (target !== null && links > 0) return identityOf(resolve(realpathSync(parent), target), links - 1);
  return join(identityOf(parent, links), seemsToIgnoreCase(parent) ? name.normalize("NFC").toLowerCase() : name);
}

function linkAt(path: string): string | null {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true ? readlinkSync(path) : null;
}
