// Gateways under a real pm2: what it starts again, how often, and what clients see meanwhile.

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { afterAll, expect, onTestFinished } from "vitest";
import { itWhere } from "../support/capabilities.ts";
import { bodyOf, lingeringClient, until } from "../support/listener-tools.ts";
import { Pm2, type Pm2App } from "../support/pm2.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";
import { Tools } from "../support/tools.ts";

const tools = await Tools.install();
const itWithPm2 = itWhere(tools instanceof Tools, String(tools));
const pm2 = tools instanceof Tools ? await Pm2.start(tools) : null;
afterAll(() => pm2?.end());

const path = (name: string) => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
const {
  apps: [template],
} = createRequire(import.meta.url)(path("pm2/ecosystem.config.cjs"));

function running(): Pm2 {
  if (pm2 === null) throw new Error(String(tools));
  return pm2;
}

/** The program of examples/pm2, with what differs from it. */
async function start(name: string, env: object, changes: object = {}): Promise<void> {
  const app = { ...template, script: path("supervised.mjs"), env: { ...template.env, ...env }, ...changes };
  await running().run({ ...app, interpreter: process.execPath, name });
}

/** In the output of the test too: how often pm2 has started it again. */
async function settled(name: string, status: string): Promise<Pm2App> {
  let app = await running().app(name);
  while (app.status !== status) app = await running().app(name);
  console.log(`${name}: restarts=${app.restarts} exit_code=${app.exitCode} status=${app.status}`);
  return app;
}

async function answers(port: number): Promise<string> {
  await until(() =>
    bodyOf(port).then(
      () => true,
      () => false,
    ),
  );
  return await bodyOf(port);
}

/** A gateway of this test's own; whatever runs when the test ends is deleted. */
async function newGateway(): Promise<{ env: object; port: number }> {
  onTestFinished(async () => {
    await running().deleteAll();
  });
  const port = await freePort();
  return { env: { STATE_DIRECTORY: temporaryDirectory(), GATEWAY_PORT: String(port) }, port };
}

itWithPm2("a duplicate leaves the healthy one in control, and is not started again", async () => {
  const { env, port } = await newGateway();
  await start("first", env);
  const answer = await answers(port);

  await start("second", env);

  expect(await settled("second", "stopped")).toMatchObject({ restarts: 0, exitCode: 78 });
  expect(await settled("first", "online")).toMatchObject({ restarts: 0 });
  expect(await bodyOf(port)).toBe(answer);
});

itWithPm2(
  "a duplicate that leaves with exit code 0 is started again and again, unless it is told to stay as a standby",
  async () => {
    const { env, port } = await newGateway();
    await start("first", env);
    await answers(port);

    await start("second", { ...env, GATEWAY_DUPLICATE_EXIT_CODE: "0" }, { max_restarts: 3, min_uptime: 60_000 });
    await start("third", { ...env, GATEWAY_ON_DUPLICATE: "standby" });

    expect(await settled("second", "errored")).toMatchObject({ restarts: 2, exitCode: 0 });
    expect(await settled("third", "online")).toMatchObject({ restarts: 0 });
    await running().stop("first");
    expect(await answers(port)).toContain(`pid ${(await running().app("third")).pid}`);
  },
);

const AT_ONCE = 5000; // ms; a tenth of that where nothing else runs

itWithPm2("a gateway that is killed with clients connected is back at once, on its port", async () => {
  const { env, port } = await newGateway();
  await start("owner", env);
  await answers(port);
  await lingeringClient(port, "127.0.0.1", false);
  const { pid } = await running().app("owner");

  const killed = performance.now();
  process.kill(pid, "SIGKILL");
  const answer = await answers(port);
  const ms = Math.round(performance.now() - killed);
  console.log(`killed with SIGKILL, answers ${ms} ms later`);

  const { pid: next, restarts } = await settled("owner", "online");
  expect(ms).toBeLessThan(AT_ONCE);
  expect(restarts).toBe(1);
  expect(answer).toBe(`gateway, pid ${next}\n`);
});

itWithPm2("pm2 takes SIGKILL for exit code 0: with stop_exit_codes: [0] a killed gateway stays down", async () => {
  const { env, port } = await newGateway();
  await start("owner", env, { stop_exit_codes: [0] });
  await answers(port);

  process.kill((await running().app("owner")).pid, "SIGKILL");

  expect(await settled("owner", "stopped")).toMatchObject({ restarts: 0, exitCode: 0 });
});
