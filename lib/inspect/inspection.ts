// Looks at a gateway as often as it takes, asks it whether it is well, and judges.

import { formatUrl } from "../errors.ts";
import { examine, type Probe } from "../listener/health.ts";
import type { ResolvedInspection } from "../options.ts";
import { keyOf, look, type Picture } from "./look.ts";
import type { GatewayReport } from "./report.ts";
import { judge, strangersIn } from "./verdict.ts";

/** How often a gateway that seems unwell is looked at again, because it may just have made way for another one. */
const MAX_ROUNDS = 3;

/** A report, and what it was made from. */
export interface Inspection {
  readonly report: GatewayReport;
  readonly picture: Picture;
}

export async function inspect(options: ResolvedInspection): Promise<Inspection> {
  const report = (of: Picture, health: Probe | null): Inspection => ({
    report: judge(of, health, options),
    picture: of,
  });
  let picture = await look(options);
  for (let round = 1; ; round++) {
    const health = await ask(picture, options, null);
    if (health === null || health.ok) return report(picture, health);
    const after = await look(options);
    if (keyOf(after) === keyOf(picture)) return report(picture, health);
    if (round === MAX_ROUNDS) return report({ ...after, isSettled: false }, null);
    picture = after;
  }
}

/** Nobody is asked whose answer would prove nothing: a stranger on the port, or whoever is there while the lock is free. */
export async function ask(
  picture: Picture,
  options: ResolvedInspection,
  signal: AbortSignal | null,
): Promise<Probe | null> {
  const { owner, endpoint, locked, listeners } = picture;
  if (owner === null || endpoint === null || locked === false || strangersIn(picture).length > 0) return null;
  if (!listeners.some(({ port }) => port === endpoint.port)) return null;
  const url = formatUrl(endpoint.scheme, endpoint.host, endpoint.port);
  return await examine(url, owner, options.health, signal);
}
