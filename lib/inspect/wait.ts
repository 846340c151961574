// Waits until a gateway has gone, or is ready, without taking a lock that a starting one could meet.

import { locateResources } from "../lock/resources.ts";
import { onAbort } from "../lock/wait.ts";
import { resolveWaitOptions, type WaitOptions } from "../options.ts";
import { ask } from "./inspection.ts";
import { keyOf, look, type Picture } from "./look.ts";
import type { GatewayReport } from "./report.ts";
import { isUnlockedOwner, judge } from "./verdict.ts";
import { Wakeups } from "./wakeups.ts";

/** For how long an answer is waited for that is asked for shortly before the timeout. ms */
const LAST_ANSWER = 100;

/**
 * Waits for a gateway to be gone or to be ready. The end of a holder is told by the kernel, a change of the record by a watch on its
 * directory; both are made sure of twice a second. Resolves with `null` at the timeout, with the report of what was waited for
 * otherwise. Takes no lock: whoever starts a gateway then may still find that another one was quicker.
 *
 * @throws TypeError, RangeError: bad options. `signal.reason`
 */
export async function waitForGateway(options: WaitOptions): Promise<GatewayReport | null> {
  const { goal, timeout, signal, onChange, ...inspection } = resolveWaitOptions(options);
  const { health: question } = inspection;
  signal?.throwIfAborted();
  const deadline = performance.now() + timeout;
  const wakeups = new Wakeups();
  const stopListening = onAbort(signal, () => wakeups.wake());
  let last = "";
  try {
    wakeups.follow(
      [],
      locateResources(inspection).map(({ lockPath }) => lockPath),
    );
    for (;;) {
      const picture = await look(inspection, signal);
      wakeups.follow(picture.holders, filesIn(picture));
      // A gateway that gets ready while it is asked would be heard only when the question has timed out.
      const change = wakeups.nextSignal();
      const left = Math.max(deadline - performance.now(), LAST_ANSWER);
      const patience = timeout === 0 ? question.timeout : Math.min(question.timeout, left);
      const asked = { ...inspection, health: { ...question, timeout: Math.ceil(patience) } };
      const health = goal === "ready" ? await ask(picture, asked, change) : null;
      if (health === null || health.ok || !change.aborted) {
        const report = judge(picture, health, inspection);
        const seen = report.verdict + keyOf(picture);
        if (seen !== last) onChange?.(report);
        last = seen;
        if (goal === "free" ? isFree(picture) : isReady(report)) return report;
      }
      if (performance.now() >= deadline) return null;
      await wakeups.next(deadline, signal);
    }
  } finally {
    stopListening();
    wakeups[Symbol.dispose]();
  }
}

export function filesIn({ locks }: Picture): string[] {
  return locks.filter(({ isFile }) => isFile).map(({ path }) => path);
}

/** A gateway that takes no lock is one too. A stranger on the port is none, and may stay there for ever. */
function isFree(picture: Picture): boolean {
  return picture.locked === false && !isUnlockedOwner(picture);
}

function isReady({ verdict, owner, health }: GatewayReport): boolean {
  return verdict === "expected" && (owner?.phase === "ready" || health?.ok === true);
}
