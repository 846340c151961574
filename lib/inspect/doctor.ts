// Every check of a gateway's surroundings: what was seen, and what to do about it.

import type { InspectOptions } from "../options.ts";
import type { ProfileInstance } from "../profile/isolation.ts";

/** The README's table says what each one means. */
export type CheckName =
  | "addon"
  | "filesystem"
  | "permissions"
  | "record"
  | "lock-file"
  | "port-owner"
  | "loopback"
  | "wildcard"
  | "ephemeral-range"
  | "profiles"
  | "derived-ports"
  | "supervisor"
  | "clock";

/** What a check found. */
export interface Finding {
  readonly check: CheckName;
  /** `null`: it could not be checked; `evidence` says why. */
  readonly ok: boolean | null;
  /** What was seen. */
  readonly evidence: string;
  /** What to do about it; `null` where nothing is to be done. */
  readonly next: string | null;
}

/** What `diagnose` takes: which gateway, and what is to run beside it. */
export interface DoctorOptions extends InspectOptions {
  /** Gateways that are to run side by side, this one among them: they are compared with one another. Default: none. */
  instances?: readonly ProfileInstance[] | undefined;
}

/**
 * Runs every check, and answers with one finding for each, in one order, whether something is wrong or not. Nothing of the
 * gateway is touched, and no lock is taken that a starting one could meet: to see whether a filesystem locks, a
 * directory of another name is made beside the locks for an instant.
 *
 * What this user may not see, or what needs the addon where there is none, is `ok: null`. Rejects only for wrong options.
 *
 * @throws TypeError `ERR_INVALID_ARG_TYPE` or `ERR_INVALID_ARG_VALUE`, RangeError `ERR_SOCKET_BAD_PORT` or `ERR_OUT_OF_RANGE`
 */
export async function diagnose(options: DoctorOptions): Promise<Finding[]> {
  const { check } = await import("./checks/all.ts");
  return await check(options);
}
