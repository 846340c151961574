// Runs all checks on one scene.

import { lstatSync } from "node:fs";
import { printable, reasonOf } from "../../errors.ts";
import { locateResources } from "../../lock/resources.ts";
import { checkBoolean, checkReserve, type ResolvedInspection, resolveInspectOptions } from "../../options.ts";
import { checkIsolation } from "../../profile/isolation.ts";
import type { CheckName, DoctorOptions, Finding } from "../doctor.ts";
import { look, type Picture, readLockFile } from "../look.ts";
import { checkClock, checkLockFile, checkRecord } from "./lock.ts";
import { checkAddon, checkFilesystem, checkPermissions } from "./place.ts";
import { checkDerivedPorts, checkEphemeralRange, checkLoopback, checkPortOwner, checkWildcard } from "./port.ts";
import { type Answer, type Scene, unchecked } from "./scene.ts";
import { checkProfiles, checkSupervisor } from "./setting.ts";

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

export async function check(options: DoctorOptions): Promise<Finding[]> {
  const scene = survey(options);
  const findings: Finding[] = [];
  for (const [name, run] of CHECKS) {
    const { ok, evidence, next } = await runOne(run, scene);
    // Paths, records and command lines are other people's text.
    findings.push({ check: name, ok, evidence: printable(evidence), next: next === null ? null : printable(next) });
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
