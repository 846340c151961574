// The options that every command takes, and which gateway they mean.

import { formatPorts, reasonOf } from "../errors.ts";
import type { HealthOptions } from "../listener/health.ts";
import {
  checkDeadline,
  checkHost,
  checkPath,
  checkPort,
  checkRequestPath,
  checkReservedPort,
  checkScheme,
  checkTimeout,
  DEFAULT_PORT,
  type GatewayOptions,
  invalidValue,
  type Scheme,
} from "../options.ts";
import type { Profile } from "../profile/profile.ts";
import { Option } from "./commander.ts";

/** A mistake in the command line: exit code 64, `EX_USAGE` of sysexits(3). */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}

/** There is no such program to run: exit code 127. */
export class NoProgramError extends Error {
  override readonly name: string = "NoProgramError";
  readonly code = "ENOENT";
}

/** What the common options come to. */
export interface CommandOptions {
  /** For `acquireGateway`, as they are. A port that nobody named is missing. */
  readonly gateway: GatewayOptions;
  /** What `gateway` comes from, unless a state directory alone says which one it is. */
  readonly profile: Profile | null;
  readonly health: HealthOptions;
  readonly json: boolean;
  /** Whether the command line names a gateway, and not only the environment or nobody. */
  readonly named: boolean;
  /** What whoever has typed this may not expect. */
  readonly notes: readonly string[];
}

/** A port, or all that are derived from the gateway's own. */
type ReservedPort = number | "derived";
const DERIVED = "derived";

/** What commander makes of the command line. */
export interface ParsedOptions {
  readonly stateDir?: string;
  readonly config?: string;
  readonly host?: readonly string[];
  readonly port?: number;
  readonly profile?: string;
  readonly app?: string;
  readonly lock?: readonly string[];
  readonly lockDir?: string;
  readonly reserve?: readonly ReservedPort[];
  readonly scheme?: Scheme;
  readonly timeout?: number;
  readonly healthPath?: string;
  readonly healthTimeout?: number;
  readonly allowNetworkFilesystem?: true;
  readonly loopbackGuard: boolean;
  readonly json?: true;
}

export function commonOptions(): Option[] {
  return [
    option("--state-dir <directory>", "the directory that the gateway alone may use", checkPath),
    option("--config <file>", "the config that it alone may use", checkPath),
    option("--host <address>", "where it listens; repeatable (default: 127.0.0.1)", each(checkHost)),
    option("--port <number>", "the port that it listens on (default: 18789)", (name, text) =>
      checkPort(name, number(text)),
    ),
    option("--profile <name>", "one of the user's gateways, by its name"),
    option("--app <name>", "the program that the profile is of (default: openclaw)"),
    option("--lock <path>", "one more file or directory that it alone may use; repeatable", each(checkPath)),
    option(
      "--reserve <ports>",
      "more ports that it claims: 18791, 18800-18899, or derived; repeatable",
      (name, text, before) => [...((before as ReservedPort[] | undefined) ?? []), ...ports(name, text)],
    ),
    option("--lock-dir <directory>", "where all its lock files lie, if not beside their resources", checkPath),
    option("--scheme <scheme>", "ws, wss, http or https (default: ws)", checkScheme),
    option("--no-loopback-guard", "it was started without a guard on the other loopback family"),
    option("--allow-network-filesystem", "its files may lie on a network filesystem"),
    option("--health-path <path>", "where it says whether it is well (default: /healthz)", checkRequestPath),
    option("--health-timeout <ms>", "how long its answer may take (default: 1000)", (name, text) =>
      checkDeadline(name, number(text), 0),
    ),
    option(
      "--timeout <ms>",
      "how long to wait, or Infinity (default: run 0, stop 10000, wait Infinity)",
      (name, text) => checkTimeout(name, number(text), 0),
    ),
    option("--json", "print one JSON object"),
  ];
}

type Check = (name: string, text: string, before: unknown) => unknown;

function option(flags: string, description: string, check?: Check): Option {
  const made = new Option(flags, description);
  const name = flags.split(" ")[0] as string;
  return check === undefined ? made : made.argParser((text, before) => checked(() => check(name, text, before)));
}

/** What is wrong with an option, is wrong with the command line. */
export function checked<T>(check: () => T): T {
  try {
    return check();
  } catch (error) {
    throw new UsageError(reasonOf(error), { cause: error });
  }
}

const each =
  (check: (name: string, text: string) => string): Check =>
  (name, text, before) => [...((before as string[] | undefined) ?? []), check(name, text)];

/** The text itself where it is none, for a check to complain of. */
export function number(text: string): number | string {
  return /^(\d+(\.\d+)?|Infinity)$/.test(text) ? Number(text) : text;
}

function ports(name: string, text: string): readonly ReservedPort[] {
  return text.split(",").flatMap((untrimmed): readonly ReservedPort[] => {
    const part = untrimmed.trim();
    if (part === DERIVED) return [DERIVED];
    if (!/^\d+(-\d+)?$/.test(part))
      throw invalidValue(name, part, "must be ports (18791), ranges (18800-18899) or 'derived'");
    const [, first, last] = /^(\d+)-(\d+)$/.exec(part) ?? [part, part, part];
    const from = checkReservedPort(name, number(first ?? part));
    const to = checkReservedPort(name, number(last ?? part));
    if (from > to) throw invalidValue(name, part, "must be ranges that go up, as 18800-18899");
    return Array.from({ length: to - from + 1 }, (_, index) => from + index);
  });
}

/**
 * Which gateway is meant. A state directory alone means what `acquireGateway({ stateDir })` means; whatever else leaves it
 * open is a profile's, by its name, the environment and the defaults.
 *
 * @throws UsageError
 */
export async function resolveOptions(parsed: ParsedOptions): Promise<CommandOptions> {
  const { stateDir, config, host, port, profile, app, lock, lockDir, reserve, scheme, timeout } = parsed;
  const isPlain = stateDir !== undefined && profile === undefined && app === undefined;
  const resolved = isPlain ? null : await profileFrom(parsed, profile);
  const base = resolved?.port ?? port ?? DEFAULT_PORT;
  return {
    gateway: {
      ...(isPlain ? { stateDir, configPath: config, port } : (resolved as Profile).options),
      host,
      locks: lock,
      lockDir,
      reserve: await portsFrom(reserve, base),
      scheme,
      timeout,
      allowNetworkFilesystem: parsed.allowNetworkFilesystem,
      ...(parsed.loopbackGuard ? {} : { loopbackGuard: false }),
    },
    profile: resolved,
    health: { path: parsed.healthPath, timeout: parsed.healthTimeout },
    json: parsed.json === true,
    named: [stateDir, config, profile, app, lock, lockDir].some((value) => value !== undefined),
    notes: profile === undefined || resolved === null ? [] : await overridden(resolved, parsed),
  };
}

/** A rescue gateway that is started by the main one has its variables, and so its state directory. */
async function overridden({ app, profile }: Profile, { stateDir, config, port }: ParsedOptions): Promise<string[]> {
  const { overridesIn } = await import("../profile/profile.ts");
  const given = [stateDir, config, port].every((value) => value !== undefined);
  const names = given ? [] : overridesIn(app, process.env);
  const who = profile === null ? "the default profile" : `profile '${profile}'`;
  return names.length === 0
    ? []
    : [
        `${names.join(", ")} in the environment ${names.length === 1 ? "wins" : "win"} over what follows from the name of ${who}`,
      ];
}

/** As it would be typed. */
export function formatReserve(reserve: readonly ReservedPort[]): string {
  const ports = reserve.filter((port) => port !== DERIVED);
  return [...(reserve.includes(DERIVED) ? [DERIVED] : []), ...(ports.length === 0 ? [] : [formatPorts(ports)])].join(
    ",",
  );
}

/**
 * What `--reserve` comes to for a gateway at `base`.
 *
 * @throws UsageError
 */
export async function portsFrom(
  reserve: readonly ReservedPort[] | undefined,
  base: number,
): Promise<readonly number[] | undefined> {
  if (!reserve?.includes(DERIVED)) return reserve as readonly number[] | undefined;
  if (base === 0) throw new UsageError("--reserve derived: with --port 0 nobody knows yet what they are derived from");
  const { derivedFrom, derivedPorts } = await import("../profile/profile.ts");
  return reserve.flatMap((port) => (port === DERIVED ? derivedPorts(derivedFrom(base)) : port));
}

/** @throws UsageError */
export async function profileFrom(
  { app, stateDir, config, port }: ParsedOptions,
  profile: string | undefined,
): Promise<Profile> {
  const { resolveProfile } = await import("../profile/profile.ts");
  return checked(() => resolveProfile({ app, profile, port, stateDir, configPath: config }));
}
