// Every check of a gateway's surroundings: what was seen, and what to do about it.

import { lstatSync } from "node:fs";
import { printable, reasonOf } from "../errors.ts";
import { locateResources } from "../lock/resources.ts";
import {
  checkBoolean,
  checkReserve,
  type InspectOptions,
  type ResolvedInspection,
  resolveInspectOptions,
} from "../options.ts";
import { checkIsolation, type ProfileInstance } from "../profile/isolation.ts";
import { checkClock, checkLockFile, checkRecord } from "./checks/lock.ts";
import { checkAddon, checkFilesystem, checkPermissions } from "./checks/place.ts";
import { checkDerivedPorts, checkEphemeralRange, checkLoopback, checkPortOwner, checkWildcard } from "./checks/port.ts";
import { type Answer, type Scene, unchecked } from "./checks/scene.ts";
import { checkProfiles, checkSupervisor } from "./checks/setting.ts";
import { look, type Picture, readLockFile } from "./look.ts";

/** The README's table says what each one means. */
export type CheckName =
  | "addon"
  | "filesystem"
  | "permissions"
  | "record"
  | "lock-file"
  | "port-owner"
  | "loopback"
  | "wildcard"
  | "ephemeral-range"
  | "profiles"
  | "derived-ports"
  | "supervisor"
  | "clock";

/** What a check found. */
export interface Finding {
  readonly check: CheckName;
  /** `null`: it could not be checked; `evidence` says why. */
  readonly ok: boolean | null;
  /** What was seen. */
  readonly evidence: string;
  /** What to do about it; `null` where nothing is to be done. */
  readonly next: string | null;
}

/** What `diagnose` takes: which gateway, and what is to run beside it. */
export interface DoctorOptions extends InspectOptions {
  /** Gateways that are to run side by side, this one among them: they are compared with one another. Default: none. */
  instances?: readonly ProfileInstance[] | undefined;
}

const CHECKS: readonly (readonly [CheckName, (scene: Scene) => Answer | Promise<Answer>])[] = [
  ["addon", checkAddon],
  ["filesystem", checkFilesystem],
  ["permissions", checkPermissions],
  ["record", checkRecord],
  ["lock-file", checkLockFile],
  ["port-owner", checkPortOwner],
  ["loopback", checkLoopback],
  ["wildcard", checkWildcard],
  ["ephemeral-range", checkEphemeralRange],
  ["profiles", checkProfiles],
  ["derived-ports", checkDerivedPorts],
  ["supervisor", checkSupervisor],
  ["clock", checkClock],
];

const MAX_LOOKS = 4;

/**
 * Runs every check, and answers with one finding for each, in one order, whether something is wrong or not. Nothing of the
 * gateway is touched, and no lock is taken that a starting one could meet: to see whether a filesystem locks, a
 * directory of another name is made beside the locks for an instant.
 *
 * What this user may not see, or what needs the addon where there is none, is `ok: null`. Rejects only for wrong options.
 *
 * @throws TypeError `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE`, RangeError `ERR_SOCKET_BAD_PORT` or `ERR_OUT_OF_RANGE`
 */
export async function diagnose(options: DoctorOptions): Promise<Finding[]> {
  const scene = survey(options);
  const findings: Finding[] = [];
  for (const [check, run] of CHECKS) {
    const { ok, evidence, next } = await runOne(run, scene);
    // Paths, records and command lines are other people's text.
    findings.push({ check, ok, evidence: printable(evidence), next: next === null ? null : printable(next) });
  }
  return findings;
}

function survey(options: DoctorOptions): Scene {
  const resolved = resolveInspectOptions(options, ["instances"]);
  const { instances = [] } = options;
  const isolation = checkIsolation(instances);
  const resources = locateResources(resolved);
  const readings = resources.flatMap((resource) =>
    [resource.lockPath, resource.fallbackLockPath]
      .filter((path) => path !== null)
      .map((path) => ({ resource, path, ...readLockFile(path) })),
  );
  const places = new Set(readings.flatMap(({ path, resource }) => [resource.path, resource.lockDirectory, path]));
  let picture: Promise<Picture> | null = null;
  return {
    options: resolved,
    allowNetworkFilesystem: checkBoolean("allowNetworkFilesystem", options.allowNetworkFilesystem, false),
    reserve: checkReserve(options.reserve),
    instances: instances.length,
    isolation,
    resources,
    readings,
    dates: [...places].flatMap((path) => {
      const changed = dateOf(path);
      return changed === null ? [] : [{ path, changed }];
    }),
    picture: () => {
      picture ??= lookClosely(resolved);
      return picture;
    },
  };
}

/** Where processes come and go by the hundred, a look may miss who holds nothing, and see it the next time. */
async function lookClosely(options: ResolvedInspection): Promise<Picture> {
  let picture = await look(options);
  for (let looks = 1; picture.locked === null && looks < MAX_LOOKS; looks++) picture = await look(options);
  return picture;
}

function dateOf(path: string): number | null {
  try {
    return lstatSync(path).mtimeMs;
  } catch {
    return null;
  }
}

async function runOne(run: (scene: Scene) => Answer | Promise<Answer>, scene: Scene): Promise<Answer> {
  try {
    return await run(scene);
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ERR_GATEWAY_LOCK_ADDON";
    if (isMissing) return unchecked("it takes the addon to see this, which is missing", "mend the addon first");
    return unchecked(`it could not be checked: ${reasonOf(error)}`, "mend that, or look as root");
  }
}
