// `gateway-lock wait`: until the gateway is gone, or ready.

import { EXIT } from "../errors.ts";
import type { GatewayReport } from "../inspect/report.ts";
import { waitForGateway } from "../inspect/wait.ts";
import type { CommandOptions } from "./options.ts";
import { formatVerdict, isGone, meaningOf, NOT_RUNNING } from "./status.ts";
import { plain, print, printJson, STDERR, watch } from "./terminal.ts";

/** @returns the exit code */
export async function waitCommand({ gateway, health, json }: CommandOptions, state: "free" | "ready"): Promise<number> {
  const started = performance.now();
  let last = null as GatewayReport | null;
  const report = await waitForGateway({
    ...gateway,
    health,
    for: state,
    onChange: (found) => {
      last = found;
      watch(`waiting for it to be ${state}: ${meaningOf(found)}`);
    },
  });
  const ms = Math.round(performance.now() - started);
  const exitCode = report === null ? EXIT.TIMEOUT : EXIT.OK;
  if (json) await printJson({ for: state, reached: report !== null, exitCode, ms, report: report ?? last });
  else if (report === null)
    await print(
      plain(`gateway-lock: not ${state} after ${ms} ms${last === null ? "" : describe(state, last)}`),
      STDERR,
    );
  else {
    await print(formatVerdict(report));
    // Nobody holds the lock, and the next start fails all the same.
    if (state === "free" && !isGone(report)) await print(plain(`gateway-lock: ${report.next}`), STDERR);
  }
  return exitCode;
}

function describe(state: "free" | "ready", report: GatewayReport): string {
  if (isGone(report)) return `: ${NOT_RUNNING}`;
  if (report.verdict !== "expected") return `: ${report.next}`;
  const next =
    state === "free"
      ? "`gateway-lock stop` with the same options ends it"
      : "it has not said that it is ready, by ready() or at --health-path";
  return `: ${meaningOf(report)}; ${next}`;
}
