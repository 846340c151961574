// What happens to claims, told to whoever listens (node:diagnostics_channel), and to nobody at no cost.

import { type Channel, channel } from "node:diagnostics_channel";

/**
 * The channels, by what is published there. Every acquisition whose options are valid ends with one `acquire` or one `refused`.
 *
 * - `acquire`: a claim is complete: locks, port, record
 * - `refused`: an acquisition failed, or was aborted; `error` says why
 * - `wait`: somebody else has a lock, and the acquisition begins to wait for it
 * - `takeover`: comes just before `acquire` if somebody else had one of the locks first
 * - `lost`: a lock was taken away from under a live owner; `error` is its `LOCK_LOST`
 * - `release`: the claim was given back by `close()`
 * - `handover`: the claim went to a successor, in place of `release`
 */
export type GatewayLockEvent = "acquire" | "refused" | "wait" | "takeover" | "handover" | "lost" | "release";
export type GatewayLockChannel = `gateway-lock:${GatewayLockEvent}`;

/** What is published on each of the channels. */
export interface GatewayLockMessage {
  /** The lock files, in lock order; empty before they are known. */
  readonly lockPaths: readonly string[];
  /** The first host, as a literal. */
  readonly host: string;
  /** 0 before the kernel has chosen one. */
  readonly port: number;
  /** This process. The other one, where there is one, stands in `error.owner` and `error.listener`. */
  readonly pid: number;
  /** The acquisition's UUID, which is in the owner record later: the same in all messages of one claim. */
  readonly ownerId: string;
  /** For `lost`, `release` and `handover` since `acquire`, otherwise since the call of acquireGateway(). ms */
  readonly durationMs: number;
  /** Of `refused` and `lost`: a GatewayLockError, or the reason of the signal that ended the acquisition. */
  readonly error?: unknown;
}

const channels: Readonly<Record<GatewayLockEvent, Channel>> = {
  acquire: channel("gateway-lock:acquire"),
  refused: channel("gateway-lock:refused"),
  wait: channel("gateway-lock:wait"),
  takeover: channel("gateway-lock:takeover"),
  handover: channel("gateway-lock:handover"),
  lost: channel("gateway-lock:lost"),
  release: channel("gateway-lock:release"),
};

/** The story of one claim, from the call of acquireGateway() on. */
export class Chronicle {
  readonly ownerId: string;
  host: string;
  port: number;
  lockPaths: readonly string[] = [];
  #since: number = performance.now();
  #isWaiting = false;

  constructor(ownerId: string, host: string, port: number) {
    this.ownerId = ownerId;
    this.host = host;
    this.port = port;
  }

  tell(event: GatewayLockEvent, ...error: [error?: unknown]): void {
    if (event === "wait") {
      if (this.#isWaiting) return;
      this.#isWaiting = true;
    }
    const channel = channels[event];
    if (channel.hasSubscribers) {
      const { ownerId, host, port, lockPaths } = this;
      const durationMs = performance.now() - this.#since;
      const message: GatewayLockMessage = { lockPaths, host, port, pid: process.pid, ownerId, durationMs };
      channel.publish(error.length === 0 ? message : { ...message, error: error[0] });
    }
    if (event === "acquire") this.#since = performance.now();
  }
}
