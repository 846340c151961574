// When an owner is killed, with all its clients, the next one serves on the very same port; a standby does so by itself.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { acquireGateway, readOwner } from "gateway-lock";
import { WebSocket } from "ws";
import { ask, assertDuplicate, freePort, NO_HAND_OFF, refusalOf, scenario, within } from "./scenes.mjs";

/** Somebody who serves, with an HTTP and a WebSocket client that stay. */
async function busyOwner(scene, options) {
  const owner = await scene.actor();
  const { port } = await owner.ask("acquire", { options });
  await owner.ask("serve", { answer: "old" });
  const idle = await scene.client(port);
  const answer = once(idle, "data");
  idle.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await within(answer, "an answer");
  const socket = new WebSocket(`ws://127.0.0.1:${port}`);
  scene.defer(() => socket.terminate());
  socket.on("error", () => {});
  await within(once(socket, "open"), "the WebSocket");
  const echo = once(socket, "message");
  socket.send("hello");
  assert.equal(String((await within(echo, "an echo"))[0]), "old hello");
  return owner;
}

scenario(
  "after SIGKILL with clients connected the next start serves on the same port at once",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const options = { stateDir: scene.directory(), port: await freePort() };
    for (let round = 1; round <= 3; round++) {
      const owner = await busyOwner(scene, options);
      await owner.kill();
      const gateway = await scene.acquire(options);
      await gateway.listen(createServer((_, response) => response.end(`round ${round}`)));
      assert.equal(await ask(options.port), `round ${round}`);
      assert.equal(readOwner(gateway.lockPaths[0]).record.pid, process.pid);
      await gateway.close({ force: true });
    }
  },
);

scenario("a standby takes over when the owner is killed, and serves", { skip: NO_HAND_OFF }, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const owner = await busyOwner(scene, options);
  const standby = await scene.actor();
  const takeover = standby.ask("acquire", { options: { ...options, timeout: "Infinity" } });
  await standby.event("waiting");
  await owner.kill();
  const { url, owner: record } = await takeover;
  assert.equal(url, `ws://127.0.0.1:${options.port}`);
  assert.equal(record.pid, standby.pid);
  await standby.ask("serve", { answer: "new" });
  assert.equal(await ask(options.port), "new");
});

scenario("a standby takes over when the owner closes", { skip: NO_HAND_OFF }, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire(options);
  await gateway.listen(createServer((_, response) => response.end("old")));
  const standby = await scene.actor();
  const takeover = standby.ask("acquire", { options: { ...options, timeout: "Infinity" } });
  await standby.event("waiting");
  assert.equal(await ask(options.port), "old");
  await gateway.close();
  await takeover;
  await standby.ask("serve", { answer: "new" });
  assert.equal(await ask(options.port), "new");
});

scenario("of two standbys one takes over, and the other one when that is killed", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire(options);
  const standbys = await scene.actors(2);
  const takeovers = standbys.map(async (standby) => {
    await standby.ask("acquire", { options: { ...options, timeout: "Infinity" } });
    return standby;
  });
  await Promise.all(standbys.map((standby) => standby.event("waiting")));
  await gateway.close();
  const first = await Promise.race(takeovers);
  assert.equal(readOwner(gateway.lockPaths[0]).record.pid, first.pid);
  await first.kill();
  const last = standbys.find((standby) => standby !== first);
  await Promise.all(takeovers);
  assert.equal(readOwner(gateway.lockPaths[0]).record.pid, last.pid);
});

scenario(
  "a contender with a timeout is refused when it has passed, and the owner goes on",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const options = { stateDir: scene.directory(), port: await freePort() };
    const owner = await busyOwner(scene, options);
    const started = performance.now();
    const error = await refusalOf(() => acquireGateway({ ...options, timeout: 150 }));
    assert.ok(performance.now() - started >= 149);
    assertDuplicate(error);
    assert.equal(error.owner.pid, owner.pid);
    assert.equal(await ask(options.port), "old");
  },
);

scenario("an aborted standby rejects with the signal's reason, and leaves the claim to others", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const owner = await scene.actor();
  await owner.ask("acquire", { options });
  const controller = new AbortController();
  const reason = new Error("told to leave");
  const wait = acquireGateway({ ...options, timeout: Infinity, signal: controller.signal });
  controller.abort(reason);
  await assert.rejects(within(wait, "the end of the wait"), (error) => error === reason);
  await owner.ask("close", {});
  await owner.ask("acquire", { options });
});
