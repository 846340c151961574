// What systemd is told of this process, where it asks for it (Type=notify): ready, stopping, waiting.

import type { Cluster } from "node:cluster";
import { constants } from "node:os";
import { printable, reasonOf, systemError } from "../errors.ts";
import { type OwnerRecord, whereaboutsOf } from "../lock/record.ts";
import { isFailure, native } from "../native.ts";

/** systemd reads no datagram that is longer than a page. */
const MAX_VALUE_LENGTH = 1000;
/** A start that takes longer than TimeoutStartSec= goes on as long as it says so within every EXTENSION (sd_notify(3)). */
const EXTENSION = 30_000; // ms
const EXTENSION_INTERVAL = 5000; // ms
/** Where systemd is too busy to take a datagram. */
const RETRY_INTERVAL = 50; // ms

/**
 * Sends `fields` to the service manager (sd_notify(3)). Without `NOTIFY_SOCKET` nothing happens. Never throws: the gateway matters, and
 * systemd only hears of it; the first failure is a process warning.
 */
export function notifySystemd(fields: Readonly<Record<string, string>>): void {
  const socket = process.env.NOTIFY_SOCKET;
  if (!socket) return;
  unsent = { ...unsent, ...fields };
  clearTimeout(retry);
  try {
    if (trySend(socket, unsent)) unsent = {};
    else retry = setTimeout(notifySystemd, RETRY_INTERVAL, {}).unref();
  } catch (error) {
    unsent = {};
    warnOnce(error);
  }
}

let unsent: Readonly<Record<string, string>> = {};
let retry: NodeJS.Timeout | undefined;
let hasWarned = false;

/** False where the receiver's queue is full. */
function trySend(socket: string, fields: Readonly<Record<string, string>>): boolean {
  if (!/^[/@]/.test(socket)) throw new Error(`NOTIFY_SOCKET is '${printable(socket)}', which is no Unix socket`);
  const lines = Object.entries(fields).map(([name, value]) => `${name}=${printable(value).slice(0, MAX_VALUE_LENGTH)}`);
  const failure = native().notify(socket, lines.join("\n"));
  if (!isFailure(failure)) return true;
  if (failure.errno === constants.errno.EAGAIN) return false;
  throw systemError(failure, printable(socket));
}

function warnOnce(error: unknown): void {
  if (hasWarned) return;
  hasWarned = true;
  process.emitWarning(`systemd could not be told how the gateway is: ${reasonOf(error)}`, "GatewayLockWarning");
}

/** The gateways of this thread. */
const open = new Set<object>();

export function notifyOpen(gateway: object): void {
  open.add(gateway);
}

/** The gateway is another process's, and so is what there is to say of it. */
export function notifyGone(gateway: object): void {
  open.delete(gateway);
}

/**
 * systemd kills what is still there TimeoutStopSec= after it has said STOPPING=1. So the last gateway says it, and no cluster worker:
 * that its process ends is not the end of the service.
 */
export function notifyStopping(gateway: object, status: string): void {
  open.delete(gateway);
  if (process.env.NOTIFY_SOCKET === undefined) return;
  const isLast = open.size === 0 && !isClusterWorker();
  notifySystemd({ ...(isLast && { STOPPING: "1" }), STATUS: status });
}

function isClusterWorker(): boolean {
  return (process.getBuiltinModule?.("node:cluster") as unknown as Cluster | undefined)?.isWorker === true;
}

/** Tells systemd what is waited for, and goes on asking for time, until it has ended. Keeps no process alive. */
export class WaitNotice {
  #timer: NodeJS.Timeout | undefined;
  #status = "";

  say(status: string): void {
    if (!process.env.NOTIFY_SOCKET || status === this.#status) return;
    this.#status = status;
    this.#send();
    this.#timer ??= setInterval(() => this.#send(), EXTENSION_INTERVAL).unref();
  }

  /** `status` comes in place of what was said. */
  end(status: string): void {
    clearInterval(this.#timer);
    notifySystemd({ STATUS: status });
  }

  #send(): void {
    notifySystemd({ STATUS: this.#status, EXTEND_TIMEOUT_USEC: String(EXTENSION * 1000) });
  }
}

/** For a status: who is waited for, as far as the record tells. */
export function describeOwner(owner: OwnerRecord | null | undefined): string {
  if (!owner) return "another process has the lock";
  const elsewhere = whereaboutsOf(owner);
  if (elsewhere !== null) return `an owner ${elsewhere} has the lock`;
  return `pid ${owner.pid} owns ${owner.url ?? "the gateway"}`;
}
