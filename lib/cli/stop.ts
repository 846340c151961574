// `gateway-lock stop`: ends the owner, and nobody else.

import { type StopReport, stopGateway } from "../inspect/stop.ts";
import { pidsOf } from "../inspect/verdict.ts";
import type { CommandOptions } from "./options.ts";
import { type Colour, paint, print, printJson, type Row, table, watch } from "./terminal.ts";

/** @returns the exit code */
export async function stopCommand(
  { gateway, health, json }: CommandOptions,
  { force, pid }: { readonly force: boolean; readonly pid: number | undefined },
): Promise<number> {
  const report = await stopGateway({ ...gateway, health, force, pid, onProgress: watch });
  await (json ? printJson(report) : print(format(report)));
  return report.exitCode;
}

const OUTCOMES: Readonly<Record<StopReport["outcome"], Colour>> = { stopped: "green", none: "bold", refused: "red" };

function format({ outcome, pids, signal, ms, evidence, next }: StopReport): string {
  const rows: Row[] = [
    { label: "evidence", lines: evidence },
    { label: "next", lines: next === "" ? [] : [next] },
  ];
  const who = pidsOf(pids);
  const [word, detail] =
    outcome === "stopped"
      ? [outcome, `: ${who}, by ${signal} in ${ms} ms`]
      : signal === null
        ? [outcome, ""]
        : ["still running", `: ${signal} to ${who} has not ended it in ${ms} ms`];
  return `${paint(OUTCOMES[outcome], word)}${detail}\n\n${table(rows)}`.trimEnd();
}
