// The state of a gateway, from outside: what the kernel, the record, the port and the health probe say, and what follows.

import { type InspectOptions, resolveInspectOptions } from "../options.ts";
import type { GatewayReport } from "./report.ts";

export type { InspectOptions } from "../options.ts";

/**
 * Says whether a gateway runs, who it is and how it is, and what to do about it. It only reads: it takes no lock, makes and
 * deletes nothing, and sends no signal. A gateway that has its lock and listens is asked whether it is well, by one HTTP request.
 *
 * The port is the one of the record, whichever was given; `port` is looked at too where it is given, and 18789 where there is no
 * record. What can't be seen by this user makes the verdict `unknown`, never `free`.
 *
 * @throws TypeError, RangeError: bad options. Error `ERR_GATEWAY_LOCK_ADDON`
 */
export async function inspectGateway(options: InspectOptions): Promise<GatewayReport> {
  const resolved = resolveInspectOptions(options);
  const { inspect } = await import("./inspection.ts");
  return (await inspect(resolved)).report;
}
