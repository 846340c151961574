// Options, checked once, at the edge: what comes out of here is complete and needs no second look.

import { inspect } from "node:util";
import type { GatewayReport } from "./inspect/report.ts";
import { parseAddress } from "./listener/addresses.ts";
import type { HealthOptions, ResolvedHealth } from "./listener/health.ts";

export const DEFAULT_HEALTH_PATH = "/healthz";
export const DEFAULT_HEALTH_TIMEOUT = 1000; // ms

/** JSON that the user keeps in the owner record. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };
export type Metadata = { readonly [key: string]: JsonValue };

export type Scheme = "ws" | "wss" | "http" | "https";

/** What `acquireGateway` takes. */
export interface GatewayOptions {
  /** The directory that the gateway alone may use. Made with mode 0700 if missing; a symbolic link is its target. */
  stateDir: string;
  /** The config file that the gateway alone may use; it need not exist. Default: `<stateDir>/gateway.json`. */
  configPath?: string | undefined;
  /** 0–65535; 0 is the kernel's choice, the same number on every host. Default: 18789. */
  port?: number | undefined;
  /** IP literals, or `"localhost"` for 127.0.0.1 and ::1. Names are not looked up. Default: `"127.0.0.1"`. */
  host?: string | readonly string[] | undefined;
  /** Only for the URL in messages and records. Default: `"ws"`. */
  scheme?: Scheme | undefined;
  /** Puts all lock files here instead of beside their resources. Every contender must give the same one. */
  lockDir?: string | undefined;
  /** More existing files or directories that the gateway alone may use, a workspace, say. */
  locks?: readonly string[] | undefined;
  /**
   * More ports to claim, on the same hosts and as exclusively: derived ports, say. 1–65535; `port` itself is claimed anyway. They
   * refuse clients until `listen(server, port)` or `claim(port)`. Default: none.
   */
  reserve?: readonly number[] | undefined;
  /**
   * How long to wait for an owner to leave, in ms; then `ALREADY_LISTENING` or `ALREADY_RUNNING`. `Infinity` waits as its standby.
   * Default: 0, which fails fast.
   */
  timeout?: number | undefined;
  /** Ends a wait; the promise then rejects with `signal.reason`. Of no effect once the claim is held. */
  signal?: AbortSignal | undefined;
  /** For a loopback host: keep rivals off the same port of the other loopback family. Default: true. */
  loopbackGuard?: boolean | undefined;
  /** The listen queue's length; the kernel caps it (listen(2)). Default: 511. */
  backlog?: number | undefined;
  /** The user's own fields, in the record under `metadata`: at most 2048 bytes of JSON. Default: none. */
  metadata?: Metadata | undefined;
  /** Accept a filesystem that other hosts can write too, on the user's own proof that it locks. Default: false. */
  allowNetworkFilesystem?: boolean | undefined;
  /**
   * Take a running gateway over, with all of its locks and sockets and without losing a request, if its owner has this option too; and hand this one
   * over when a successor asks for it. Not on Windows. Default: false.
   */
  handover?: boolean | HandoverOptions | undefined;
}

/** What an owner does when its gateway goes to another process of the same user. */
export interface HandoverOptions {
  /**
   * Awaited when a successor has asked, and nobody is accepted any more: the moment to end what would not end by itself, event streams, or WebSockets
   * with a close code of your own. What is no HTTP is hung up on afterwards, and requests are waited for.
   */
  onDrain?: (() => Promise<void> | void) | undefined;
  /**
   * Awaited when every request was answered and every connection has ended: the last moment to write to the state directory. If it rejects,
   * or has not resolved after 10 s, the gateway stays here.
   */
  onHandover?: (() => Promise<void> | void) | undefined;
  /** Awaited when a handover was broken off after one of the others was called: the gateway stays here, and serves on when this has resolved. */
  onResume?: (() => Promise<void> | void) | undefined;
}

/** Which gateway is looked at: the options of `acquireGateway` as they are. Those that say nothing about that are of no effect. */
export interface InspectOptions extends GatewayOptions {
  /** Where the gateway listens; its record tells that too. Default: what the record says, else 18789. */
  port?: number | undefined;
  /** How the gateway is asked whether it is well. */
  health?: HealthOptions | undefined;
  /** A gateway that does not prove to be well counts as a failure. Default: false. */
  requireHealth?: boolean | undefined;
}

/** What `waitForGateway` takes. */
export interface WaitOptions extends InspectOptions {
  /**
   * `free`: nobody holds a lock of it; a stranger on its port does not count, an older gateway that takes no lock does.
   * `ready`: it has its lock, listens, and says that it is ready, in its record or by an answer to the health probe.
   */
  for: "free" | "ready";
  /** ms. Default: `Infinity`. */
  timeout?: number | undefined;
  /** Ends the wait; the promise then rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
  /** Is told of what is there at first, and of each change. For `free`, nobody is asked whether it is well. */
  onChange?: ((report: GatewayReport) => void) | undefined;
}

/** What `stopGateway` takes. */
export interface StopOptions extends InspectOptions {
  /** SIGKILL for whoever has not gone by the timeout, and for an owner who is known by the kernel alone. Default: false. */
  force?: boolean | undefined;
  /** The process that is meant. With `force` it may be one that holds no lock, but listens on the port. */
  pid?: number | undefined;
  /** How long SIGTERM may take, in ms. Default: 10000. */
  timeout?: number | undefined;
  /** Ends the wait; the promise then rejects with `signal.reason`. What was sent stays sent. */
  signal?: AbortSignal | undefined;
  /** Is told what is done, in words. */
  onProgress?: ((text: string) => void) | undefined;
}

/** What `superviseGateway` takes: what `acquireGateway` takes, and what to do about a gateway that is there already. */
export interface SuperviseOptions extends GatewayOptions {
  /** How the other gateway is asked whether it is well. */
  health?: HealthOptions | undefined;
  /** How long one that is not well is put up with. */
  retry?: RetryOptions | undefined;
  /** What to do beside a gateway that is well: leave it in control, or wait as its standby. Default: `"leave"`. */
  onDuplicate?: "leave" | "standby" | undefined;
}

export interface RetryOptions {
  /** ms between two looks at a gateway that is not well; when its lock is freed, that is noticed at once. Default: 5000. */
  interval?: number | undefined;
  /** After how many ms to give up with `NOT_HEALTHY`; 0 = after the first look, `Infinity` = never. Default: 300000. */
  limit?: number | undefined;
}

/** The options of `superviseGateway`, complete. */
export interface ResolvedSuperviseOptions {
  readonly claim: ResolvedOptions;
  readonly health: ResolvedHealth;
  readonly retry: { readonly interval: number; readonly limit: number };
  readonly onDuplicate: "leave" | "standby";
}

/** What `bindExclusive` takes. */
export type ListenerOptions = Pick<GatewayOptions, "host" | "port" | "backlog">;

/** The options that decide where a gateway listens, complete. */
export interface Endpoints {
  readonly hosts: readonly string[];
  readonly port: number;
  readonly scheme: Scheme;
  readonly backlog: number;
  readonly loopbackGuard: boolean;
  /** Each once, without `port`. */
  readonly reserve: readonly number[];
}

/** The options that decide where the locks lie, complete. */
export interface Placement {
  readonly stateDir: string;
  readonly configPath: string | null;
  readonly lockDir: string | null;
  readonly locks: readonly string[];
}

/** The options of `inspectGateway`, complete. */
export interface ResolvedInspection extends Placement, Pick<Endpoints, "hosts" | "scheme" | "loopbackGuard"> {
  /** `null`: not given. */
  readonly port: number | null;
  readonly health: ResolvedHealth;
  readonly requireHealth: boolean;
}

/** The options of `acquireGateway`, complete. */
export interface ResolvedOptions extends Placement, Endpoints {
  readonly timeout: number;
  readonly signal: AbortSignal | null;
  readonly metadata: Metadata;
  readonly allowNetworkFilesystem: boolean;
  /** `null`: neither taken over nor handed over. */
  readonly handover: HandoverOptions | null;
}

export const MAX_METADATA_BYTES = 2048;
export const DEFAULT_PORT = 18789;
export const DEFAULT_HOST = "127.0.0.1";
export const DEFAULT_SCHEME: Scheme = "ws";
const DEFAULT_BACKLOG = 511;
const MAX_BACKLOG = 2 ** 31 - 1;
const DEFAULT_RETRY_INTERVAL = 5000; // ms
const DEFAULT_RETRY_LIMIT = 300_000; // ms
const SCHEMES: readonly Scheme[] = ["ws", "wss", "http", "https"];

export const GATEWAY_OPTIONS: readonly (keyof GatewayOptions)[] = [
  "stateDir",
  "configPath",
  "port",
  "host",
  "scheme",
  "lockDir",
  "locks",
  "reserve",
  "timeout",
  "signal",
  "loopbackGuard",
  "backlog",
  "metadata",
  "allowNetworkFilesystem",
  "handover",
];
const HANDOVER_HOOKS: readonly (keyof HandoverOptions)[] = ["onDrain", "onHandover", "onResume"];
const INSPECT_OPTIONS: readonly (keyof InspectOptions)[] = [...GATEWAY_OPTIONS, "health", "requireHealth"];
const SUPERVISE_OPTIONS: readonly (keyof SuperviseOptions)[] = [...GATEWAY_OPTIONS, "health", "retry", "onDuplicate"];
const LISTENER_OPTIONS: readonly (keyof ListenerOptions)[] = ["host", "port", "backlog"];

/**
 * @throws TypeError `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE`, RangeError `ERR_SOCKET_BAD_PORT` or `ERR_OUT_OF_RANGE`
 */
export function resolveGatewayOptions(options: GatewayOptions): ResolvedOptions {
  if (typeof options === "object" && options !== null && "derived" in options && "options" in options)
    throw invalidValue("options", options, "is a whole profile; did you mean its 'options'?");
  const given = checkNames(options, GATEWAY_OPTIONS);
  const endpoints = resolveEndpoints(given);
  const reserve = new Set(checkReserve(given.reserve));
  reserve.delete(endpoints.port);
  return {
    ...endpoints,
    ...resolveIdentity(given),
    reserve: [...reserve],
    timeout: checkTimeout("timeout", given.timeout, 0),
    signal: checkSignal(given.signal),
    metadata: given.metadata === undefined ? {} : checkMetadata(given.metadata),
    allowNetworkFilesystem: checkBoolean("allowNetworkFilesystem", given.allowNetworkFilesystem, false),
    handover: checkHandover(given.handover),
  };
}

/**
 * `more` are the names of options that the caller checks itself.
 *
 * @throws TypeError, RangeError
 */
export function resolveInspectOptions(options: InspectOptions, more: readonly string[] = []): ResolvedInspection {
  const given = checkNames(options, [...INSPECT_OPTIONS, ...(more as typeof INSPECT_OPTIONS)]);
  return {
    ...resolveIdentity(given),
    hosts: checkHosts(given.host === undefined ? DEFAULT_HOST : given.host),
    port: given.port === undefined ? null : checkPort("port", given.port),
    health: checkHealth(given.health),
    requireHealth: checkBoolean("requireHealth", given.requireHealth, false),
  };
}

export interface ResolvedWait extends ResolvedInspection {
  readonly goal: WaitOptions["for"];
  readonly timeout: number;
  readonly signal: AbortSignal | null;
  readonly onChange: WaitOptions["onChange"];
}

/** @throws TypeError, RangeError */
export function resolveWaitOptions(options: WaitOptions): ResolvedWait {
  const inspection = resolveInspectOptions(options, ["for", "onChange"]);
  if (options.for !== "free" && options.for !== "ready")
    throw invalidValue("for", options.for, "must be one of 'free', 'ready'");
  return {
    ...inspection,
    goal: options.for,
    timeout: checkTimeout("timeout", options.timeout, Infinity),
    signal: checkSignal(options.signal),
    onChange: checkCallback("onChange", options.onChange),
  };
}

export interface ResolvedStop extends ResolvedInspection {
  readonly force: boolean;
  readonly pid: number | null;
  readonly timeout: number;
  readonly signal: AbortSignal | null;
  readonly onProgress: StopOptions["onProgress"];
}

const STOP_TIMEOUT = 10_000; // ms
const MAX_PID = 2 ** 31 - 1;

/** @throws TypeError, RangeError */
export function resolveStopOptions(options: StopOptions): ResolvedStop {
  const inspection = resolveInspectOptions(options, ["force", "pid", "onProgress"]);
  return {
    ...inspection,
    force: checkBoolean("force", options.force, false),
    pid: options.pid === undefined ? null : checkPid("pid", options.pid),
    timeout: checkTimeout("timeout", options.timeout, STOP_TIMEOUT),
    signal: checkSignal(options.signal),
    onProgress: checkCallback("onProgress", options.onProgress),
  };
}

export function checkPid(name: string, value: unknown): number {
  if (typeof value !== "number") throw invalidType(name, "a number", value);
  if (!Number.isInteger(value) || value < 1 || value > MAX_PID)
    throw outOfRange(name, `an integer from 1 to ${MAX_PID}`, value);
  return value;
}

function checkCallback<T>(name: string, value: T): T {
  if (value !== undefined && typeof value !== "function") throw invalidType(name, "a function", value);
  return value;
}

function resolveIdentity(given: GatewayOptions): Placement & Pick<Endpoints, "scheme" | "loopbackGuard"> {
  return {
    scheme: given.scheme === undefined ? DEFAULT_SCHEME : checkScheme("scheme", given.scheme),
    loopbackGuard: checkBoolean("loopbackGuard", given.loopbackGuard, true),
    stateDir: checkPath("stateDir", given.stateDir),
    configPath: given.configPath === undefined ? null : checkPath("configPath", given.configPath),
    lockDir: given.lockDir === undefined ? null : checkPath("lockDir", given.lockDir),
    locks: given.locks === undefined ? [] : checkArray("locks", given.locks, checkPath),
  };
}

/** @throws as resolveGatewayOptions() */
export function resolveSuperviseOptions(options: SuperviseOptions): ResolvedSuperviseOptions {
  const { health, retry = {}, onDuplicate = "leave", ...claim } = checkNames(options, SUPERVISE_OPTIONS);
  const { interval, limit } = checkNames(retry, ["interval", "limit"], "retry");
  if (onDuplicate !== "leave" && onDuplicate !== "standby")
    throw invalidValue("onDuplicate", onDuplicate, "must be 'leave' or 'standby'");
  return {
    claim: resolveGatewayOptions(claim),
    health: checkHealth(health),
    retry: {
      interval: checkDeadline("retry.interval", interval, DEFAULT_RETRY_INTERVAL),
      limit: checkTimeout("retry.limit", limit, DEFAULT_RETRY_LIMIT),
    },
    onDuplicate,
  };
}

export function resolveListenerOptions(options: ListenerOptions): Endpoints {
  return resolveEndpoints(checkNames(options, LISTENER_OPTIONS));
}

function resolveEndpoints(given: ListenerOptions): Endpoints {
  return {
    hosts: checkHosts(given.host === undefined ? DEFAULT_HOST : given.host),
    port: given.port === undefined ? DEFAULT_PORT : checkPort("port", given.port),
    scheme: DEFAULT_SCHEME,
    backlog: checkBacklog(given.backlog),
    loopbackGuard: false,
    reserve: [],
  };
}

/** @throws TypeError, RangeError */
export function checkHealth(value: HealthOptions | undefined): ResolvedHealth {
  const { path, timeout, check } = value === undefined ? {} : checkNames(value, ["path", "timeout", "check"], "health");
  if (check !== undefined && typeof check !== "function") throw invalidType("health.check", "a function", check);
  return {
    path: path === undefined ? DEFAULT_HEALTH_PATH : checkRequestPath("health.path", path),
    timeout: checkDeadline("health.timeout", timeout, DEFAULT_HEALTH_TIMEOUT),
    check: check ?? null,
  };
}

export function checkRequestPath(name: string, value: unknown): string {
  if (typeof value !== "string") throw invalidType(name, "a string", value);
  if (!/^\/[!-~]*$/.test(value)) throw invalidValue(name, value, "must begin with '/' and be percent-encoded");
  return value;
}

/** ms, more than 0: of what must end. */
export function checkDeadline(name: string, value: unknown, byDefault: number): number {
  const ms = checkTimeout(name, value, byDefault);
  if (ms === 0 || ms === Infinity) throw outOfRange(name, "more than 0 and finite", value);
  return ms;
}

/** An options object has only known names, each at most once. */
export function checkNames<T extends object>(options: T, known: readonly (keyof T & string)[], argument?: string): T {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw invalidType(argument ?? "options", "an object", options);
  }
  const prefix = argument === undefined ? "" : `${argument}.`;
  for (const name of Object.keys(options)) {
    if ((known as readonly string[]).includes(name)) continue;
    const nearest = [...known].sort((a, b) => distance(name, a) - distance(name, b))[0];
    const value = (options as Record<string, unknown>)[name];
    throw invalidValue(prefix + name, value, `is unknown; did you mean '${prefix}${nearest}'?`);
  }
  return options;
}

/** For objects that may have names of their own: one that is nearly a known one is a slip. */
export function checkSpelling(object: object, known: readonly string[], argument: string): void {
  for (const name of Object.keys(object)) {
    const near = known.includes(name) ? undefined : known.find((one) => distance(name, one) <= 1);
    if (near !== undefined)
      throw invalidValue(
        `${argument}.${name}`,
        (object as Record<string, unknown>)[name],
        `is unknown; did you mean '${near}'?`,
      );
  }
}

export function checkPath(name: string, value: unknown): string {
  if (typeof value !== "string") throw invalidType(name, "a string", value);
  if (value === "") throw invalidValue(name, value, "must not be empty");
  if (value.includes("\0")) throw invalidValue(name, value, "must not contain a null byte");
  return value;
}

export function checkBoolean(name: string, value: unknown, byDefault: boolean): boolean {
  if (value === undefined) return byDefault;
  if (typeof value !== "boolean") throw invalidType(name, "a boolean", value);
  return value;
}

/** ms from 0 to Infinity. */
export function checkTimeout(name: string, value: unknown, byDefault: number): number {
  if (value === undefined) return byDefault;
  if (typeof value !== "number") throw invalidType(name, "a number of milliseconds", value);
  if (!(value >= 0)) throw outOfRange(name, "at least 0", value);
  return value;
}

export function checkSignal(value: unknown): AbortSignal | null {
  if (value === undefined) return null;
  if (!(value instanceof AbortSignal)) throw invalidType("signal", "an AbortSignal", value);
  return value;
}

/** A copy of the user's fields that is certainly JSON, and small enough for the record. */
export function checkMetadata(value: unknown): Metadata {
  if (!isPlainObject(value)) throw invalidType("metadata", "an object of JSON values", value);
  let text: string;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw invalidValue("metadata", value, "must be JSON", cause);
  }
  if (!isJson(value)) throw invalidValue("metadata", value, "must be JSON, which has no such values");
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_METADATA_BYTES) {
    throw invalidValue("metadata", value, `must be at most ${MAX_METADATA_BYTES} bytes of JSON, not ${bytes}`);
  }
  return JSON.parse(text) as Metadata;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null; // of whatever realm
}

/** Whether JSON.stringify writes what is there, and not null or a guess in its place. It must have ended well before. */
function isJson(value: unknown): boolean {
  if (value === null || typeof value === "string" || typeof value === "boolean") return true;
  if (typeof value === "number") return Number.isFinite(value);
  if (Array.isArray(value)) return value.every(isJson);
  // A field that is undefined is one that is left out.
  return isPlainObject(value) && Object.values(value).every((field) => field === undefined || isJson(field));
}

function checkHandover(value: GatewayOptions["handover"]): HandoverOptions | null {
  if (value === undefined || value === false) return null;
  if (value !== true && (typeof value !== "object" || value === null || Array.isArray(value)))
    throw invalidType("handover", "a boolean or an object", value);
  const hooks = value === true ? {} : checkNames(value, HANDOVER_HOOKS, "handover");
  for (const name of HANDOVER_HOOKS) checkCallback(`handover.${name}`, hooks[name]);
  if (process.platform === "win32")
    throw invalidValue(
      "handover",
      value,
      "is not available on Windows, where no process can give its locks to another",
    );
  return hooks;
}

export function checkPort(name: string, value: unknown): number {
  if (typeof value !== "number") throw invalidType(name, "a number", value);
  if (!Number.isInteger(value) || value < 0 || value > 65535) throw badPort(name, "an integer from 0 to 65535", value);
  return value;
}

/** Ports, as they were given. */
export function checkReserve(value: unknown): readonly number[] {
  return value === undefined ? [] : checkArray("reserve", value, checkReservedPort);
}

export function checkReservedPort(name: string, value: unknown): number {
  if (typeof value !== "number") throw invalidType(name, "a number", value);
  if (!Number.isInteger(value) || value < 1 || value > 65535) throw badPort(name, "an integer from 1 to 65535", value);
  return value;
}

function checkBacklog(value: unknown): number {
  if (value === undefined) return DEFAULT_BACKLOG;
  if (typeof value !== "number") throw invalidType("backlog", "a number", value);
  if (!Number.isInteger(value) || value < 1 || value > MAX_BACKLOG) {
    throw outOfRange("backlog", `an integer from 1 to ${MAX_BACKLOG}`, value);
  }
  return value;
}

export function checkHosts(value: unknown, name: string = "host"): readonly string[] {
  if (typeof value === "string") return [checkHost(name, value)];
  if (!Array.isArray(value)) throw invalidType(name, "a string or an array of strings", value);
  if (value.length === 0) throw invalidValue(name, value, "must name at least one address");
  return checkArray(name, value, checkHost);
}

export function checkHost(name: string, value: unknown): string {
  if (typeof value !== "string") throw invalidType(name, "a string", value);
  const host = value === "localhost" ? value : parseAddress(value);
  if (host === null) throw invalidValue(name, value, "must be an IPv4 or IPv6 address, or 'localhost'");
  return host;
}

export function checkScheme(name: string, value: unknown): Scheme {
  if (typeof value !== "string") throw invalidType(name, "a string", value);
  if (!(SCHEMES as readonly string[]).includes(value)) {
    throw invalidValue(name, value, `must be one of ${SCHEMES.map((scheme) => `'${scheme}'`).join(", ")}`);
  }
  return value as Scheme;
}

export function checkArray<T>(name: string, value: unknown, check: (name: string, item: unknown) => T): readonly T[] {
  if (!Array.isArray(value)) throw invalidType(name, "an array", value);
  return Array.from(value, (item, index) => check(`${name}[${index}]`, item)); // holes too
}

// Node's own codes and its way of saying it, so that callers need not tell our mistakes from Node's.

/** Variables have names in capitals. */
function subjectOf(name: string): string {
  return `The "${name}" ${/^[A-Z0-9_]+$/.test(name) ? "variable" : "option"}`;
}

export function invalidType(name: string, wanted: string, value: unknown): TypeError {
  const message = `${subjectOf(name)} must be ${wanted}. Received ${brief(value)}`;
  return Object.assign(new TypeError(message), { code: "ERR_INVALID_ARG_TYPE" });
}

export function invalidValue(name: string, value: unknown, problem: string, cause?: unknown): TypeError {
  const end = problem.endsWith("?") ? "" : ".";
  const message = `${subjectOf(name)} ${problem}${end} Received ${brief(value)}`;
  const error = new TypeError(message, cause === undefined ? undefined : { cause });
  return Object.assign(error, { code: "ERR_INVALID_ARG_VALUE" });
}

function outOfRange(name: string, wanted: string, value: unknown): RangeError {
  const message = `The "${name}" option must be ${wanted}. Received ${brief(value)}`;
  return Object.assign(new RangeError(message), { code: "ERR_OUT_OF_RANGE" });
}

export function badPort(name: string, wanted: string, value: unknown): RangeError {
  const message = `${subjectOf(name)} must be ${wanted}. Received ${brief(value)}`;
  return Object.assign(new RangeError(message), { code: "ERR_SOCKET_BAD_PORT" });
}

function brief(value: unknown): string {
  const text = inspect(value, { depth: 0, breakLength: Infinity });
  return text.length > 80 ? `${text.slice(0, 79)}\u2026` : text;
}

/** Edits that turn one name into the other (Levenshtein), whatever their case. */
function distance(a: string, b: string): number {
  const [from, to] = [a.toLowerCase(), b.toLowerCase()];
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const swap = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
