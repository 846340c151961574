// `gateway-lock probe`: the health probe alone.

import { EXIT } from "../errors.ts";
import { inspectGateway } from "../inspect/status.ts";
import { type HealthReport, probe } from "../listener/health.ts";
import { checkDeadline, DEFAULT_HEALTH_PATH, DEFAULT_HEALTH_TIMEOUT } from "../options.ts";
import { type CommandOptions, checked, UsageError } from "./options.ts";
import { formatHealth, isGone, NOT_RUNNING } from "./status.ts";
import { paint, print, printJson, type Row, table } from "./terminal.ts";

/** What `gateway-lock probe --json` prints, beside `ok` and `exitCode`. */
interface ProbeReport {
  /** Who was asked; `null` where there is no gateway to ask. */
  readonly url: string | null;
  /** Who had to answer; `null` where anybody might, and where there is nobody. */
  readonly ownerId: string | null;
  readonly health: HealthReport | null;
  readonly next: string;
}

/** @returns the exit code */
export async function probeCommand(options: CommandOptions, url: string | null): Promise<number> {
  const report = await ask(options, url === null ? null : parseUrl(url));
  const ok = report.health?.ok === true;
  const exitCode = ok ? EXIT.OK : EXIT.FAILURE;
  await (options.json ? printJson({ ok, exitCode, ...report }) : print(format(ok, report)));
  return exitCode;
}

async function ask({ gateway, health, named }: CommandOptions, target: Target | null): Promise<ProbeReport> {
  const timeout = health.timeout ?? checked(() => checkDeadline("--timeout", gateway.timeout, DEFAULT_HEALTH_TIMEOUT));
  const path = health.path ?? target?.path;
  if (target !== null && !named)
    return await askAt(
      target.origin,
      null,
      "anybody might have answered: name the gateway (--profile, --state-dir), and only its owner is believed",
    );
  const report = await inspectGateway({ ...gateway, health: { path, timeout } });
  const ownerId = report.lock.locked === false ? null : (report.owner?.ownerId ?? null);
  if (ownerId === null) return { url: null, ownerId, health: null, next: isGone(report) ? NOT_RUNNING : report.next };
  if (target !== null) return await askAt(target.origin, ownerId, report.next);
  const isMute = report.verdict === "expected" && report.health?.ok === false;
  const next = isMute ? routeHealth(path) : report.next;
  return { url: report.owner?.url ?? null, ownerId, health: report.health, next };

  async function askAt(origin: string, owner: string | null, nextIfWell: string): Promise<ProbeReport> {
    const { contradicts, ...found } = await probe(origin, owner, { path, timeout });
    const nextIfNot = contradicts ? nextAfter(found) : routeHealth(path);
    return { url: origin, ownerId: owner, health: found, next: found.ok ? nextIfWell : nextIfNot };
  }
}

function routeHealth(path: string = DEFAULT_HEALTH_PATH): string {
  return `it answers ${path} with no health document: route gateway.healthz there, or name the right path (--health-path)`;
}

/** Of whom the answer, or that there is none, speaks against. */
function nextAfter({ status }: HealthReport): string {
  return status === null
    ? "start the gateway, or name the address where it listens; `gateway-lock status` says where that is"
    : "look at the log of whoever answers there; `gateway-lock status` says whether that is the gateway";
}

function format(ok: boolean, { url, ownerId, health, next }: ProbeReport): string {
  const rows: Row[] = [
    { label: "health", lines: [formatHealth(health)] },
    { label: "next", lines: [next] },
  ];
  if (url !== null) {
    const identity = ownerId === null ? "not checked" : `owner ${ownerId}`;
    rows.unshift({ label: "url", lines: [url] }, { label: "identity", lines: [identity] });
  }
  return `${ok ? paint("green", "healthy") : paint("red", "not healthy")}\n\n${table(rows)}`;
}

interface Target {
  readonly origin: string;
  readonly path: string | undefined;
}

function parseUrl(url: string): Target {
  const [, origin, path] = /^((?:ws|http)s?:\/\/[^/?#\s]+)(\/[!-~]*)?$/i.exec(url) ?? [];
  if (origin === undefined)
    throw new UsageError(
      `'${url}' is no gateway's URL: it has ws, wss, http or https, a host, a port, and may have a path`,
    );
  return { origin, path: path === "/" ? undefined : path };
}
