// Which supervisor started this process, if any, and whether it would start it again.

import { existsSync, fstatSync } from "node:fs";
import { tty } from "../builtins.ts";
import { printable } from "../errors.ts";
import type { Supervisor } from "../lock/record.ts";

export const SUPERVISORS: readonly Supervisor[] = ["systemd", "launchd", "schtasks", "pm2", "kubernetes", "docker"];

/** By what each supervisor leaves in the environment; the first match wins. `GATEWAY_LOCK_SUPERVISOR` overrules all. */
export function detectSupervisor(env: NodeJS.ProcessEnv = process.env): Supervisor | null {
  const named = nameIn(env);
  if (named !== undefined) return named;
  if (isSystemdService(env)) return "systemd";
  if (isLaunchdJob(env)) return "launchd";
  if (env.pm_id !== undefined && env.PM2_HOME !== undefined) return "pm2";
  if (env.KUBERNETES_SERVICE_HOST) return "kubernetes";
  return isInDocker() ? "docker" : null;
}

/**
 * Whether the supervisor watches over this very process. A shell in a container has all that its first process has, except for the pid; and
 * a terminal in an editor that pm2 or launchd started has all that the editor has.
 */
export function isSupervised(env: NodeJS.ProcessEnv = process.env): boolean {
  const supervisor = detectSupervisor(env);
  if (supervisor === null) return false;
  if (nameIn(env) !== undefined) return true;
  if (supervisor === "kubernetes" || supervisor === "docker") return process.pid === 1;
  // A unit may have a terminal (StandardInput=tty of systemd.exec(5)), and is started by systemd itself.
  return !tty().isatty(0) || env.SYSTEMD_EXEC_PID === String(process.pid);
}

/** What `GATEWAY_LOCK_SUPERVISOR` says; `undefined` where that is nothing, or no name. */
function nameIn({ GATEWAY_LOCK_SUPERVISOR = "" }: NodeJS.ProcessEnv): Supervisor | null | undefined {
  const name = GATEWAY_LOCK_SUPERVISOR.trim(); // `set NAME=value && …` of cmd.exe keeps the space
  if (name === "" || name === "none") return name === "" ? undefined : null;
  const named = SUPERVISORS.find((supervisor) => supervisor === name);
  if (named === undefined) warnOnce(name);
  return named;
}

let hasWarned = false;

function warnOnce(name: string): void {
  if (hasWarned) return;
  hasWarned = true;
  const names = [...SUPERVISORS, "none"].join(", ");
  const problem = `GATEWAY_LOCK_SUPERVISOR is '${printable(name)}', which is none of ${names}`;
  process.emitWarning(`${problem}: it is ignored, and the environment decides`, "GatewayLockWarning");
}

/** What is started from the Dock or the Finder is a job of launchd's too, named `application.<bundle>.<number>.<number>`, and so are its terminals. */
function isLaunchdJob({ XPC_SERVICE_NAME = "0", LAUNCH_JOB_LABEL }: NodeJS.ProcessEnv): boolean {
  return Boolean(LAUNCH_JOB_LABEL) || (XPC_SERVICE_NAME !== "0" && !XPC_SERVICE_NAME.startsWith("application."));
}

let hasDockerFile: boolean | undefined;

function isInDocker(): boolean {
  if (hasDockerFile !== undefined) return hasDockerFile;
  try {
    hasDockerFile = process.platform === "linux" && existsSync("/.dockerenv");
  } catch {
    hasDockerFile = false; // by Node's permission model, which makes even this throw
  }
  return hasDockerFile;
}

/** A terminal on a systemd desktop inherits these variables too: they count only if they mean this very process (systemd.exec(5)). */
function isSystemdService({ SYSTEMD_EXEC_PID, JOURNAL_STREAM, INVOCATION_ID }: NodeJS.ProcessEnv): boolean {
  if (SYSTEMD_EXEC_PID !== undefined && [process.pid, process.ppid].includes(Number(SYSTEMD_EXEC_PID))) return true;
  if (JOURNAL_STREAM !== undefined && [1, 2].some((fd) => streamOf(fd) === JOURNAL_STREAM)) return true;
  const silent = SYSTEMD_EXEC_PID === undefined && JOURNAL_STREAM === undefined;
  return silent && INVOCATION_ID !== undefined && !tty().isatty(0);
}

function streamOf(fd: number): string | null {
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}
