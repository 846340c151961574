// Gateways as services of a real systemd: what it starts, how often, and what clients see meanwhile.

import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { itWhere } from "../support/capabilities.ts";
import { bodyOf, connectTo, lingeringClient } from "../support/listener-tools.ts";
import {
  firstAnswer,
  install,
  installExample,
  isDown,
  itBooted,
  restartsOf,
  service,
  systemd,
  Visitor,
} from "../support/services.ts";
import { NODE, PACKAGE, Systemd } from "../support/systemd.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

itBooted("what is booted sees nothing of this machine's /tmp, and can write none of its files", async () => {
  const ours = temporaryDirectory();
  expect((await systemd().run("ls", ours)).status).not.toBe(0);
  expect((await systemd().run("touch", "/usr/gateway-lock-test")).stderr).toContain("Read-only file system");
});

itBooted("it ends with everything that runs in it, and leaves no cgroup", async () => {
  const other = await Systemd.boot();
  if (!(other instanceof Systemd)) throw new Error(other);
  await other.install({ "sleeper.service": "[Service]\nExecStart=sleep infinity\n" });
  await other.systemctl("start", "sleeper");
  const pid = await other.mainProcessOf("sleeper.service");
  const cgroup = /^0::\/(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8"))?.[1] ?? "";
  expect(cgroup).toMatch(/gateway-lock-\d+\/system\.slice\/sleeper\.service$/);

  await other.end();

  expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  const [, hierarchy = "/sys/fs/cgroup"] = /^\S+ (\S+) cgroup2 /m.exec(readFileSync("/proc/self/mounts", "utf8")) ?? [];
  expect(existsSync(join(hierarchy, cgroup, "../.."))).toBe(false);
});

itBooted("the example: a duplicate starts once and stays down, while the healthy one serves", async () => {
  const port = await freePort();
  await installExample(["owner", "duplicate"], port);
  await systemd().systemctl("start", "owner");
  const answer = await bodyOf(port);
  const visitor = new Visitor(port);

  const { status } = await systemd().run("systemctl", "start", "duplicate");
  await isDown("duplicate");

  expect(status).not.toBe(0);
  expect(await restartsOf("duplicate.service")).toEqual({
    NRestarts: "0",
    ExecMainStatus: "78",
    ActiveState: "failed",
    Result: "exit-code",
  });
  expect(await restartsOf("owner.service")).toMatchObject({ NRestarts: "0", ActiveState: "active" });
  expect(await visitor.stop()).toEqual(new Set([answer]));
});

itBooted("the example, where a service may not use netlink: a duplicate finds out all the same", async () => {
  const port = await freePort();
  const settings = "\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX";
  await installExample(["owner", "duplicate"], port, settings);
  await systemd().systemctl("start", "owner");

  await systemd().run("systemctl", "start", "duplicate");
  await isDown("duplicate.service");

  expect(await restartsOf("duplicate.service")).toMatchObject({ NRestarts: "0", ExecMainStatus: "78" });
});

const AT_ONCE = 5000; // ms; a tenth of that where nothing else runs

itBooted("the example: the owner, killed with clients connected, is back at once and has the same port", async () => {
  const port = await freePort();
  await installExample(["owner"], port);
  await systemd().systemctl("start", "owner");
  const before = await bodyOf(port);
  await lingeringClient(port, "127.0.0.1", false);

  const killed = performance.now();
  process.kill(await systemd().mainProcessOf("owner.service"), "SIGKILL");
  const answer = await firstAnswer(port);
  const ms = Math.round(performance.now() - killed);
  console.log(`killed with SIGKILL, answers ${ms} ms later`);

  expect(ms).toBeLessThan(AT_ONCE);
  expect(answer).not.toBe(before);
  await systemd().until("owner.service", ["ActiveState"], ({ ActiveState }) => ActiveState === "active");
  expect(await restartsOf("owner.service")).toMatchObject({ NRestarts: "1" });
});

const PATIENCE = 2000; // ms

itBooted(
  "the example: an owner that is not well is waited for within limits, and then there is one clear failure",
  async () => {
    const port = await freePort();
    await installExample(["hung", "patient"], port, `GATEWAY_RETRY_LIMIT=${PATIENCE}`);
    await systemd().systemctl("start", "hung");
    process.kill(await systemd().mainProcessOf("hung.service"), "SIGSTOP");

    const started = performance.now();
    await systemd().run("systemctl", "start", "patient");
    await isDown("patient.service");
    const ms = performance.now() - started;

    expect(ms).toBeGreaterThan(PATIENCE);
    expect(await restartsOf("patient.service")).toMatchObject({ NRestarts: "0", ActiveState: "failed" });
    const said = (await systemd().journal("patient.service")).filter((line) => line.startsWith("gateway: "));
    console.log(said);
    expect(said).toEqual([
      `gateway: gateway already running under systemd; existing gateway did not become healthy after ${PATIENCE}ms`,
    ]);
  },
);

itBooted("where systemd starts it again after that failure, its own limit ends it", async () => {
  const port = await freePort();
  const options = {
    stateDir: "/var/lib/gateway",
    port,
    retry: { interval: 100, limit: 300 },
    health: { timeout: 100 },
  };
  const settings = "Restart=always\nRestartSec=10ms\nRestartPreventExitStatus=78";
  await install({
    "mute.service": service({ options, mute: true }, ""),
    "again.service": `[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n${service({ options }, settings)}`,
  });
  await systemd().systemctl("start", "mute");
  await firstAnswer(port);

  await systemd().systemctl("start", "again");
  await isDown("again.service");

  expect(await restartsOf("again.service")).toMatchObject({ NRestarts: "3", ActiveState: "failed" });
  const said = (await systemd().journal("again.service")).filter((line) => line.includes("NOT_HEALTHY"));
  expect(said).toHaveLength(3);
});

itBooted("Type=notify: systemctl start returns when it is ready, and shows its status", async () => {
  const port = await freePort();
  const options = { stateDir: "/var/lib/gateway", port };
  await install({ "owner.service": service({ options, readyAt: "/ready" }, "Type=notify") });

  const start = systemd().systemctl("start", "owner");
  start.catch(() => {}); // it is awaited below, unless something fails before
  await firstAnswer(port);
  expect(await systemd().show("owner.service", "ActiveState")).toEqual({ ActiveState: "activating" });
  await bodyOf(port, "127.0.0.1", "/ready");
  await start;

  const { ActiveState, StatusText } = await systemd().show("owner.service", "ActiveState", "StatusText");
  console.log(StatusText);
  expect(ActiveState).toBe("active");
  expect(await systemd().systemctl("status", "owner")).toContain(`Status: "${StatusText}"`);
});

itBooted("Type=notify: a gateway that closes says that it is stopping, before it has ended", async () => {
  const port = await freePort();
  const options = { stateDir: "/var/lib/gateway", port };
  await install({ "closing.service": service({ options, mute: true }, "Type=notify") });
  await systemd().systemctl("start", "closing");
  const client = await connectTo({ port });
  client.write("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); // which is not answered, so that the gateway can't close
  await bodyOf(port);

  process.kill(await systemd().mainProcessOf("closing.service"), "SIGTERM");
  await systemd().until("closing.service", ["ActiveState"], ({ ActiveState }) => ActiveState === "deactivating");
  console.log((await systemd().show("closing.service", "StatusText")).StatusText);
  client.destroy();
  await isDown("closing.service");

  expect(await restartsOf("closing.service")).toMatchObject({ ExecMainStatus: "0", ActiveState: "inactive" });
});

const START_LIMIT = 1500; // ms

itBooted("Type=notify: a standby may wait for longer than a start may take, and takes over", async () => {
  const port = await freePort();
  const settings = `\nTimeoutStartSec=${START_LIMIT}ms\nEnvironment=GATEWAY_ON_DUPLICATE=standby`;
  await installExample(["owner", "standby"], port, settings);
  await systemd().systemctl("start", "owner");
  const before = await bodyOf(port);

  const start = systemd().systemctl("start", "standby");
  start.catch(() => {}); // it is awaited below, unless something fails before
  await systemd().until("standby.service", ["StatusText"], ({ StatusText }) => StatusText.startsWith("standby: "));
  console.log((await systemd().show("standby.service", "StatusText")).StatusText);
  const until = performance.now() + 2 * START_LIMIT;
  await systemd().until("standby.service", ["ActiveState"], ({ ActiveState }) => {
    expect(ActiveState).toBe("activating");
    return performance.now() > until;
  });
  await systemd().systemctl("stop", "owner");
  await start;

  expect(await restartsOf("standby.service")).toMatchObject({ NRestarts: "0", ActiveState: "active" });
  expect(await firstAnswer(port)).not.toBe(before);
});

const itWithBus = existsSync("/lib/systemd/system/dbus.service") ? itBooted : itWhere(false, "needs dbus");

itWithBus(
  "a shell of a login is not supervised, nor one of systemd-run --pty, nor one in a terminal that systemd has started",
  async () => {
    const port = await freePort();
    await installExample(["owner"], port);
    const duplicate = "/run/duplicate";
    const settings = `GATEWAY_PORT=${port} STATE_DIRECTORY=/var/lib/gateway`;
    const script = `#!/bin/sh\n${settings} ${NODE} ${PACKAGE}/examples/supervised.mjs\necho $? >>/run/exit-codes\n`;
    writeFileSync(systemd().path(duplicate), script, { mode: 0o755 });
    appendFileSync(systemd().path("/etc/passwd"), `operator:*:0:0::/:${duplicate}\n`);
    const terminal = `ExecStart=/usr/bin/script -qec ${duplicate} /dev/null`;
    await install({
      "terminal.service": `[Service]\nType=oneshot\n${terminal}\n`,
      "plain.service": `[Service]\nType=oneshot\nExecStart=${duplicate}\n`,
    });
    await systemd().systemctl("start", "owner");
    await systemd().systemctl("start", "dbus.service"); // for systemd-run

    await systemd().onTerminal("login -f operator");
    await systemd().onTerminal(`systemd-run --pty --quiet ${duplicate}`);
    await systemd().systemctl("start", "terminal");
    await systemd().systemctl("start", "plain"); // the same in a service, for comparison

    expect(readFileSync(systemd().path("/run/exit-codes"), "utf8")).toBe("75\n75\n75\n78\n");
  },
);
