// A handover under systemd: the old process's end would be the end of the whole unit, unless the new one becomes its main process first.

import { readFileSync } from "node:fs";
import { printable } from "../errors.ts";
import { detectSupervisor } from "./detect.ts";
import { notifySystemd } from "./notify.ts";

const QUESTION_LIMIT = 2000; // ms
const UNIT = /([^/]+\.service)(?:\/|$)/;

/** Why the process `pid` can't become the main process of the unit that this process belongs to; `null`: it can, or there is none. */
export async function explainUnit(pid: number): Promise<string | null> {
  if (detectSupervisor() !== "systemd") return null;
  const [hierarchy, cgroup] = [...cgroupsOf("self")].find(([, path]) => UNIT.test(path)) ?? [];
  const [, unit] = UNIT.exec(cgroup ?? "") ?? [];
  if (hierarchy === undefined || cgroup === undefined || unit === undefined)
    return "it runs under systemd, and which unit that is can't be seen (/proc/self/cgroup)";
  const name = printable(unit);
  if (cgroupsOf(String(pid)).get(hierarchy) !== cgroup)
    return `it is the unit ${name}, whose end would come with its own, and the successor (pid ${pid}) is not part of that: start it from within, by ExecReload= say`;
  const access = await notifyAccessOf(unit, cgroup.includes("/user@"));
  if (!process.env.NOTIFY_SOCKET || access !== "all")
    return `it is the unit ${name}, whose end would come with its own: set NotifyAccess=all there (it is ${access ?? "not known"}), so that the successor can be made the main process`;
  return null;
}

/** systemd takes it only of a process of the same unit (MAINPID= of sd_notify(3)), and looks at it before it hears of this one's end. */
export function notifyMainProcess(pid: number): void {
  if (detectSupervisor() === "systemd") notifySystemd({ MAINPID: String(pid), STATUS: `handed over to pid ${pid}` });
}

/** Where a process is in the hierarchies that may be systemd's: the unified one, and its own (cgroups(7)). Empty where that can't be read. */
function cgroupsOf(pid: string): ReadonlyMap<string, string> {
  try {
    const lines = readFileSync(`/proc/${pid}/cgroup`, "utf8");
    return new Map([...lines.matchAll(/^\d+:(|name=systemd):(.*)$/gm)].map(([, name = "", path = ""]) => [name, path]));
  } catch {
    return new Map();
  }
}

async function notifyAccessOf(unit: string, isUsers: boolean): Promise<string | null> {
  const { execFile } = await import("node:child_process"); // which nobody else here needs
  const args = [...(isUsers ? ["--user"] : []), "show", "--property=NotifyAccess", "--", unit];
  return await new Promise((resolve) => {
    execFile("systemctl", args, { timeout: QUESTION_LIMIT }, (error, stdout) => {
      resolve(error === null ? (/^NotifyAccess=(\w+)$/m.exec(stdout)?.[1] ?? null) : null);
    });
  });
}
