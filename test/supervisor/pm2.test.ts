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
let running: Pm2 | undefined;
afterAll(() => running?.end());

function pm2(): Pm2 {
  if (!(tools instanceof Tools)) throw new Error(tools);
  running ??= new Pm2(tools);
  return running;
}

const path = (name: string) => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));
const {
  apps: [template],
} = createRequire(import.meta.url)(path("pm2/ecosystem.config.cjs"));

/** The program of examples/pm2, with what differs from it; gone when the test ends. */
async function start(name: string, env: object, changes: object = {}): Promise<void> {
  onTestFinished(async () => {
    await pm2().run("delete", name);
  });
  const app = { ...template, script: path("supervised.mjs"), env: { ...template.env, ...env }, ...changes };
  await pm2().start({ ...app, interpreter: process.execPath, name });
}

/** In the output of the test too: how often pm2 has started it again. */
async function settled(name: string, status: string): Promise<Pm2App> {
  await until(async () => (await pm2().app(name)).status === status);
  const app = await pm2().app(name);
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

async function newGateway(): Promise<{ env: object; port: number }> {
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
    await pm2().run("stop", "first");
    expect(await answers(port)).toContain(`pid ${(await pm2().app("third")).pid}`);
  },
);

itWithPm2("a gateway that is killed with clients connected is back at once, on its port", async () => {
  const { env, port } = await newGateway();
  await start("owner", env);
  await answers(port);
  await lingeringClient(port, "127.0.0.1", false);
  const { pid } = await pm2().app("owner");

  const killed = performance.now();
  process.kill(pid, "SIGKILL");
  const answer = await answers(port);
  console.log(`killed with SIGKILL, answers ${Math.round(performance.now() - killed)} ms later`);

  const { pid: next, restarts } = await settled("owner", "online");
  expect(restarts).toBe(1);
  expect(answer).toBe(`gateway, pid ${next}\n`);
});

itWithPm2("pm2 takes SIGKILL for exit code 0: with stop_exit_codes: [0] a killed gateway stays down", async () => {
  const { env, port } = await newGateway();
  await start("owner", env, { stop_exit_codes: [0] });
  await answers(port);

  process.kill((await pm2().app("owner")).pid, "SIGKILL");

  expect(await settled("owner", "stopped")).toMatchObject({ restarts: 0, exitCode: 0 });
});
