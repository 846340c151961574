// `gateway-lock wait`: until the gateway is gone, or ready.

import { EXIT } from "../errors.ts";
import type { GatewayReport } from "../inspect/report.ts";
import { waitForGateway } from "../inspect/wait.ts";
import type { CommandOptions } from "./options.ts";
import { formatVerdict, meaningOf } from "./status.ts";
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
  else if (report !== null) await print(formatVerdict(report));
  else await print(plain(`gateway-lock: not ${state} after ${ms} ms${last === null ? "" : describe(last)}`), STDERR);
  return exitCode;
}

function describe(report: GatewayReport): string {
  return `: ${meaningOf(report)}; ${report.next}`;
}
