// What is said of a gateway from outside: the evidence, the verdict that follows from it, and the next step.

import type { HealthReport } from "../listener/health.ts";
import type { OwnerRecord } from "../lock/record.ts";

/** In the order in which they are decided; the README's table says when each one applies. */
export type GatewayVerdict =
  | "unknown"
  | "split"
  | "expected"
  | "unhealthy"
  | "starting"
  | "foreign-listener"
  | "stale-record"
  | "free";

/** A socket that listens on the gateway's port. */
export interface ListenerReport {
  readonly address: string;
  readonly port: number;
  /** `null` where this user may not see whose it is. */
  readonly pid: number | null;
  readonly command: string | null;
}

/** What `inspectGateway` finds, and what `gateway-lock status --json` prints. */
export interface GatewayReport {
  readonly verdict: GatewayVerdict;
  /** Of `gateway-lock status`: see `EXIT`. */
  readonly exitCode: number;
  /** What to do about it, in a sentence. */
  readonly next: string;
  readonly lock: {
    /** The lock files, in lock order. */
    readonly paths: readonly string[];
    /** Whether somebody holds any of the locks; `null` where the kernel does not show enough to tell. */
    readonly locked: boolean | null;
    /** The pids of those who do, as far as this user may see. */
    readonly holders: readonly number[];
  };
  readonly owner: OwnerRecord | null;
  readonly listener: readonly ListenerReport[];
  /** `null` where nobody was asked. */
  readonly health: HealthReport | null;
}
