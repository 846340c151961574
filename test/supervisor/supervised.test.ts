// Who is supervised, by the environments that supervisors, terminals, desktops and containers really leave.

import { type SpawnSyncOptionsWithStringEncoding, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { fixturePath } from "../support/processes.ts";

const NODE = [process.execPath, fixturePath("supervision.mjs")];
/** A container leaves a trace that is not in the environment. */
const NONE = existsSync("/.dockerenv") ? "docker" : null;
const INVOCATION_ID = "5f3e0c7b52b64d0b9e5f2f6f0d6a7c11";
const PATH = process.env.PATH ?? "/usr/bin:/bin";

type Environment = Readonly<Record<string, string>>;
interface Findings {
  readonly supervisor: string | null;
  readonly supervised: boolean;
  readonly pid: number;
}

/** What a process with exactly this environment, and the `PATH` that it takes to start it, finds. */
function run(command: readonly string[], env: Environment, onTerminal: boolean): Findings {
  const options: SpawnSyncOptionsWithStringEncoding = {
    env: { PATH, ...env },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  };
  const [program = "", ...args] = onTerminal
    ? ["python3", "-c", "import pty,sys; pty.spawn(sys.argv[1:])", ...command]
    : command;
  const { stdout } = spawnSync(program, args, options);
  return JSON.parse(stdout.trim()) as Findings;
}

/** Commands around node, so that a variable can name a pid that is known only then. */
const asTheService = ["sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$@"', "sh", ...NODE];
const asItsChild = ["sh", "-c", 'export SYSTEMD_EXEC_PID=$$; "$@"; exit', "sh", ...NODE];

const LOGIN: Environment = {
  HOME: "/home/dev",
  USER: "dev",
  LOGNAME: "dev",
  SHELL: "/bin/bash",
  LANG: "en_US.UTF-8",
  SHLVL: "1",
  PWD: "/home/dev",
};
const TERMINAL: Environment = { ...LOGIN, TERM: "xterm-256color", COLORTERM: "truecolor" };
/** What `systemd --user` gives to the desktop's own services; everything that they start has it. */
const USER_SERVICE: Environment = {
  ...TERMINAL,
  XDG_RUNTIME_DIR: "/run/user/1000",
  DBUS_SESSION_BUS_ADDRESS: "unix:path=/run/user/1000/bus",
  SYSTEMD_EXEC_PID: "2147483646",
  MANAGERPID: "1176",
  INVOCATION_ID,
  JOURNAL_STREAM: "8:35790",
};
const GNOME: Environment = {
  ...USER_SERVICE,
  XDG_CURRENT_DESKTOP: "ubuntu:GNOME",
  XDG_SESSION_TYPE: "wayland",
  DESKTOP_SESSION: "ubuntu",
  GNOME_SHELL_SESSION_MODE: "ubuntu",
  SESSION_MANAGER: "local/host:@/tmp/.ICE-unix/1176,unix/host:/tmp/.ICE-unix/1176",
};
const KDE: Environment = {
  ...USER_SERVICE,
  XDG_CURRENT_DESKTOP: "KDE",
  DESKTOP_SESSION: "plasma",
  KDE_FULL_SESSION: "true",
  KDE_SESSION_VERSION: "6",
  KDE_APPLICATIONS_AS_SCOPE: "1",
  MANAGERPIDFDID: "1521",
};
const VSCODE: Environment = {
  TERM_PROGRAM: "vscode",
  TERM_PROGRAM_VERSION: "1.104.0",
  VSCODE_GIT_IPC_HANDLE: "/run/user/1000/vscode-git-a1b2c3d4.sock",
  VSCODE_INJECTION: "1",
};
const MACOS: Environment = {
  ...TERMINAL,
  SHELL: "/bin/zsh",
  TMPDIR: "/var/folders/ab/cd/T/",
  SSH_AUTH_SOCK: "/private/tmp/com.apple.launchd.abc/Listeners",
  XPC_FLAGS: "0x0",
  XPC_SERVICE_NAME: "0",
};
const KUBERNETES: Environment = {
  HOSTNAME: "gateway-7c9d8b6f5-x2x9z",
  HOME: "/root",
  KUBERNETES_SERVICE_HOST: "10.96.0.1",
  KUBERNETES_SERVICE_PORT: "443",
  KUBERNETES_SERVICE_PORT_HTTPS: "443",
  KUBERNETES_PORT: "tcp://10.96.0.1:443",
  KUBERNETES_PORT_443_TCP_ADDR: "10.96.0.1",
};
const DOCKER: Environment = {
  HOSTNAME: "3f2a9c5d1e7b",
  HOME: "/root",
  NODE_VERSION: "24.9.0",
  YARN_VERSION: "1.22.22",
};
const PM2: Environment = {
  ...LOGIN,
  PM2_HOME: "/home/dev/.pm2",
  PM2_USAGE: "CLI",
  pm_id: "0",
  NODE_APP_INSTANCE: "0",
  name: "gateway",
  exec_mode: "fork_mode",
  pm_exec_path: "/opt/gateway/gateway.mjs",
  pm_cwd: "/opt/gateway",
  unique_id: "6d8d2a3e-8d0a-4f0c-9a53-0f5f8a5a7f10",
};
const SERVICE: Environment = {
  LANG: "C.UTF-8",
  HOME: "/var/lib/gateway",
  USER: "gateway",
  LOGNAME: "gateway",
  SHELL: "/usr/sbin/nologin",
  STATE_DIRECTORY: "/var/lib/gateway",
  INVOCATION_ID,
  JOURNAL_STREAM: "9:12831253",
  MEMORY_PRESSURE_WATCH: "/sys/fs/cgroup/system.slice/gateway.service/memory.pressure",
};
const RUNNER: Environment = {
  CI: "true",
  GITHUB_ACTIONS: "true",
  RUNNER_OS: "Linux",
  RUNNER_TEMP: "/home/runner/_temp",
};

const TERMINALS: [what: string, env: Environment, recorded?: string][] = [
  ["a login on the console", { ...LOGIN, TERM: "linux", XDG_SEAT: "seat0", XDG_VTNR: "1", XDG_SESSION_TYPE: "tty" }],
  [
    "ssh",
    {
      ...TERMINAL,
      SSH_CLIENT: "192.0.2.7 50612 22",
      SSH_CONNECTION: "192.0.2.7 50612 192.0.2.1 22",
      SSH_TTY: "/dev/pts/0",
      XDG_SESSION_CLASS: "user",
    },
  ],
  [
    "GNOME Terminal",
    {
      ...GNOME,
      VTE_VERSION: "6800",
      GNOME_TERMINAL_SCREEN: "/org/gnome/Terminal/screen/ab0b9d6a",
      GNOME_TERMINAL_SERVICE: ":1.83",
    },
  ],
  [
    "Konsole",
    {
      ...KDE,
      KONSOLE_VERSION: "250401",
      KONSOLE_DBUS_SERVICE: ":1.100",
      KONSOLE_DBUS_SESSION: "/Sessions/1",
      KONSOLE_DBUS_WINDOW: "/Windows/1",
    },
  ],
  ["a terminal on a desktop whose systemd sets no SYSTEMD_EXEC_PID", without(GNOME, "SYSTEMD_EXEC_PID")],
  ["a desktop's INVOCATION_ID alone", without(GNOME, "SYSTEMD_EXEC_PID", "JOURNAL_STREAM")],
  [
    "tmux that was started on the desktop",
    { ...GNOME, TERM: "tmux-256color", TERM_PROGRAM: "tmux", TMUX: "/tmp/tmux-1000/default,2214,0", TMUX_PANE: "%0" },
  ],
  ["screen", { ...TERMINAL, TERM: "screen.xterm-256color", STY: "2214.pts-0.host", WINDOW: "0" }],
  [
    "VS Code on Linux",
    { ...GNOME, ...VSCODE, CHROME_DESKTOP: "code.desktop", ORIGINAL_XDG_CURRENT_DESKTOP: "ubuntu:GNOME" },
  ],
  [
    "VS Code over ssh",
    {
      ...TERMINAL,
      ...VSCODE,
      SSH_CONNECTION: "192.0.2.7 50612 192.0.2.1 22",
      VSCODE_IPC_HOOK_CLI: "/run/user/1000/vscode-ipc-1.sock",
    },
  ],
  [
    "npm start in a terminal",
    {
      ...GNOME,
      npm_lifecycle_event: "start",
      npm_package_name: "gateway",
      npm_execpath: "/usr/lib/node_modules/npm/bin/npm-cli.js",
      INIT_CWD: "/home/dev",
    },
  ],
  [
    "sudo",
    {
      HOME: "/root",
      USER: "root",
      TERM: "xterm-256color",
      SUDO_USER: "dev",
      SUDO_UID: "1000",
      SUDO_COMMAND: "/usr/bin/node gateway.mjs",
    },
  ],
  [
    "distrobox",
    { ...GNOME, CONTAINER_ID: "fedora-42", DISTROBOX_ENTER_PATH: "/usr/bin/distrobox-enter", container: "podman" },
  ],
  [
    "WSL",
    { ...TERMINAL, WSL_DISTRO_NAME: "Ubuntu", WSL_INTEROP: "/run/WSL/11_interop", WSLENV: "WT_SESSION::WT_PROFILE_ID" },
  ],
  [
    "Terminal.app",
    { ...MACOS, TERM_PROGRAM: "Apple_Terminal", TERM_SESSION_ID: "C821495F-30DA-4D43-8D7C-347867FDFEF6" },
  ],
  ["iTerm2", { ...MACOS, TERM_PROGRAM: "iTerm.app", ITERM_SESSION_ID: "w0t0p0:9D4F", LC_TERMINAL: "iTerm2" }],
  [
    "VS Code on macOS",
    {
      ...MACOS,
      ...VSCODE,
      XPC_SERVICE_NAME: "application.com.microsoft.VSCode.59852660.59852666",
      __CFBundleIdentifier: "com.microsoft.VSCode",
    },
  ],
  [
    "IntelliJ on macOS",
    {
      ...MACOS,
      XPC_SERVICE_NAME: "application.com.jetbrains.intellij.ce.6297960.6298918",
      TERMINAL_EMULATOR: "JetBrains-JediTerm",
    },
  ],
  [
    "a terminal of an editor that launchd keeps running",
    { ...MACOS, ...VSCODE, XPC_SERVICE_NAME: "com.coder.code-server" },
    "launchd",
  ],
  ["a terminal of an editor that pm2 keeps running", { ...PM2, ...VSCODE, TERM: "xterm-256color" }, "pm2"],
  ["docker exec -it", { ...DOCKER, TERM: "xterm" }],
  ["kubectl exec -it", { ...KUBERNETES, TERM: "xterm" }, "kubernetes"],
];

const BACKGROUND: [what: string, env: Environment, recorded?: string][] = [
  ["cron", { HOME: "/home/dev", LOGNAME: "dev", SHELL: "/bin/sh", LANG: "C.UTF-8" }],
  [
    "a GitHub Actions runner",
    { ...LOGIN, ...RUNNER, INVOCATION_ID, JOURNAL_STREAM: "8:24681", SYSTEMD_EXEC_PID: "2147483645" },
  ],
  [
    "GitLab's shell runner",
    {
      ...LOGIN,
      CI: "true",
      GITLAB_CI: "true",
      CI_JOB_ID: "4711",
      INVOCATION_ID,
      JOURNAL_STREAM: "8:24682",
      SYSTEMD_EXEC_PID: "2147483645",
    },
  ],
  ["a job in a container", { ...DOCKER, ...RUNNER }],
  [
    "a job in a pod",
    { ...KUBERNETES, CI: "true", JENKINS_URL: "https://ci.example.com/", BUILD_ID: "12" },
    "kubernetes",
  ],
  [
    "VS Code's debugger on a desktop",
    { ...KDE, ...without(VSCODE, "TERM_PROGRAM"), VSCODE_INSPECTOR_OPTIONS: ":::{}" },
  ],
  ["VS Code's debugger on macOS", { ...MACOS, XPC_SERVICE_NAME: "application.com.microsoft.VSCode.59852660.59852666" }],
  ["docker exec, in a script", DOCKER],
  ["kubectl exec, in a script", KUBERNETES, "kubernetes"],
];

function without(env: Environment, ...names: readonly string[]): Environment {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !names.includes(name)));
}

const itOnTerminal = itWhere(hasPython, "no python3, which makes the terminals");

describe("not supervised", () => {
  itOnTerminal.each(TERMINALS)("in %s", (_, env, recorded) => {
    expect(run(NODE, env, true)).toMatchObject({ supervisor: recorded ?? NONE, supervised: false });
  });

  it.each(BACKGROUND)("by %s", (_, env, recorded) => {
    expect(run(NODE, env, false)).toMatchObject({ supervisor: recorded ?? NONE, supervised: false });
  });

  itOnTerminal("as the one command of a terminal, which the desktop runs as a service", () => {
    // `konsole -e node gateway.mjs`: the parent is what systemd has started.
    expect(run(asItsChild, KDE, true)).toMatchObject({ supervisor: "systemd", supervised: false });
  });

  it("where GATEWAY_LOCK_SUPERVISOR says none", () => {
    const env = { ...SERVICE, GATEWAY_LOCK_SUPERVISOR: "none" };
    expect(run(asTheService, env, false)).toMatchObject({ supervisor: null, supervised: false });
  });
});

describe("supervised", () => {
  it.each([
    ["systemd", asTheService, SERVICE],
    ["systemd, through a shell", asItsChild, SERVICE],
    ["a systemd that sets INVOCATION_ID only", NODE, without(SERVICE, "JOURNAL_STREAM")],
  ])("by %s", (_, command, env) => {
    expect(run(command, env, false)).toMatchObject({ supervisor: "systemd", supervised: true });
  });

  itOnTerminal("by systemd in a unit that has a terminal (StandardInput=tty)", () => {
    expect(run(asTheService, { ...SERVICE, TERM: "linux" }, true)).toMatchObject({
      supervisor: "systemd",
      supervised: true,
    });
  });

  it.each([
    [
      "launchd",
      { ...without(MACOS, "TERM", "COLORTERM", "SHLVL"), XPC_SERVICE_NAME: "com.example.gateway", XPC_FLAGS: "1" },
    ],
    ["pm2", PM2],
  ])("by %s", (supervisor, env) => {
    expect(run(NODE, env, false)).toMatchObject({ supervisor, supervised: true });
  });

  itOnTerminal.each(["schtasks", "schtasks ", "docker", "kubernetes", "pm2"])(
    "by GATEWAY_LOCK_SUPERVISOR=%j, wherever it is",
    (name) => {
      const env = { ...TERMINAL, GATEWAY_LOCK_SUPERVISOR: name };
      expect(run(NODE, env, true)).toMatchObject({ supervisor: name.trim(), supervised: true });
    },
  );
});

/** A root directory of our own, with or without docker's mark, and the command as the first process of a pid namespace, or as its child. */
function inContainer({
  dockerenv,
  first,
}: {
  dockerenv: boolean;
  first: boolean;
}): (command: readonly string[]) => readonly string[] {
  const setUp = `
    mount -t tmpfs none "$1"
    for entry in /*; do
      if [ -L "$entry" ]; then cp -P "$entry" "$1"
      elif [ -d "$entry" ]; then mkdir "$1$entry"; mount --rbind "$entry" "$1$entry"; fi
    done
    ${dockerenv ? 'touch "$1/.dockerenv"' : ""}
    root=$1; shift
    ${first ? 'exec chroot "$root" "$@"' : 'chroot "$root" "$@"; exit'}`;
  return (command) => [
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "sh",
    "-ec",
    setUp,
    "sh",
    ROOT,
    ...command,
  ];
}

const ROOT = join(tmpdir(), "gateway-lock-test-root");
const canContain = (() => {
  const root = mkdtempSync(`${ROOT}-`);
  const [unshare = "", ...args] = inContainer({ dockerenv: true, first: true })(["true"]).map((word) =>
    word === ROOT ? root : word,
  );
  const { status } = spawnSync(unshare, args, { stdio: "ignore" });
  rmSync(root, { recursive: true });
  return isLinux && status === 0;
})();
const itContained = itWhere(canContain, "no container can be made of namespaces");

describe("a container", () => {
  /** The mount is the namespace's, and gone with it. */
  function contained(env: Environment, { dockerenv = true, first = true }): Findings {
    const root = mkdtempSync(`${ROOT}-`);
    try {
      const command = inContainer({ dockerenv, first })(NODE).map((word) => (word === ROOT ? root : word));
      return run(command, env, false);
    } finally {
      rmSync(root, { recursive: true });
    }
  }

  itContained("is docker's, and its first process is supervised", () => {
    expect(contained(DOCKER, {})).toEqual({ supervisor: "docker", supervised: true, pid: 1 });
  });

  itContained("is docker's, and what runs beside the first process is not supervised", () => {
    const { pid, ...findings } = contained(DOCKER, { first: false });
    expect(pid).not.toBe(1);
    expect(findings).toEqual({ supervisor: "docker", supervised: false });
  });

  itContained("is a pod's, and its first process is supervised", () => {
    expect(contained(KUBERNETES, { dockerenv: false })).toEqual({ supervisor: "kubernetes", supervised: true, pid: 1 });
    expect(contained(KUBERNETES, { dockerenv: false, first: false })).toMatchObject({
      supervisor: "kubernetes",
      supervised: false,
    });
  });

  itContained("is nobody's without a mark: its first process is not supervised", () => {
    expect(contained(LOGIN, { dockerenv: false })).toEqual({ supervisor: null, supervised: false, pid: 1 });
    expect(contained(GNOME, { dockerenv: false })).toEqual({ supervisor: null, supervised: false, pid: 1 });
  });
});

describe("a name that GATEWAY_LOCK_SUPERVISOR can't have", () => {
  it.each([
    ["sytemd", SERVICE, asTheService, "systemd"],
    ["SYSTEMD", LOGIN, NODE, NONE],
    ["a\u001b[31mb", LOGIN, NODE, NONE],
  ])("is warned of once, and ignored: %j", (name, env, [program = "", ...args], supervisor) => {
    const { stdout, stderr } = spawnSync(program, args, {
      env: { PATH, ...env, GATEWAY_LOCK_SUPERVISOR: name },
      encoding: "utf8",
    });
    expect(JSON.parse(stdout)).toMatchObject({ supervisor });
    expect(stderr.match(/GatewayLockWarning/g)).toHaveLength(1);
    expect(stderr).toContain("which is none of systemd, launchd, schtasks, pm2, kubernetes, docker, none");
    expect(stderr).not.toContain("\u001b");
  });
});
