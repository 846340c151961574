// The doctor's checks of the lock itself: its files, what is recorded in them, and the clock that dates them.

import { lstatSync, readFileSync, type Stats, statSync } from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { livenessOf, type OwnerRecord } from "../../lock/record.ts";
import type { Resource } from "../../lock/resources.ts";
import { native } from "../../native.ts";
import type { Picture, SeenLock } from "../look.ts";
import { type Answer, answer, type Problem, type Reading, type Scene, unchecked } from "./scene.ts";

/** Clocks of one host do not differ by more. ms */
const CLOCK_TOLERANCE = 2000;
const ON_THE_HOST = "look as root on the host itself, or where that gateway was started";

/** What is so of a lock file, and what to do about it; `null` where that is as it should be. */
interface Remark {
  readonly what: string;
  readonly next: string | null;
}

/** Whether each lock file is there if and only if a gateway of this user, in this pid namespace, holds it. */
export async function checkLockFile({ picture }: Scene): Promise<Answer> {
  const seen = await picture();
  const remarks = new Map<string, Remark & { readonly paths: string[] }>();
  const hidden: string[] = [];
  const tell = (path: string, { what, next }: Remark) => {
    const known = remarks.get(what) ?? { what, next, paths: [] };
    remarks.set(what, known);
    known.paths.push(path);
  };
  for (const resource of new Set(seen.locks.map((lock) => lock.resource))) {
    const locks = seen.locks.filter((lock) => lock.resource === resource);
    const itself = locks.find(({ isFile }) => !isFile);
    const files = locks.filter(({ isFile }) => isFile);
    const there = files.filter(({ path }) => lookAt(path) !== null);
    for (const { path } of there) {
      const hazard = hazardOf(path);
      if (hazard !== null) tell(path, hazard);
    }
    const file = files.find(({ locked }) => locked === true) ?? there[0];
    const path = file?.path ?? resource.lockPath;
    if (file?.locked === true) tell(path, heldBy(file, resource));
    else if (files.some(({ unreadable }) => unreadable !== null)) hidden.push(path);
    else if (itself?.locked === true)
      tell(path, wiped(`${describeHolders(itself.holders)}, who has ${itself.path} locked`));
    else if (isMissed(resource, seen))
      tell(path, wiped(`${describeHolders(seen.holders)}, whose record names this config`));
    else if (file === undefined) tell(path, { what: "missing, and so held by nobody", next: null });
    else if (file.locked === false || (file.record !== null && livenessOf(file.record) === "gone"))
      tell(path, leftOver(file));
    else if (isElsewhere(file.record)) tell(path, outOfSight(file.record));
    else hidden.push(path);
  }
  const texts = [...remarks.values()].map(({ what, next, paths }) => ({
    evidence: `${what}: ${paths.join(", ")}`,
    next,
  }));
  const problems = texts.filter((text): text is Problem => text.next !== null);
  if (problems.length === 0 && hidden.length > 0)
    return unchecked(`whether anybody holds them can't be seen by this user: ${hidden.join(", ")}`, ON_THE_HOST);
  return answer(
    texts.map(({ evidence }) => evidence),
    problems,
  );
}

function hazardOf(path: string): Remark | null {
  const there = lookAt(path);
  const refused = (what: string): Remark => ({
    what: `${what}, and so refused by every start`,
    next: `remove ${path}`,
  });
  if (there === null) return null;
  if (there.isSymbolicLink()) return refused("a symbolic link");
  if (!there.isFile()) return refused("not a regular file");
  if (there.nlink > 1) return refused("a file with a second hard link");
  const user = process.geteuid?.();
  if (user === undefined || there.uid === user || (user === 0 && there.uid === lookAt(dirname(path))?.uid)) return null;
  return refused(`a file of another user (${there.uid})`);
}

function wiped(owner: string): Remark {
  return {
    what: `deleted or replaced under ${owner}`,
    next: "look again in a second: a gateway restores it by then, or says that its lock is lost. If it stays like this, that process hangs and must be ended, or has its lock files elsewhere (lockDir)",
  };
}

/** Whether the owner of the state directory says that it has this config, which nobody holds. */
function isMissed({ role, path }: Resource, { locks, owner, liveness }: Picture): boolean {
  const state = locks.some(({ resource, locked }) => resource.role === "state" && locked === true);
  return role === "config" && state && liveness === "alive" && owner?.configPath === path;
}

function leftOver({ record }: SeenLock): Remark {
  return {
    what: `left behind${record === null ? "" : ` by pid ${record.pid}`}, and held by nobody`,
    next: "it is harmless: the next start takes it over, and its close() deletes it; you may delete it while no gateway runs",
  };
}

/** Whether a record's pid means nothing here. */
function isElsewhere(record: OwnerRecord | null): record is OwnerRecord {
  return record !== null && differs(record.pidNamespace, native().identifyHost().pidNamespace);
}

function outOfSight({ pidNamespace }: OwnerRecord): Remark {
  return {
    what: `of an owner in another pid namespace (${pidNamespace}), and whether that holds it can't be seen from here`,
    next: ON_THE_HOST,
  };
}

function heldBy({ holders, record }: SeenLock, { path, isDirectory }: Resource): Remark {
  if (holders.length === 0) {
    const who = isElsewhere(record)
      ? `a process of another pid namespace (${record.pidNamespace}), a container say`
      : "a process that this user can't see: another user's, or one in another pid namespace";
    return { what: `held by ${who}`, next: ON_THE_HOST };
  }
  const owner = lookAt(isDirectory ? path : dirname(path))?.uid;
  const isForeign = holders.some((pid) => strangenessOf(pid, owner) !== "");
  const next = "look as that user, or in that container; only root or that user can end it";
  return { what: `held by ${describeHolders(holders)}`, next: isForeign ? next : null };
}

function describeHolders(pids: readonly number[]): string {
  if (pids.length === 0) return "a process that this user can't see";
  return pids.map((pid) => `pid ${pid}${strangenessOf(pid)}`).join(", ");
}

/** What of a process is not as it is with us, in words. To root, a user in a directory of its own is no stranger. */
function strangenessOf(pid: number, owner?: number): string {
  const user = attempt(() => /^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) ?? null;
  const us = process.geteuid?.();
  const namespace = attempt(() => statSync(`/proc/${pid}/ns/pid`).ino);
  const ours = attempt(() => statSync("/proc/self/ns/pid").ino);
  const parts = [
    ...(user !== null && Number(user) !== us && !(us === 0 && Number(user) === owner)
      ? [`of another user (${user})`]
      : []),
    ...(namespace !== null && namespace !== ours ? ["in another pid namespace"] : []),
  ];
  return parts.length === 0 ? "" : ` ${parts.join(", ")}`;
}

/** Whether what stands in the lock files is whole, and is about somebody who is there. */
export async function checkRecord({ readings, options, resources, picture }: Scene): Promise<Answer> {
  const seen = await picture().catch(() => null);
  const evidence: string[] = [];
  const problems: Problem[] = [];
  const hidden: string[] = [];
  const told = new Set<string>();
  for (const reading of seen?.locks.filter(({ isFile }) => isFile) ?? readings) {
    const { path, record, torn, unreadable, resource } = reading;
    const locks = seen?.locks.filter((lock) => lock.resource.path === resource.path) ?? [];
    const isHeld = locks.some(({ locked }) => locked === true);
    if (unreadable !== null) {
      hidden.push(`${path} (${unreadable})`);
      continue;
    }
    if (record === null) {
      problems.push(...withoutRecord(reading, torn, isHeld));
      continue;
    }
    if (told.has(JSON.stringify(record))) continue;
    told.add(JSON.stringify(record));
    const name = `the record in ${path} (pid ${record.pid}${record.check === null ? ", in the format of an older program" : ""})`;
    if (seen === null) evidence.push(`${name} is whole; whether it is true can't be told without the addon`);
    else if (isHeld) {
      problems.push(
        ...contradictions(name, record, { holders: locks.flatMap(({ holders }) => holders), options, resources }),
      );
      evidence.push(`${name} is the owner's`);
    } else if (locks.some(({ locked }) => locked === null) && livenessOf(record) !== "gone") {
      evidence.push(`${name} is whole; whether its owner is there can't be seen from here`);
    } else problems.push(orphaned(name, record));
  }
  if (hidden.length > 0 && problems.length === 0)
    return unchecked(`what stands there can't be read by this user: ${hidden.join(", ")}`, ON_THE_HOST);
  return answer(evidence.length === 0 ? ["there is none"] : evidence, problems);
}

function withoutRecord({ path }: Reading, torn: boolean, isHeld: boolean): Problem[] {
  const size = lookAt(path)?.size ?? 0;
  if (!torn && size === 0) return [];
  const what = torn ? "is torn: neither empty nor a whole record in five readings" : "is JSON, but no owner record";
  const next = isHeld
    ? "its owner could not write it, a full disk say, and will when its phase changes; the lock holds all the same"
    : "nobody acts on it, and the next start writes over it; you may delete it while no gateway runs";
  return [{ evidence: `what stands in ${path} ${what}`, next }];
}

interface Ours {
  readonly holders: readonly number[];
  readonly options: Scene["options"];
  readonly resources: Scene["resources"];
}

/** What a record says that is not so, or not what was asked for. */
function contradictions(name: string, record: OwnerRecord, { holders, options, resources }: Ours): Problem[] {
  const problems: Problem[] = [];
  const isHere = record.pidNamespace === null || record.pidNamespace === native().identifyHost().pidNamespace;
  if (isHere && holders.length > 0 && !holders.includes(record.pid)) {
    problems.push({
      evidence: `${name} is not of the process that holds the lock: ${describeHolders([...new Set(holders)])}`,
      next: "the kernel is right; look again in a moment, and find out what that process is if it stays like this",
    });
  }
  if (
    options.port !== null &&
    options.port !== 0 &&
    record.port !== null &&
    record.port !== 0 &&
    record.port !== options.port
  ) {
    problems.push({
      evidence: `${name} has port ${record.port}, not ${options.port}`,
      next: `look at port ${record.port}, or start the gateway again with port ${options.port}`,
    });
  }
  const config = resources.find(({ role }) => role === "config")?.path;
  if (record.configPath !== null && config !== undefined && record.configPath !== config) {
    problems.push({
      evidence: `${name} has the config ${record.configPath}, not ${config}`,
      next: "give the config that the gateway has, or start it again with this one",
    });
  }
  return problems;
}

/** A record whose lock nobody is seen to hold. */
function orphaned(name: string, record: OwnerRecord): Problem {
  const liveness = livenessOf(record);
  if (liveness === "alive") {
    return {
      evidence: `${name} is of a process that is there and holds no lock`,
      next: "a start is refused while its port is busy: it is an older program, or its filesystem does not lock; end it before you start another one",
    };
  }
  const why = differs(record.bootId, native().identifyHost().bootId)
    ? differs(record.hostname, hostname())
      ? `of another host (${record.hostname})`
      : "of an earlier boot"
    : liveness === "unknown"
      ? "of another pid namespace, where its pid means somebody else"
      : "of a process that is gone";
  return { evidence: `${name} is ${why}`, next: "nobody acts on it, and the next start writes over it" };
}

function differs(recorded: string | null, actual: string | null): boolean {
  return recorded !== null && recorded !== actual;
}

/** Whether something here is dated after now, as it is when the clock was set back. */
export function checkClock({ readings, dates }: Scene): Answer {
  const now = Date.now();
  const problems: Problem[] = [];
  const add = (what: string, time: number) => {
    if (!(time > now + CLOCK_TOLERANCE)) return;
    problems.push({
      evidence: `${what} ${formatSpan(time - now)} in the future: the clock was set back, or was wrong then`,
      next: "set the clock (timedatectl set-ntp true); no lock depends on it, but dates and ages are wrong until then",
    });
  };
  for (const { path, record } of readings)
    if (record?.createdAt != null) add(`the record in ${path} is dated`, Date.parse(record.createdAt));
  for (const { path, changed } of dates) add(`${path} was changed`, changed);
  return answer([`nothing is dated after ${new Date(now).toISOString()}`], problems);
}

function formatSpan(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
}

function lookAt(path: string): Stats | null {
  return attempt(() => lstatSync(path, { throwIfNoEntry: false }) ?? null);
}

function attempt<T>(action: () => T): T | null {
  try {
    return action();
  } catch {
    return null;
  }
}
