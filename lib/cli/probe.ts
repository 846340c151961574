// `gateway-lock probe`: the health probe alone.

import { EXIT } from "../errors.ts";
import { inspectGateway } from "../inspect/status.ts";
import { DEFAULT_HEALTH_TIMEOUT, type HealthReport, probe } from "../listener/health.ts";
import { checkDeadline } from "../options.ts";
import { type CommandOptions, checked, UsageError } from "./options.ts";
import { formatHealth, meaningOf } from "./status.ts";
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
  if (target !== null && !named) {
    const next =
      "anybody might have answered: name the gateway (--profile, --state-dir), and only its owner is believed";
    return { url: target.origin, ownerId: null, health: await askAt(target.origin, null), next };
  }
  const report = await inspectGateway({ ...gateway, health: { path, timeout } });
  const ownerId = report.lock.locked === false ? null : (report.owner?.ownerId ?? null);
  if (ownerId === null) return { url: null, ownerId, health: null, next: `${meaningOf(report)}; ${report.next}` };
  if (target === null) return { url: report.owner?.url ?? null, ownerId, health: report.health, next: report.next };
  return { url: target.origin, ownerId, health: await askAt(target.origin, ownerId), next: report.next };

  async function askAt(origin: string, owner: string | null): Promise<HealthReport> {
    const { ok, status, ms, error } = await probe(origin, owner, { path, timeout });
    return { ok, status, ms, error };
  }
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
