// A supervised start beside another gateway: left in control, waited for, or succeeded.

import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { createServer } from "node:http";
import { superviseGateway } from "gateway-lock";
import { closed, freePort, NO_HAND_OFF, refusalOf, scenario } from "./scenes.mjs";

// As a task of Windows' sets it; the others are recognised by what the system leaves.
process.env.GATEWAY_LOCK_SUPERVISOR = "schtasks";

const UNHURRIED = 60_000; // ms; nothing here takes that long
/** A gateway that has its port and answers nobody is found out after that. ms */
const HEALTH = { timeout: 500 };

scenario("a supervised duplicate leaves a gateway that is well in control", { skip: NO_HAND_OFF }, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire(options);
  const server = createServer(gateway.healthz);
  await gateway.listen(server);
  const result = await superviseGateway({ ...options, health: { timeout: UNHURRIED } });
  assert.deepEqual(result, { outcome: "left-in-control", exitCode: 0, owner: gateway.owner });
  await closed(server);
});

scenario("a supervised start gives up on one that is not well, and says so", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire(options);
  const retry = { interval: 100, limit: 300 };
  const error = await refusalOf(() => superviseGateway({ ...options, health: HEALTH, retry }));
  assert.equal(error.code, "NOT_HEALTHY");
  assert.equal(
    error.message,
    "gateway already running under schtasks; existing gateway did not become healthy after 300ms",
  );
  assert.equal(error.exitCode, 1);
  assert.equal(error.owner.ownerId, gateway.owner.ownerId);
  assert.equal(error.url, gateway.url);
});

scenario("a supervised start succeeds one that is killed at once, not at the next interval", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const owner = await scene.actor();
  await owner.ask("acquire", { options });
  const kill = () => owner.kill();
  subscribe("gateway-lock:wait", kill);
  scene.defer(() => unsubscribe("gateway-lock:wait", kill));
  const started = performance.now();
  const retry = { interval: UNHURRIED };
  const result = await superviseGateway({ ...options, health: { check: () => false }, retry });
  scene.defer(() => result.gateway.close());
  assert.equal(result.outcome, "acquired");
  assert.ok(performance.now() - started < UNHURRIED / 2);
});

scenario("a program that has the port without the lock is never believed", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const server = createServer((_, response) => response.end('{"ok":true}'));
  await scene.listen(server, { port: options.port, host: "127.0.0.1" });
  const retry = { interval: 100, limit: 200 };
  const check = () => true;
  const error = await refusalOf(() => superviseGateway({ ...options, health: { check }, retry }));
  assert.equal(error.code, "NOT_HEALTHY");
  assert.equal(error.cause.code, "ALREADY_LISTENING");
  assert.equal(error.owner, undefined);
});
