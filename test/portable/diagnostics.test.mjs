// What happens to claims is told on diagnostics channels.

import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { freePort, refusalOf, scenario, within } from "./scenes.mjs";

const EVENTS = ["acquire", "refused", "wait", "takeover", "release"];

function listen(scene) {
  const told = [];
  for (const event of EVENTS) {
    const note = (message) => told.push({ event, ...message });
    subscribe(`gateway-lock:${event}`, note);
    scene.defer(() => unsubscribe(`gateway-lock:${event}`, note));
  }
  return told;
}

scenario("a claim, a duplicate's refusal and the release are told, with who and where", {}, async (scene) => {
  const told = listen(scene);
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire(options);
  const error = await refusalOf(() => scene.acquire(options));
  await gateway.close();
  assert.deepEqual(
    told.map(({ event }) => event),
    ["acquire", "refused", "release"],
  );
  for (const message of told) {
    assert.equal(message.pid, process.pid);
    assert.equal(message.host, "127.0.0.1");
    assert.equal(message.port, options.port);
    assert.deepEqual([...message.lockPaths], [...gateway.lockPaths]);
    assert.ok(message.durationMs >= 0);
  }
  assert.equal(told[0].ownerId, gateway.owner.ownerId);
  assert.equal(told[1].error, error);
  assert.equal(told[2].ownerId, gateway.owner.ownerId);
});

scenario("a takeover is told as a wait, a takeover and an acquisition", {}, async (scene) => {
  const told = listen(scene);
  const options = { stateDir: scene.directory(), port: await freePort() };
  const owner = await scene.actor();
  await owner.ask("acquire", { options });
  const wait = scene.acquire({ ...options, timeout: Infinity });
  await owner.kill();
  await within(wait, "the takeover");
  assert.deepEqual(
    told.map(({ event }) => event),
    ["wait", "takeover", "acquire"],
  );
  assert.equal(new Set(told.map(({ ownerId }) => ownerId)).size, 1);
});
