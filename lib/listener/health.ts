// Whether a gateway is well: what it answers at /healthz, within one absolute deadline, and whether it is the owner who answers.

import type { OwnerRecord } from "../lock/record.ts";

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
