// `gateway-lock status`: the verdict, what it rests on, and the next step.

import { inspect } from "../inspect/inspection.ts";
import type { Picture } from "../inspect/look.ts";
import type { GatewayReport, GatewayVerdict, ListenerReport } from "../inspect/report.ts";
import type { OwnerRecord } from "../lock/record.ts";
import { resolveInspectOptions } from "../options.ts";
import type { CommandOptions } from "./options.ts";
import { type Colour, paint, print, printJson, type Row, table } from "./terminal.ts";

/** @returns the exit code */
export async function statusCommand(
  { gateway, health, json }: CommandOptions,
  { requireHealth }: { readonly requireHealth: boolean },
): Promise<number> {
  const { report, picture } = await inspect(resolveInspectOptions({ ...gateway, health, requireHealth }));
  await (json ? printJson(report) : print(`${formatVerdict(report)}\n\n${table(rowsOf(report, picture))}`));
  return report.exitCode;
}

const VERDICTS: Readonly<Record<GatewayVerdict, readonly [Colour, meaning: string]>> = {
  unknown: ["yellow", "this user can't see enough to tell"],
  split: ["red", "the lock is held, but another process listens on the port"],
  expected: ["green", "the gateway holds the lock and listens"],
  unhealthy: ["yellow", "the gateway holds the lock and listens, but it is not well"],
  starting: ["yellow", "the lock is held, and nobody listens yet, or any more"],
  "foreign-listener": ["red", "the lock is free, but a stranger listens on the port"],
  "stale-record": ["yellow", "no gateway runs; the last one left its record behind"],
  free: ["bold", "no gateway runs"],
};

/** For the first line. */
export function formatVerdict(report: GatewayReport): string {
  const [colour] = VERDICTS[report.verdict];
  return `${paint(colour, report.verdict)}: ${meaningOf(report)}`;
}

/** A verdict in words. */
export function meaningOf({ verdict, health }: GatewayReport): string {
  const [, meaning] = VERDICTS[verdict];
  return verdict === "expected" && health?.ok ? `${meaning}, and is well` : meaning;
}

/** Whether a gateway that should be there is not. */
export function isGone({ verdict }: GatewayReport): boolean {
  return verdict === "free" || verdict === "stale-record";
}

/** For whom that is bad news. */
export const NOT_RUNNING = "no gateway runs; start it, or look at its supervisor's log";

function rowsOf({ lock, owner, listener, health, next }: GatewayReport, { stateDir, locks }: Picture): Row[] {
  const isLeft = lock.locked === false && (owner !== null || locks.some(({ torn }) => torn));
  return [
    { label: "lock", lines: [formatLock(lock), ...lock.paths] },
    { label: "state", lines: [`${stateDir.path}${KINDS[stateDir.kind]}`] },
    { label: isLeft ? "record" : "owner", lines: owner === null ? [describeNoRecord(locks)] : formatOwner(owner) },
    { label: "listener", lines: listener.length === 0 ? ["nobody"] : listener.map(formatListener) },
    { label: "health", lines: [formatHealth(health)] },
    { label: "next", lines: [next] },
  ];
}

function formatLock({ locked, holders }: GatewayReport["lock"]): string {
  if (locked === false) return "free";
  const held = locked === null ? "this user can't see whether it is held" : "held";
  return holders.length === 0 ? held : `${held} by pid ${holders.join(", ")}`;
}

const KINDS: Readonly<Record<Picture["stateDir"]["kind"], string>> = {
  directory: "",
  missing: " (does not exist yet)",
  "no-directory": " (is not a directory)",
};

function describeNoRecord(locks: Picture["locks"]): string {
  const hidden = locks.find(({ unreadable }) => unreadable !== null);
  if (hidden !== undefined) return `can't be read by this user (${hidden.unreadable})`;
  return locks.some(({ torn }) => torn) ? "torn, can't be read" : "no record";
}

function formatOwner(owner: OwnerRecord): string[] {
  const { pid, phase, createdAt, supervisor, runtime, version, hostname, url, stateDir, configPath, configLock } =
    owner;
  const facts = [
    `pid ${pid}`,
    phase,
    createdAt && `since ${createdAt}`,
    supervisor && `under ${supervisor}`,
    runtime,
    version && `gateway-lock ${version}`,
    hostname && `on ${hostname}`,
  ];
  const shared = configLock === "state-only" ? " (not locked: its directory can't be written)" : "";
  return [
    facts.filter(Boolean).join(", "),
    ...(url === null ? [] : [`url     ${url}`]),
    ...(stateDir === null ? [] : [`state   ${stateDir}`]),
    ...(configPath === null ? [] : [`config  ${configPath}${shared}`]),
  ];
}

function formatListener({ address, port, pid, command }: ListenerReport): string {
  const where = address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
  if (pid === null) return `${where}, by a process that this user can't see`;
  return `${where}, by pid ${pid}${command === null ? "" : `: ${command}`}`;
}

/** In a line: what came of a probe. */
export function formatHealth(health: GatewayReport["health"]): string {
  if (health === null) return "nobody was asked";
  const { ok, status, ms, error } = health;
  return `${ok ? "well" : `not well: ${error}`} (${status === null ? "no answer" : `status ${status}`}, ${Math.round(ms)} ms)`;
}
