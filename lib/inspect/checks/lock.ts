// The doctor's checks of the lock itself: its files, what is recorded in them, and the clock that dates them.

import { lstatSync, readFileSync, type Stats, statSync } from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { printable } from "../../errors.ts";
import { livenessOf, type OwnerRecord } from "../../lock/record.ts";
import type { Resource } from "../../lock/resources.ts";
import { native } from "../../native.ts";
import type { Picture, SeenLock } from "../look.ts";
import { type Answer, answer, type Problem, type Reading, type Scene, unchecked } from "./scene.ts";

/** Clocks of one host do not differ by more. ms */
const CLOCK_TOLERANCE = 2000;

/** Whether each lock file is there if and only if a gateway of this user, in this pid namespace, holds it. */
export async function checkLockFile({ picture }: Scene): Promise<Answer> {
  const seen = await picture();
  const evidence: string[] = [];
  const problems: Problem[] = [];
  const hidden: string[] = [];
  for (const resource of new Set(seen.locks.map((lock) => lock.resource))) {
    const locks = seen.locks.filter((lock) => lock.resource === resource);
    const itself = locks.find(({ isFile }) => !isFile);
    const files = locks.filter(({ isFile }) => isFile);
    const held = files.find(({ locked }) => locked === true);
    const [file] = files.filter(({ path }) => lookAt(path) !== null);
    problems.push(...files.flatMap(hazardsOf));
    if (itself?.locked === true && held === undefined) problems.push(wiped(itself, file));
    else if (held !== undefined) {
      const foreign = foreignHolders(held);
      if (foreign === null) evidence.push(`${held.path} is held by ${describeHolders(held.holders)}`);
      else problems.push(foreign);
    } else if (isMissedBy(resource, seen)) problems.push(wipedConfig(files, seen));
    else if (file === undefined) evidence.push(`there is no ${files[0]?.path}, and nobody holds it`);
    else if (file.locked === false || (file.record !== null && livenessOf(file.record) === "gone"))
      problems.push(leftOver(file));
    else hidden.push(file.path);
  }
  if (problems.length === 0 && hidden.length > 0) {
    return unchecked(
      `this user can't see whether anybody holds ${hidden.join(", ")}`,
      "look as root, in the host's own pid namespace",
    );
  }
  return answer(evidence, problems);
}

function hazardsOf({ path }: SeenLock): Problem[] {
  const there = lookAt(path);
  const refused = (what: string): Problem[] => [
    { evidence: `${path} ${what}, and is refused by every start`, next: `remove ${path}` },
  ];
  if (there === null) return [];
  if (there.isSymbolicLink()) return refused("is a symbolic link");
  if (!there.isFile()) return refused("is not a regular file");
  if (there.nlink > 1) return refused("has a second hard link");
  const user = process.geteuid?.();
  if (user === undefined || there.uid === user || (user === 0 && there.uid === lookAt(dirname(path))?.uid)) return [];
  return refused(`belongs to another user (${there.uid})`);
}

/** Somebody has the directory, and not the file in it that belongs to that lock. */
function wiped(itself: SeenLock, file: SeenLock | undefined): Problem {
  const what = file === undefined ? "its lock file was deleted" : `${file.path} is not the file that was locked`;
  return {
    evidence: `${itself.path} is locked by ${describeHolders(itself.holders)}, but ${what}`,
    next: "look again in a second: a gateway restores it by then. If it stays like this, that process hangs and must be ended, or its lock files lie elsewhere (lockDir)",
  };
}

/** Whether the owner of the state directory says that it has this config, which nobody holds. */
function isMissedBy({ role, path }: Resource, { locks, owner, liveness }: Picture): boolean {
  const state = locks.some(({ resource, locked }) => resource.role === "state" && locked === true);
  return role === "config" && state && liveness === "alive" && owner?.configPath === path;
}

function wipedConfig(files: readonly SeenLock[], { holders }: Picture): Problem {
  return {
    evidence: `${describeHolders(holders)} has the config by its record, but ${files[0]?.path} was deleted or replaced`,
    next: "look again in a second: a gateway restores it by then, or says that its lock is lost; then end it, and start it again",
  };
}

function leftOver({ path, record }: SeenLock): Problem {
  const writer = record === null ? "" : ` by pid ${record.pid}`;
  return {
    evidence: `${path} was left behind${writer}, and nobody holds it`,
    next: "it is harmless: the next start takes it over, and its close() deletes it; you may delete it while no gateway runs",
  };
}

/** `null` if everybody who holds it is seen, and is one of us. */
function foreignHolders({ path, holders, record }: SeenLock): Problem | null {
  const here = native().identifyHost().pidNamespace;
  if (holders.length === 0) {
    const elsewhere = record?.pidNamespace != null && record.pidNamespace !== here;
    const who = elsewhere
      ? `a process of another pid namespace (${printable(record.pidNamespace ?? "")}), a container say`
      : "a process that this user can't see: another user's, or one in another pid namespace";
    return {
      evidence: `${path} is held by ${who}`,
      next: "look as root on the host itself, or where that gateway was started",
    };
  }
  const foreign = holders.filter((pid) => strangenessOf(pid) !== "");
  if (foreign.length === 0) return null;
  return {
    evidence: `${path} is held by ${describeHolders(foreign)}`,
    next: "look as that user, or in that container; only root or that user can end it",
  };
}

function describeHolders(pids: readonly number[]): string {
  if (pids.length === 0) return "a process that this user can't see";
  return pids.map((pid) => `pid ${pid}${strangenessOf(pid)}`).join(", ");
}

/** What of a process is not as it is with us, in words. */
function strangenessOf(pid: number): string {
  const user = attempt(() => /^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) ?? null;
  const namespace = attempt(() => statSync(`/proc/${pid}/ns/pid`).ino);
  const ours = attempt(() => statSync("/proc/self/ns/pid").ino);
  const parts = [
    ...(user !== null && Number(user) !== process.geteuid?.() ? [`of another user (${user})`] : []),
    ...(namespace !== null && namespace !== ours ? ["in another pid namespace"] : []),
  ];
  return parts.length === 0 ? "" : ` ${parts.join(", ")}`;
}

/** Whether what stands in the lock files is whole, and is about somebody who is there. */
export async function checkRecord({ readings, options, resources, picture }: Scene): Promise<Answer> {
  const seen = await picture().catch(() => null);
  const evidence: string[] = [];
  const problems: Problem[] = [];
  const told = new Set<string>();
  for (const reading of readings) {
    const { path, record, torn, resource } = reading;
    const locks = seen?.locks.filter((lock) => lock.resource.path === resource.path) ?? [];
    const isHeld = locks.some(({ locked }) => locked === true);
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
    } else problems.push(...orphaned(name, record, seen));
  }
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
      evidence: `${name} has the config ${printable(record.configPath)}, not ${config}`,
      next: "give the config that the gateway has, or start it again with this one",
    });
  }
  return problems;
}

/** A record whose lock nobody is seen to hold. */
function orphaned(name: string, record: OwnerRecord, { locked }: Picture): Problem[] {
  const here = native().identifyHost();
  const liveness = livenessOf(record);
  if (liveness === "alive") {
    if (locked === null) return [];
    return [
      {
        evidence: `${name} is of a process that is there and holds no lock`,
        next: "a start is refused while its port is busy: it is an older program, or its filesystem does not lock; end it before you start another one",
      },
    ];
  }
  const differs = (recorded: string | null, actual: string | null) => recorded !== null && recorded !== actual;
  const why = differs(record.bootId, here.bootId)
    ? differs(record.hostname, hostname())
      ? `of another host (${printable(record.hostname ?? "")})`
      : "of an earlier boot"
    : liveness === "unknown"
      ? "of another pid namespace, where its pid means somebody else"
      : "of a process that is gone";
  return [{ evidence: `${name} is ${why}`, next: "nobody acts on it, and the next start writes over it" }];
}

/** Whether something here is dated after now, as it is when the clock was set back. */
export function checkClock({ readings, resources }: Scene): Answer {
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
  const paths = new Set([
    ...readings.map(({ path }) => path),
    ...resources.flatMap(({ path, lockDirectory }) => [path, lockDirectory]),
  ]);
  for (const path of paths) add(`${path} was changed`, lookAt(path)?.mtimeMs ?? 0);
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
