// Profiles: several gateways of one user, each with a state directory, a config and a port that follow from its name.

import { homedir, userInfo } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { digest } from "../digest.ts";
import { badPort, checkNames, checkPath, checkPort, DEFAULT_PORT, invalidType, invalidValue } from "../options.ts";

/** What `resolveProfile` takes. Options win over the environment, the environment over defaults. */
export interface ProfileOptions {
  /** The program: `~/.<app>`, `<app>.json` and the names of the variables follow from it. Default: `"openclaw"`. */
  app?: string | undefined;
  /** Which of its gateways. Default: `<APP>_PROFILE`, else none. `"default"` is none too, whatever the variable says. */
  profile?: string | undefined;
  /** 0–65535. Default: `<APP>_GATEWAY_PORT`, else 18789, or the named profile's own. */
  port?: number | undefined;
  /**
   * It may begin with `~`, `$HOME` or `$XDG_STATE_HOME` (or `_CONFIG_`, `_DATA_`), on Windows with `%USERPROFILE%`, `%APPDATA%` or
   * `%LOCALAPPDATA%`; so may a variable's value. Default: `<APP>_STATE_DIR`, else `~/.<app>` or `~/.<app>-<profile>`.
   */
  stateDir?: string | undefined;
  /** As `stateDir`. Default: `<APP>_CONFIG_PATH`, else `<stateDir>/<app>.json`. */
  configPath?: string | undefined;
  /** Where the variables come from. An empty one counts as missing; on Windows their case does not count. Default: `process.env`. */
  env?: { readonly [name: string]: string | undefined } | undefined;
  /** The user's home directory. Default: what `env` says (`HOME`, on Windows `USERPROFILE`), else the system. */
  home?: string | undefined;
}

/** One gateway of a user; its paths are absolute. */
export interface Profile {
  readonly app: string;
  /** `null` where none is named. */
  readonly profile: string | null;
  readonly stateDir: string;
  readonly configPath: string;
  readonly port: number;
  /** `<stateDir>/workspace`. */
  readonly workspace: string;
  /**
   * Ports that follow from `port`; nobody claims them unless the caller reserves them. 0 while the kernel has not chosen
   * the port. A port above 65425 leaves no room for all of them: those beyond 65535 do not exist.
   */
  readonly derived: {
    /** Base + 2. */
    readonly browserControl: number;
    /** Base + 11 to base + 110, the first and the last. */
    readonly cdp: readonly [first: number, last: number];
  };
  /** For `acquireGateway`, as they are. */
  readonly options: { readonly stateDir: string; readonly configPath: string; readonly port: number };
}

const PROFILE_OPTIONS: readonly (keyof ProfileOptions)[] = [
  "app",
  "profile",
  "port",
  "stateDir",
  "configPath",
  "env",
  "home",
];
const DEFAULT_APP = "openclaw";
const DEFAULT_PROFILE = "default";

/** What names a profile becomes a part of file names, on every system, and of units and containers. */
const NAME = /^(?!.*\.\.)[a-z0-9_]([a-z0-9._-]{0,62}[a-z0-9_-])?$/i;
/** Windows' devices, with or without an extension ("Naming Files, Paths, and Namespaces" in its documentation). */
const DEVICE = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i;

/** Base ports of profiles are this far apart, so that their derived ports never meet. */
export const PORT_SPACING = 120;
export const LAST_PORT = 65535;
const NAMED_PORTS = 100;
const BROWSER_CONTROL = 2;
const CDP = [11, 110] as const;

/**
 * Which state directory, config and port a profile has. Nothing is made, and nothing is looked at but the environment.
 *
 * `XDG_STATE_HOME` and its like do not move `~/.<app>`: a login shell may have them where a service has not, and the same profile would then be
 * two gateways. Who wants that says so: `<APP>_STATE_DIR='$XDG_STATE_HOME/<app>'`.
 *
 * A named profile without a port has a stable one: 18789 + 120 × (1 + the first 32 bits of the name's SHA-256, mod 100). Two
 * names in a hundred share one; `checkIsolation` tells.
 *
 * @throws TypeError `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE`, RangeError `ERR_SOCKET_BAD_PORT`; each names the
 * option or the variable. Names are 1 to 64 of `A-Z a-z 0-9 . _ -`; they begin with no dot or dash, end with no dot, and
 * are neither a device of Windows' nor contain two dots in a row.
 */
export function resolveProfile(options: ProfileOptions = {}): Profile {
  const given = checkNames(options, PROFILE_OPTIONS);
  const app = given.app === undefined ? DEFAULT_APP : checkName("app", given.app);
  const env = checkEnvironment(given.env);
  const variable = (suffix: string) => {
    const name = variableOf(app, suffix);
    return { name, value: readVariable(env, name) };
  };
  const home = () => homeOf(given.home, env);
  /** The option, else the variable. */
  const path = (name: string, option: string | undefined, suffix: string): string | undefined => {
    const source = option === undefined ? variable(suffix) : { name, value: option };
    return source.value === undefined
      ? undefined
      : expand(source.name, checkPath(source.name, source.value), home, env);
  };

  const profile = profileOf(given.profile, variable("PROFILE"));
  const suffix = profile === null ? "" : `-${profile}`;
  const stateDir = path("stateDir", given.stateDir, "STATE_DIR") ?? join(home(), `.${app}${suffix}`);
  const configPath = path("configPath", given.configPath, "CONFIG_PATH") ?? join(stateDir, `${app}.json`);
  const port = portOf(given.port, variable("GATEWAY_PORT")) ?? defaultPort(profile);
  return {
    app,
    profile,
    stateDir,
    configPath,
    port,
    workspace: join(stateDir, "workspace"),
    derived: derivedFrom(port),
    options: { stateDir, configPath, port },
  };
}

function variableOf(app: string, suffix: string): string {
  return `${app.toUpperCase().replace(/[^A-Z0-9]/g, "_")}_${suffix}`;
}

/** Variables that are set and say where a gateway lies, whatever the name of its profile. */
export function overridesIn(app: string, env: Environment): string[] {
  const names = ["STATE_DIR", "CONFIG_PATH", "GATEWAY_PORT"].map((suffix) => variableOf(app, suffix));
  return names.filter((name) => readVariable(env, name) !== undefined);
}

export function derivedFrom(port: number): Profile["derived"] {
  const derive = (offset: number) => (port === 0 ? 0 : port + offset);
  return { browserControl: derive(BROWSER_CONTROL), cdp: [derive(CDP[0]), derive(CDP[1])] };
}

/** All derived ports that there are, browser control first: for `reserve` of acquireGateway, as they are. None while `port` is 0. */
export function derivedPorts(derived: Profile["derived"]): number[] {
  if (!Array.isArray(derived?.cdp)) throw invalidType("derived", "the `derived` of a profile", derived);
  const {
    browserControl,
    cdp: [first, last],
  } = derived;
  const cdp = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  return [browserControl, ...cdp].filter((port) => port > 0 && port <= LAST_PORT);
}

type Environment = NonNullable<ProfileOptions["env"]>;

interface Variable {
  readonly name: string;
  readonly value: string | undefined;
}

function profileOf(option: string | undefined, variable: Variable): string | null {
  const { name, value } = option === undefined ? variable : { name: "profile", value: option };
  if (value === undefined) return null;
  const profile = checkName(name, value);
  return profile.toLowerCase() === DEFAULT_PROFILE ? null : profile;
}

function portOf(option: number | undefined, { name, value }: Variable): number | undefined {
  if (option !== undefined) return checkPort("port", option);
  if (value === undefined) return undefined;
  if (!/^\d{1,5}$/.test(value)) throw badPort(name, "an integer from 0 to 65535", value);
  return checkPort(name, Number(value));
}

function defaultPort(profile: string | null): number {
  if (profile === null) return DEFAULT_PORT;
  const bits = Number.parseInt(digest(profile, 8), 16);
  return DEFAULT_PORT + PORT_SPACING * (1 + (bits % NAMED_PORTS));
}

function checkName(name: string, value: unknown): string {
  if (typeof value !== "string") throw invalidType(name, "a string", value);
  if (NAME.test(value) && !DEVICE.test(value)) return value;
  const problem = DEVICE.test(value)
    ? "must not be the name of a device on Windows"
    : "must be 1 to 64 letters, digits, '.', '_' or '-', begin with a letter, a digit or '_', and have no '..' and no '.' at its end";
  throw invalidValue(name, value, problem);
}

function checkEnvironment(value: unknown): Environment {
  if (value === undefined) return process.env;
  if (typeof value !== "object" || value === null) throw invalidType("env", "an object of strings", value);
  return value as Environment;
}

const IS_WINDOWS: boolean = process.platform === "win32";

/**
 * What a path may begin with, and where that is below the home directory if the variable says nothing: by the XDG Base Directory
 * Specification, where a relative path says nothing either, and as Windows has it.
 */
const PLACES: Readonly<Record<string, string>> = IS_WINDOWS
  ? { USERPROFILE: "", APPDATA: "AppData\\Roaming", LOCALAPPDATA: "AppData\\Local" }
  : { HOME: "", XDG_CONFIG_HOME: ".config", XDG_DATA_HOME: ".local/share", XDG_STATE_HOME: ".local/state" };
const PLACE: RegExp = IS_WINDOWS ? /^(?:~|%(\w+)%)(?=[\\/]|$)/ : /^(?:~|\$(\w+)|\$\{(\w+)\})(?=\/|$)/;

const KNOWN: string = Object.keys(PLACES)
  .map((name) => (IS_WINDOWS ? `%${name}%` : `$${name}`))
  .join(", ");

/** Units and .env files are not read by a shell: there a `~` or `$HOME` would become a directory of that name. */
function expand(source: string, path: string, home: () => string, env: Environment): string {
  if (/^~[^\\/]/.test(path))
    throw invalidValue(source, path, "names another user's home directory, which is not known here");
  const [prefix, plain, braced] = PLACE.exec(path) ?? [];
  if (prefix === undefined) return resolve(path);
  const written = plain ?? braced ?? "";
  const name = IS_WINDOWS ? written.toUpperCase() : written;
  const below = prefix === "~" ? "" : Object.hasOwn(PLACES, name) ? PLACES[name] : undefined;
  if (below === undefined) throw invalidValue(source, path, `begins with a variable that is not one of ${KNOWN}`);
  const named = below === "" ? undefined : readVariable(env, name);
  const place = named !== undefined && isAbsolute(named) ? checkPath(name, named) : join(home(), below);
  return resolve(join(place, path.slice(prefix.length)));
}

/** An empty one is none. */
function readVariable(env: Environment, name: string): string | undefined {
  const spelling = IS_WINDOWS ? Object.keys(env).find((key) => key.toUpperCase() === name) : name;
  const value: unknown = spelling !== undefined && Object.hasOwn(env, spelling) ? env[spelling] : undefined;
  if (value === undefined || value === "") return undefined;
  if (typeof value !== "string") throw invalidType(name, "a string", value);
  return value;
}

function homeOf(option: string | undefined, env: Environment): string {
  if (option !== undefined) return resolve(checkPath("home", option));
  const variable = IS_WINDOWS ? "USERPROFILE" : "HOME";
  const named = readVariable(env, variable);
  if (named !== undefined) return resolve(checkPath(variable, named));
  try {
    // An empty HOME would be the working directory, and os.homedir() believes it.
    return resolve(homedir() || userInfo().homedir);
  } catch (cause) {
    throw new Error("this user has no home directory; give `home`, or `stateDir`", { cause });
  }
}
