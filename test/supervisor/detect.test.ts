// A supervisor is recognised by what it really leaves in the environment, and only where that means this process.

import { spawnSync } from "node:child_process";
import { existsSync, fstatSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { detectSupervisor } from "../../lib/supervisor/detect.ts";
import { fixturePath } from "../support/processes.ts";

const INVOCATION_ID = "0f0f2b2e4d9a4c57b9a1d4f1b2c3d4e5";
/** A container leaves a trace that is not in the environment. */
const NONE = existsSync("/.dockerenv") ? "docker" : null;

function streamOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

describe("GATEWAY_LOCK_SUPERVISOR", () => {
  it.each(["systemd", "launchd", "schtasks", "pm2", "kubernetes", "docker"])("names %s", (name) => {
    expect(detectSupervisor({ GATEWAY_LOCK_SUPERVISOR: name })).toBe(name);
  });

  it("overrules everything else", () => {
    const env = { SYSTEMD_EXEC_PID: String(process.pid), pm_id: "0", PM2_HOME: "/root/.pm2" };
    expect(detectSupervisor({ ...env, GATEWAY_LOCK_SUPERVISOR: "schtasks" })).toBe("schtasks");
    expect(detectSupervisor({ ...env, GATEWAY_LOCK_SUPERVISOR: "none" })).toBeNull();
  });
});

describe("systemd", () => {
  it("is recognised by the pid that it started: this process or its parent", () => {
    expect(detectSupervisor({ SYSTEMD_EXEC_PID: String(process.pid), INVOCATION_ID })).toBe("systemd");
    expect(detectSupervisor({ SYSTEMD_EXEC_PID: String(process.ppid), INVOCATION_ID })).toBe("systemd");
  });

  it("is not recognised in a shell of its session, whose variables mean another process", () => {
    const desktop = { SYSTEMD_EXEC_PID: "1", INVOCATION_ID, JOURNAL_STREAM: "8:1" };
    const notOurs = process.ppid === 1 ? { ...desktop, SYSTEMD_EXEC_PID: "2147483646" } : desktop;
    expect(detectSupervisor(notOurs)).toBe(NONE);
  });

  it.each([1, 2])("is recognised by the journal at descriptor %i", (fd) => {
    expect(detectSupervisor({ JOURNAL_STREAM: streamOf(fd), INVOCATION_ID })).toBe("systemd");
  });

  it("is recognised by the journal even where SYSTEMD_EXEC_PID names another process", () => {
    expect(detectSupervisor({ JOURNAL_STREAM: streamOf(1), SYSTEMD_EXEC_PID: "2147483646" })).toBe("systemd");
  });

  it("is recognised by INVOCATION_ID alone only where it set no other variable", () => {
    const run = (env: object) =>
      spawnSync(process.execPath, [fixturePath("gateway-supervisor.mjs"), JSON.stringify(env)], {
        stdio: ["ignore", "pipe", "inherit"],
        encoding: "utf8",
      }).stdout.trim();
    expect(run({ INVOCATION_ID })).toBe("systemd");
    expect(run({ INVOCATION_ID, JOURNAL_STREAM: "8:1" })).toBe(String(NONE));
    expect(run({ INVOCATION_ID, SYSTEMD_EXEC_PID: "2147483646" })).toBe(String(NONE));
  });

  it("is not recognised by INVOCATION_ID alone on a terminal", () => {
    // util-linux' script(1) gives its command a terminal as standard input.
    const script = spawnSync("script", ["--version"], { stdio: "ignore" });
    const command = `'${process.execPath}' '${fixturePath("gateway-supervisor.mjs")}' '${JSON.stringify({ INVOCATION_ID })}'`;
    const onTerminal = script.error
      ? spawnSync("python3", ["-c", `import pty,sys; pty.spawn(["sh","-c",sys.argv[1]])`, command], {
          encoding: "utf8",
        })
      : spawnSync("script", ["-qec", command, "/dev/null"], { encoding: "utf8" });
    expect(onTerminal.stdout.trim()).toBe(String(NONE));
  });
});

describe("the others", () => {
  it.each([
    ["launchd", { XPC_SERVICE_NAME: "com.example.gateway" }],
    ["launchd", { XPC_SERVICE_NAME: "0", LAUNCH_JOB_LABEL: "com.example.gateway" }],
    ["launchd", { LAUNCH_JOB_LABEL: "com.example.gateway" }],
    ["pm2", { pm_id: "0", PM2_HOME: "/home/user/.pm2" }],
    ["kubernetes", { KUBERNETES_SERVICE_HOST: "10.96.0.1", KUBERNETES_SERVICE_PORT: "443" }],
  ])("recognises %s in %o", (name, env) => {
    expect(detectSupervisor(env)).toBe(name);
  });

  it.each([
    ["a terminal on macOS", { XPC_SERVICE_NAME: "0", TERM_PROGRAM: "Apple_Terminal" }],
    ["a shell where pm2 is only installed", { PM2_HOME: "/home/user/.pm2" }],
    ["a variable named pm_id without pm2", { pm_id: "0" }],
    ["an empty environment", {}],
    ["a journal that belongs to somebody else", { JOURNAL_STREAM: "0:0", SYSTEMD_EXEC_PID: "2147483646" }],
  ])("recognises none in %s", (_, env) => {
    expect(detectSupervisor(env)).toBe(NONE);
  });

  it("takes the first that matches", () => {
    const all = {
      XPC_SERVICE_NAME: "com.example.gateway",
      pm_id: "0",
      PM2_HOME: "/root/.pm2",
      KUBERNETES_SERVICE_HOST: "10.96.0.1",
    };
    expect(detectSupervisor({ ...all, SYSTEMD_EXEC_PID: String(process.pid) })).toBe("systemd");
    expect(detectSupervisor(all)).toBe("launchd");
    expect(detectSupervisor({ ...all, XPC_SERVICE_NAME: "0" })).toBe("pm2");
    expect(detectSupervisor({ KUBERNETES_SERVICE_HOST: "10.96.0.1" })).toBe("kubernetes");
  });
});
