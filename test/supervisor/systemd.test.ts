// Gateways as services of a real systemd, which is booted for this file: what it starts, how often, and what clients see meanwhile.

import { readFileSync } from "node:fs";
import { afterAll, expect, onTestFinished } from "vitest";
import { itWhere } from "../support/capabilities.ts";
import { bodyOf, lingeringClient, until } from "../support/listener-tools.ts";
import { NODE, PACKAGE, Systemd } from "../support/systemd.ts";
import { freePort } from "../support/temporary.ts";

const booted = await Systemd.boot();
afterAll(async () => {
  if (booted instanceof Systemd) await booted.end();
});
const itBooted = itWhere(booted instanceof Systemd, String(booted));

function systemd(): Systemd {
  if (booted instanceof Systemd) return booted;
  throw new Error(booted);
}

const example = (name: string) => readFileSync(new URL(`../../examples/systemd/${name}`, import.meta.url), "utf8");

/** Units that are stopped and forgotten when the test ends. */
async function install(units: { readonly [name: string]: string }): Promise<void> {
  const names = Object.keys(units).filter((name) => !name.endsWith(".conf"));
  onTestFinished(() => systemd().remove(...names));
  await systemd().install(units);
}

/** The service of examples/systemd as it stands there, for the paths of this system and `port`. */
async function installExample(names: readonly string[], port: number): Promise<void> {
  const here = `[Service]
ExecStart=
ExecStart=${NODE} ${PACKAGE}/examples/supervised.mjs
Environment=GATEWAY_PORT=${port}
`;
  const units = names.map((name) => [
    [`${name}.service`, example("gateway.service")],
    [`${name}.service.d/here.conf`, here],
  ]);
  await install(Object.fromEntries(units.flat()));
}

/** A service whose program is test/fixtures/service-gateway.mjs. */
function service(fixture: object, settings: string): string {
  return `[Service]
ExecStart=${NODE} ${PACKAGE}/test/fixtures/service-gateway.mjs '${JSON.stringify(fixture)}'
StateDirectory=gateway
${settings}
`;
}

const RESTARTS = ["NRestarts", "ExecMainStatus", "ActiveState", "Result"] as const;

/** What systemd says about restarts, in the output of the test too. */
async function restartsOf(unit: string): Promise<object> {
  const shown = await systemd().show(unit, ...RESTARTS);
  console.log(`${unit}: ${RESTARTS.map((name) => `${name}=${shown[name]}`).join(" ")}`);
  return shown;
}

/** Resolves when it is down and systemd will not start it again. */
async function isDown(unit: string): Promise<void> {
  await until(async () => ["failed", "inactive"].includes((await systemd().show(unit, "ActiveState")).ActiveState));
}

/** The pid of its main process, as this machine counts. */
function pidOf(unit: string): number {
  const [pid, ...others] = systemd().processesOf(unit);
  expect(others).toEqual([]);
  return Number(pid);
}

/** The first answer; clients are refused until then. */
async function firstAnswer(port: number): Promise<string> {
  let answer = "";
  await until(async () => {
    answer = await bodyOf(port).catch(() => "");
    return answer !== "";
  });
  return answer;
}

/** A client that asks again as soon as it was answered, until it is told to stop; answers what it heard. */
function visit(port: number): () => Promise<Set<string>> {
  let visiting = true;
  const heard = new Set<string>();
  const visits = (async () => {
    while (visiting) heard.add(await bodyOf(port).catch((error) => error.code));
  })();
  return async () => {
    visiting = false;
    await visits;
    return heard;
  };
}

itBooted("the example: a duplicate starts once and stays down, while the healthy one serves", async () => {
  const port = await freePort();
  await installExample(["owner", "duplicate"], port);
  await systemd().systemctl("start", "owner");
  const answer = await bodyOf(port);
  const stop = visit(port);

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
  expect(await stop()).toEqual(new Set([answer]));
});

itBooted("the example: the owner, killed with clients connected, is back at once and has the same port", async () => {
  const port = await freePort();
  await installExample(["owner"], port);
  await systemd().systemctl("start", "owner");
  const before = await bodyOf(port);
  await lingeringClient(port, "127.0.0.1", false);

  const killed = performance.now();
  process.kill(pidOf("owner.service"), "SIGKILL");
  const answer = await firstAnswer(port);
  console.log(`killed with SIGKILL, answers ${Math.round(performance.now() - killed)} ms later`);

  expect(answer).not.toBe(before);
  await until(async () => (await systemd().show("owner.service", "ActiveState")).ActiveState === "active");
  expect(await restartsOf("owner.service")).toMatchObject({ NRestarts: "1" });
});

const PATIENCE = { interval: 300, limit: 2000 }; // ms

itBooted("an owner that is not well is waited for within limits, and then there is one clear failure", async () => {
  const port = await freePort();
  const options = { stateDir: "/var/lib/gateway", port, retry: PATIENCE };
  const settings = "Restart=always\nRestartPreventExitStatus=1 78";
  await install({ "hung.service": service({ options }, ""), "next.service": service({ options }, settings) });
  await systemd().systemctl("start", "hung");
  await firstAnswer(port);
  const hung = pidOf("hung.service");
  process.kill(hung, "SIGSTOP");

  const started = performance.now();
  await systemd().systemctl("start", "next");
  await isDown("next.service");
  const ms = performance.now() - started;

  expect(ms).toBeGreaterThan(PATIENCE.limit);
  expect(await restartsOf("next.service")).toMatchObject({
    NRestarts: "0",
    ExecMainStatus: "1",
    ActiveState: "failed",
  });
  const said = (await systemd().journal("next.service")).filter((line) => line.includes("NOT_HEALTHY"));
  console.log(said);
  expect(said).toHaveLength(1);
});

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
    "next.service": `[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n${service({ options }, settings)}`,
  });
  await systemd().systemctl("start", "mute");
  await firstAnswer(port);

  await systemd().systemctl("start", "next");
  await isDown("next.service");

  expect(await restartsOf("next.service")).toMatchObject({ NRestarts: "3", ActiveState: "failed" });
  const said = (await systemd().journal("next.service")).filter((line) => line.includes("NOT_HEALTHY"));
  expect(said).toHaveLength(3);
});

itBooted("Type=notify: systemctl start returns when it is ready, and shows its status", async () => {
  const port = await freePort();
  const options = { stateDir: "/var/lib/gateway", port };
  await install({ "owner.service": service({ options, readyAt: "/ready" }, "Type=notify") });

  const start = systemd().systemctl("start", "owner");
  await firstAnswer(port);
  expect(await systemd().show("owner.service", "ActiveState")).toEqual({ ActiveState: "activating" });
  await bodyOf(port, "127.0.0.1", "/ready");
  await start;

  const { ActiveState, StatusText } = await systemd().show("owner.service", "ActiveState", "StatusText");
  console.log(StatusText);
  expect(ActiveState).toBe("active");
  expect(await systemd().systemctl("status", "owner")).toContain(`Status: "${StatusText}"`);
});
