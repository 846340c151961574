// The doctor's checks of what is around a gateway: other profiles, and who starts it again when it ends.

import { existsSync, readFileSync } from "node:fs";
import { EXIT, printable } from "../../errors.ts";
import type { Supervisor } from "../../lock/record.ts";
import { REMEDIES } from "../../profile/isolation.ts";
import { detectSupervisor, isSupervised, SUPERVISORS } from "../../supervisor/detect.ts";
import { type Answer, answer, type Problem, type Scene } from "./scene.ts";

/** Whether the gateways that are to run side by side share anything. */
export function checkProfiles({ instances, isolation }: Scene): Answer {
  if (instances < 2)
    return answer([
      instances === 0
        ? "no profile is named that others could be compared with"
        : "there is no other profile to compare with",
    ]);
  const problems = isolation.map(({ kind, detail }) => ({ evidence: detail, next: REMEDIES[kind] }));
  return answer([`${instances} profiles share nothing`], problems);
}

/** What each supervisor leaves in the environment. */
const TRACES: readonly string[] = [
  "GATEWAY_LOCK_SUPERVISOR",
  "SYSTEMD_EXEC_PID",
  "JOURNAL_STREAM",
  "INVOCATION_ID",
  "XPC_SERVICE_NAME",
  "LAUNCH_JOB_LABEL",
  "pm_id",
  "KUBERNETES_SERVICE_HOST",
];
/** What watches over its first process alone. */
const PLACES: Readonly<Partial<Record<Supervisor, string>>> = {
  docker: "Docker container",
  kubernetes: "Kubernetes pod",
};
const SYSTEMCTL_DEADLINE = 2000; // ms

/** Who started this process and the owner, and whether that would start a duplicate for ever. */
export async function checkSupervisor({ readings, picture }: Scene): Promise<Answer> {
  const env = process.env;
  const problems: Problem[] = [];
  const here = detectSupervisor(env);
  const traces = TRACES.filter((name) => env[name] !== undefined);
  const set = traces.length === 0 ? "" : ` (set: ${traces.join(", ")})`;
  const place = here === null || isSupervised(env) ? undefined : PLACES[here];
  const by = here === null || isSupervised(env) ? (here ?? "none") : `${here}, which does not watch over it`;
  const evidence = [
    place === undefined
      ? `this process was started by ${by}${set}`
      : `this process runs inside a ${place}, not as pid 1: nothing restarts it${set}`,
  ];

  const named = (env.GATEWAY_LOCK_SUPERVISOR ?? "").trim();
  if (named !== "" && named !== "none" && !(SUPERVISORS as readonly string[]).includes(named)) {
    problems.push({
      evidence: `GATEWAY_LOCK_SUPERVISOR is '${printable(named)}', which names no supervisor that is known, and is ignored`,
      next: `set it to one of ${SUPERVISORS.join(", ")} or none`,
    });
  }
  const socket = env.NOTIFY_SOCKET ?? "";
  if (socket.startsWith("/") && !existsSync(socket)) {
    problems.push({
      evidence: "NOTIFY_SOCKET is set, and there is no such socket: READY=1 reaches nobody",
      next: "unset it, or start the gateway as a unit with Type=notify",
    });
  }
  const owner = readings.find(({ record }) => record !== null)?.record ?? null;
  if (owner !== null) evidence.push(`the gateway of pid ${owner.pid} by ${owner.supervisor ?? "none"}`);
  const holders = owner?.supervisor === "systemd" ? ((await picture().catch(() => null))?.holders ?? []) : [];
  const unit = holders.map(unitOf).find((found) => found !== null);
  const looping = unit == null ? null : await restartsDuplicates(unit);
  if (looping !== null) problems.push(looping);
  return answer(evidence, problems);
}

interface Unit {
  readonly name: string;
  readonly isUser: boolean;
}

/** The service that a process belongs to, by its cgroup (systemd.unit(5), cgroups(7)). */
function unitOf(pid: number): Unit | null {
  try {
    return parseCgroup(readFileSync(`/proc/${pid}/cgroup`, "utf8"));
  } catch {
    return null;
  }
}

export function parseCgroup(text: string): Unit | null {
  for (const line of text.split("\n")) {
    const path = line.split(":").slice(2).join(":");
    const name = /\/([^/]+\.service)$/.exec(path)?.[1];
    if (name !== undefined) return { name, isUser: /\/user@\d+\.service\//.test(path) };
  }
  return null;
}

async function restartsDuplicates({ name, isUser }: Unit): Promise<Problem | null> {
  const { execFile } = await import("node:child_process");
  const properties = ["--property=Restart", "--property=RestartPreventExitStatus"];
  const args = [...(isUser ? ["--user"] : []), "show", ...properties, "--", name];
  const shown = await new Promise<string>((resolve) => {
    execFile("systemctl", args, { timeout: SYSTEMCTL_DEADLINE }, (error, stdout) =>
      resolve(error === null ? stdout : ""),
    );
  });
  if (!loopsOn(shown)) return null;
  return {
    evidence: `the unit ${name} is restarted whatever its exit code: a duplicate of it would be started for ever`,
    next: `add RestartPreventExitStatus=${EXIT.DUPLICATE} ${EXIT.SUPERVISED_DUPLICATE} to its [Service] section`,
  };
}

/** What `systemctl show` prints; systemd.service(5). */
export function loopsOn(shown: string): boolean {
  const [, restart = "no"] = /^Restart=(.*)$/m.exec(shown) ?? [];
  const [, prevented = ""] = /^RestartPreventExitStatus=(.*)$/m.exec(shown) ?? [];
  const codes = prevented.split(/\s+/);
  const isPrevented = [EXIT.DUPLICATE, EXIT.SUPERVISED_DUPLICATE].some((code) => codes.includes(String(code)));
  return ["always", "on-failure"].includes(restart) && !isPrevented;
}
