// Whether a gateway is well: what it answers at /healthz, within one absolute deadline, and whether it is the owner who answers.

import type { IncomingMessage } from "node:http";
import type { RequestOptions } from "node:https";
import { type NetworkInterfaceInfo, networkInterfaces } from "node:os";
import { codeOf, printable, reasonOf } from "../errors.ts";
import type { OwnerRecord } from "../lock/record.ts";
import { callAt, onAbort } from "../lock/wait.ts";
import { DEFAULT_HEALTH_PATH, DEFAULT_HEALTH_TIMEOUT } from "../options.ts";
import { canonical, parseAddress, reachable } from "./addresses.ts";

/** How a gateway is asked whether it is well. */
export interface HealthOptions {
  /** Where the gateway has `gateway.healthz`. Default: `"/healthz"`. */
  path?: string | undefined;
  /** One absolute deadline for connecting, headers and body, in ms; for `check` too. Default: 1000. */
  timeout?: number | undefined;
  /** Replaces the probe: whether the gateway is well. A rejection, or no answer within `timeout`, is a no. */
  check?: ((target: HealthTarget) => boolean | Promise<boolean>) | undefined;
}

/** What a custom `check` is told. */
export interface HealthTarget {
  /** Where the probe would ask, as an http or https URL. */
  readonly url: string;
  readonly owner: OwnerRecord;
  /** Aborts at the deadline. */
  readonly signal: AbortSignal;
}

/** What came of a probe. */
export interface HealthReport {
  readonly ok: boolean;
  /** The HTTP status; `null` where there was none. */
  readonly status: number | null;
  readonly ms: number;
  /** Why it is not ok, in words. */
  readonly error: string | null;
}

/** A report, and whether it speaks against a living gateway, or only shows that there is no health endpoint. */
export type Probe = HealthReport & { readonly contradicts: boolean };

export interface ProbeOptions {
  readonly path?: string | undefined;
  readonly timeout?: number | undefined;
  /** Ends the probe early; that is a no. */
  readonly signal?: AbortSignal | null | undefined;
}

/** An answer that is longer is not one of ours. */
const MAX_BODY_BYTES = 65536;

interface Finding {
  /** `null`: it is well. */
  readonly error: string | null;
  readonly contradicts: boolean;
}

const WELL: Finding = { error: null, contradicts: false };
/** Not what a gateway that is unwell would say: there is no health endpoint, or somebody else's. */
const elsewhere = (error: string): Finding => ({ error, contradicts: false });
const against = (error: string): Finding => ({ error, contradicts: true });

/**
 * Asks the gateway at `url` (ws, wss, http or https; a wildcard is asked at its loopback) whether it is well. It is believed only if
 * it answers by the deadline, with 2xx and a JSON object that has `ok: true` and, unless `ownerId` is null, that `ownerId`. Certificates are
 * not checked, redirects not followed, connections not reused. Never rejects.
 */
export async function probe(url: string, ownerId: string | null, options: ProbeOptions = {}): Promise<Probe> {
  const target = parseTarget(url);
  if (target === null) return { ok: false, status: null, ms: 0, ...against(`'${printable(url)}' is no gateway's URL`) };
  const { path = DEFAULT_HEALTH_PATH, timeout = DEFAULT_HEALTH_TIMEOUT, signal = null } = options;
  const { request: send } = target.tls ? await import("node:https") : await import("node:http"); // 5 ms that others need not pay
  return await new Promise((resolve) => {
    const started = performance.now();
    const deadline = started + timeout;
    let status: number | null = null;
    let progress = "no connection";

    const { host, port } = target;
    const question: RequestOptions = {
      host,
      port,
      path,
      localAddress: nearestTo(host),
      agent: false,
      headers: { accept: "application/json", connection: "close" },
      rejectUnauthorized: false,
    };
    const request = send(question);

    const finish = (finding: Finding) => {
      stopTimer();
      stopListening();
      request.destroy();
      const now = performance.now();
      // Also for an answer that is read late because this process had other things to do.
      const { error, contradicts } = now >= deadline ? against(`${progress} within ${timeout}ms`) : finding;
      resolve({ ok: error === null, status, ms: Math.round(now - started), error, contradicts });
    };
    const stopTimer = callAt(deadline, () => finish(WELL));
    const stopListening = onAbort(signal, () => finish(ABORTED));
    const fail = (error?: unknown) => finish(describeFailure(error, progress));

    request.on("error", fail).on("close", fail);
    request.on("socket", (socket) => {
      socket.once("connect", () => {
        progress = "connected, but no answer";
      });
    });
    request.on("response", (response) => {
      status = response.statusCode ?? null;
      progress = "no complete answer";
      if (status !== null && status >= 200 && status < 300)
        readBody(response, (body) => finish(body === null ? TOO_LONG : judge(body, ownerId)), fail);
      else finish(describeStatus(status));
    });
    request.end();
    if (signal?.aborted) finish(ABORTED);
  });
}

const TOO_LONG: Finding = against(`the answer is longer than ${MAX_BODY_BYTES / 1024} KiB`);
const ABORTED: Finding = against("it was aborted");

/** `done` gets null where there is too much of it. */
function readBody(
  response: IncomingMessage,
  done: (body: string | null) => void,
  fail: (error: unknown) => void,
): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  response.on("error", fail);
  response.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) done(null);
    else chunks.push(chunk);
  });
  response.on("end", () => done(Buffer.concat(chunks).toString("utf8")));
}

function judge(body: string, ownerId: string | null): Finding {
  let answer: unknown;
  try {
    answer = JSON.parse(body);
  } catch {
    return elsewhere("the answer is not JSON");
  }
  if (typeof answer !== "object" || answer === null || Array.isArray(answer))
    return elsewhere("the answer is not a JSON object");
  const { ok, ownerId: answered } = answer as { ok?: unknown; ownerId?: unknown };
  if (ok === false) return against("the gateway says that it is not ok");
  if (ok !== true) return elsewhere("the answer does not say ok: true");
  if (ownerId === null || answered === ownerId) return WELL;
  if (answered === undefined) return elsewhere("the answer has no ownerId, so anybody may have given it");
  return against("the answer has another ownerId than the lock's record: it is not the owner who answers");
}

function describeStatus(status: number | null): Finding {
  if (status !== null && status >= 500) return against(`the answer is status ${status}`);
  const redirect = status !== null && status >= 300 && status < 400 ? ", a redirect, which is not followed" : "";
  return elsewhere(`the answer is status ${status}${redirect}; there seems to be no health endpoint`);
}

/** `error` is undefined where the connection was closed without one. */
function describeFailure(error: unknown, progress: string): Finding {
  const code = codeOf(error) ?? "";
  if (code === "ECONNREFUSED") return against("the connection was refused: nobody listens there");
  if (error === undefined || code === "ECONNRESET" || code === "EPIPE")
    return against(`the connection was closed: ${progress}`);
  if (code.startsWith("HPE_")) return against(`the answer is not HTTP (${code})`);
  if (code === "EPROTO" || code.startsWith("ERR_SSL_")) return against(`it does not speak TLS (${code})`);
  return against(printable(reasonOf(error)));
}

/**
 * A gateway tells only loopback peers who it is, and one that listens on another address of this host has no loopback to be asked at. On Linux a connection
 * may come from the loopback to any of the host's addresses.
 */
function nearestTo(host: string): string | undefined {
  if (process.platform !== "linux") return undefined;
  const address = ownAddresses().find((one) => !one.internal && canonical(one.address) === host);
  return address && (address.family === "IPv4" ? "127.0.0.1" : "::1");
}

function ownAddresses(): readonly NetworkInterfaceInfo[] {
  try {
    return Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  } catch {
    return []; // by EAFNOSUPPORT, where a service may not use AF_NETLINK (RestrictAddressFamilies= of systemd.exec(5))
  }
}

interface Target {
  readonly tls: boolean;
  readonly host: string;
  readonly port: number;
}

/** Not by `new URL`, which does not take a zone (`[fe80::1%eth0]`). */
const GATEWAY_URL = /^(?:ws|http)(s?):\/\/(?:\[([^\]]+)\]|([\w.-]+))(?::(\d{1,5}))?\/?$/i;

function parseTarget(url: string): Target | null {
  const [matched, s, inBrackets, plain = "", port] = GATEWAY_URL.exec(url) ?? [];
  if (matched === undefined) return null;
  const host = parseAddress(inBrackets ?? plain) ?? (inBrackets === undefined ? plain : null);
  if (host === null || Number(port ?? 1) > 65535) return null;
  const tls = s !== "";
  return { tls, host: reachable(host), port: port === undefined ? (tls ? 443 : 80) : Number(port) };
}

/** Where the gateway at `url` is asked, as an http or https URL. */
export function healthUrl(url: string, path: string = DEFAULT_HEALTH_PATH): string {
  return `${url.replace(/^ws/i, "http").replace(/\/$/, "")}${path}`;
}

/** Health options, complete. */
export interface ResolvedHealth {
  readonly path: string;
  readonly timeout: number;
  readonly check: HealthOptions["check"] | null;
}

/**
 * Whether the owner of a lock that is held is well, by the user's own check where there is one. `url` is where it listens. Never rejects.
 */
export async function examine(
  url: string,
  owner: OwnerRecord,
  { path, timeout, check }: ResolvedHealth,
  signal: AbortSignal | null = null,
): Promise<Probe> {
  if (!check) {
    // An older program's record says no ownerId, and so nobody can prove to be its owner.
    if (owner.ownerId === null) return { ok: false, status: null, ms: 0, ...elsewhere("the record has no ownerId") };
    return await probe(url, owner.ownerId, { path, timeout, signal });
  }
  const started = performance.now();
  const deadline = started + timeout;
  const late = against(`the check gave no answer within ${timeout}ms`);
  const controller = new AbortController();
  const { error, contradicts } = await new Promise<Finding>((resolve) => {
    const finish = (finding: Finding) => {
      stopTimer();
      stopListening();
      const isLate = performance.now() >= deadline;
      if (isLate || finding === ABORTED) controller.abort();
      resolve(isLate ? late : finding);
    };
    const stopTimer = callAt(deadline, () => finish(late));
    const stopListening = onAbort(signal, () => finish(ABORTED));
    const ask = async () => await check({ url: healthUrl(url, path), owner, signal: controller.signal });
    void ask().then(
      (well) => finish(well === true ? WELL : against("the check says no")),
      (reason: unknown) => finish(against(`the check failed: ${printable(reasonOf(reason))}`)),
    );
    if (signal?.aborted) finish(ABORTED);
  });
  return { ok: error === null, status: null, ms: Math.round(performance.now() - started), error, contradicts };
}
