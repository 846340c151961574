// Which supervisor started this process, if any.

import { existsSync, fstatSync } from "node:fs";
import { isatty } from "node:tty";
import type { Supervisor } from "../lock/record.ts";

const SUPERVISORS: readonly Supervisor[] = ["systemd", "launchd", "schtasks", "pm2", "kubernetes", "docker"];

/** By what each supervisor leaves in the environment; the first match wins. `GATEWAY_LOCK_SUPERVISOR` overrules all. */
export function detectSupervisor(env: NodeJS.ProcessEnv = process.env): Supervisor | null {
  const named = env.GATEWAY_LOCK_SUPERVISOR;
  if (named !== undefined && named !== "") return SUPERVISORS.find((supervisor) => supervisor === named) ?? null;
  if (isSystemdService(env)) return "systemd";
  if ((env.XPC_SERVICE_NAME ?? "0") !== "0" || env.LAUNCH_JOB_LABEL) return "launchd";
  if (env.pm_id !== undefined && env.PM2_HOME !== undefined) return "pm2";
  if (env.KUBERNETES_SERVICE_HOST) return "kubernetes";
  return isInDocker() ? "docker" : null;
}

function isInDocker(): boolean {
  try {
    return process.platform === "linux" && existsSync("/.dockerenv");
  } catch {
    return false; // by Node's permission model, which makes even this throw
  }
}

/** A terminal on a systemd desktop inherits these variables too: they count only if they mean this very process (systemd.exec(5)). */
function isSystemdService({ SYSTEMD_EXEC_PID, JOURNAL_STREAM, INVOCATION_ID }: NodeJS.ProcessEnv): boolean {
  if (SYSTEMD_EXEC_PID !== undefined && [process.pid, process.ppid].includes(Number(SYSTEMD_EXEC_PID))) return true;
  if (JOURNAL_STREAM !== undefined && [1, 2].some((fd) => streamOf(fd) === JOURNAL_STREAM)) return true;
  const silent = SYSTEMD_EXEC_PID === undefined && JOURNAL_STREAM === undefined;
  return silent && INVOCATION_ID !== undefined && !isatty(0);
}

function streamOf(fd: number): string | null {
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}
