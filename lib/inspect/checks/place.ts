// The doctor's checks of the ground that a lock stands on: the addon, the filesystem, and who may write there.

import { lstatSync, mkdtempSync, rmSync, type Stats, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { codeOf, reasonOf } from "../../errors.ts";
import { tryLock } from "../../lock/file-lock.ts";
import { filesystemOf, overlaysOver } from "../../lock/filesystem.ts";
import { isWritable, type Resource } from "../../lock/resources.ts";
import { native } from "../../native.ts";
import { type Answer, answer, type Problem, type Scene } from "./scene.ts";

/** What a directory is called that is made for an instant, in which no gateway looks for a lock. */
const SCRATCH = ".gateway-lock-doctor-";
const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;

export function checkAddon(): Answer {
  try {
    native();
  } catch (error) {
    const [evidence = "", next = "install the package again"] = reasonOf(error).split(
      /[:;] (?=(?:build|run|see|unset) )/,
    );
    return answer([], [{ evidence, next }]);
  }
  return answer([`loaded for ${process.platform}-${process.arch}, Node-API ${process.versions.napi}`]);
}

/** Whether every place of a lock is local, and really locks: a lock is tried in a directory made for it, and removed again. */
export function checkFilesystem({ resources, allowNetworkFilesystem }: Scene): Answer {
  const evidence: string[] = [];
  const problems: Problem[] = [];
  const devices = new Set<number>();
  for (const wanted of new Set(
    resources.flatMap(({ lockDirectory, ...resource }) => [homeOf(resource), lockDirectory]),
  )) {
    const directory = nearest(wanted);
    for (const overlay of overlaysOver(directory)) {
      problems.push({
        evidence: `${directory} is a layer of the overlay at ${overlay}: a gateway that comes by there takes other locks`,
        next: "use the directory by one of the two paths only; give it to a container as a volume, which is the same directory to both",
      });
    }
    const { dev } = statSync(directory);
    if (devices.has(dev)) continue;
    devices.add(dev);
    const { type, network } = filesystemOf(directory);
    if (network && !allowNetworkFilesystem) {
      problems.push({
        evidence: `${directory} is on ${type}, where a lock may mean nothing to other hosts`,
        next: "move it to a local disk; or prove that no other host has it mounted, and set allowNetworkFilesystem",
      });
    }
    // A directory of somebody else's above a missing one is none of ours to try anything in.
    const failure = directory === wanted && isWritable(directory) ? tryLockIn(directory, network) : "not tried";
    if (failure !== null && failure !== "not tried") problems.push(failure);
    const limit = type === "overlayfs" ? ", among those who use this very mount of it" : "";
    evidence.push(
      `${directory} is on ${type}, ${failure === null ? `where a lock was tried and excludes${limit}` : "where no lock was tried"}`,
    );
  }
  return answer(evidence, problems);
}

function tryLockIn(directory: string, network: boolean): Problem | null {
  let scratch: string;
  try {
    scratch = mkdtempSync(join(directory, SCRATCH));
  } catch (error) {
    const next = "free some space there, or see what the filesystem lacks";
    return { evidence: `nothing can be made in ${directory}: ${codeOf(error) ?? reasonOf(error)}`, next };
  }
  try {
    // As a gateway does: the directory, where there is such a lock, and a file in it.
    if (native().locksDirectories && !network) tryLock({ path: scratch, kind: "directory" })?.release();
    tryLock({ path: join(scratch, "lock"), kind: "gateway-file" })?.release();
    return null;
  } catch (error) {
    const { cause } = error as Error;
    const why = cause === undefined ? "it grants one lock twice" : reasonOf(cause).split(", ")[0];
    return {
      evidence: `${directory} can't be locked (${why})`,
      next: "move it to a local disk that locks, such as ext4",
    };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Whether the gateway can make its files where it has to, and nobody else can. */
export function checkPermissions({ resources, readings }: Scene): Answer {
  const problems: Problem[] = [];
  const seen = new Set<string>();
  for (const resource of resources) {
    if (resource.role === "other" && lookAt(resource.path) === null) {
      problems.push({
        evidence: `${resource.path} is missing, and a start does not make it`,
        next: "create it, or leave it out of `locks`",
      });
      continue;
    }
    const home = homeOf(resource);
    const onlyRecord = resource.role === "config" && resource.fallbackLockPath !== null;
    for (const directory of [home, resource.lockDirectory]) {
      if (seen.has(directory)) continue;
      seen.add(directory);
      if (seen.has(nearest(dirname(directory))) && lookAt(directory) === null) continue; // it is made there
      const found = problemsOf(directory);
      if (found === "unwritable" && onlyRecord) problems.push(stateOnly(resource));
      else if (found === "unwritable")
        problems.push({
          evidence: `this user can't write to ${directory}`,
          next: "give it to the gateway's user (chown, chmod u+rwx), or choose another directory",
        });
      else problems.push(...found);
    }
  }
  // Root may write everywhere, and the gateway's user may not.
  const limited = readings.find(({ record }) => record?.configLock === "state-only");
  const config = resources.find(({ role }) => role === "config");
  if (limited !== undefined && config !== undefined) problems.push(stateOnly(config));
  return answer(
    [...seen].map((directory) => `${directory} ${modeOf(directory)}`),
    problems,
  );
}

function stateOnly({ path }: Pick<Resource, "path">): Problem {
  return {
    evidence: `the directory of ${path} can't be written, so the config is not kept from gateways with another state directory`,
    next: "let the gateway's user write there, or move the config into the state directory",
  };
}

function problemsOf(directory: string): Problem[] | "unwritable" {
  const there = lookAt(directory);
  if (there === null) return isWritable(nearest(directory)) ? [] : "unwritable";
  if (there instanceof Error)
    return [
      { evidence: `${directory} can't be looked at: ${codeOf(there)}`, next: "look as root, or as the gateway's user" },
    ];
  if (there.isSymbolicLink())
    return [
      {
        evidence: `${directory} is a symbolic link, which is refused`,
        next: "remove it, and let the gateway make a directory",
      },
    ];
  if (!there.isDirectory())
    return [{ evidence: `${directory} is not a directory`, next: "remove it, or choose another path" }];
  if (!isWritable(directory)) return "unwritable";
  const mode = there.mode & 0o7777;
  if (process.platform === "win32" || (mode & WRITABLE_BY_OTHERS) === 0) return [];
  // In a sticky directory only a file's owner and the directory's may delete or rename it.
  const user = process.geteuid?.();
  if ((mode & STICKY) !== 0 && (there.uid === user || there.uid === 0 || user === 0)) return [];
  const who = (mode & 0o002) === 0 ? "its group" : "everybody";
  return [
    {
      evidence: `${directory} can be written by ${who} (mode ${mode.toString(8)}), who can take the lock files away`,
      next: `chmod go-w ${directory}`,
    },
  ];
}

function modeOf(directory: string): string {
  const there = lookAt(directory);
  if (there === null) return "is missing, and is made by a start";
  return there instanceof Error ? "" : `has mode ${(there.mode & 0o7777).toString(8)} and belongs to user ${there.uid}`;
}

function lookAt(path: string): Stats | Error | null {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (error) {
    return codeOf(error) === "ENOTDIR" ? null : (error as Error);
  }
}

/** The directory that a resource is, or lies in. */
function homeOf({ path, isDirectory }: Pick<Resource, "path" | "isDirectory">): string {
  return isDirectory ? path : dirname(path);
}

/** What is there of a path. */
function nearest(path: string): string {
  const parent = dirname(path);
  return lookAt(path) === null && parent !== path ? nearest(parent) : path;
}
