// A port that is bound exclusively is nobody else's, on either loopback family, until it is given back.

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { bindExclusive } from "gateway-lock";
import { bindingError, freePort, hasIPv6, isPlainLinux, refusalOf, scenario } from "./scenes.mjs";

const TAKEN = /^(EADDRINUSE|EACCES)$/;
const NO_IPV6 = hasIPv6 ? false : "this host has no IPv6 loopback";

function bind(scene, options) {
  const listener = bindExclusive(options);
  scene.defer(() => listener.close());
  return listener;
}

scenario("a plain server is refused the port, and gets it once it is given back", {}, async (scene) => {
  const port = await freePort();
  const listener = bind(scene, { host: "127.0.0.1", port });
  assert.equal(listener.port, port);
  assert.equal(listener.address, "127.0.0.1");
  assert.match(await bindingError(port), TAKEN);
  // Elsewhere a wildcard may be bound over an address; whoever does gets none of our clients.
  if (process.platform === "linux") assert.match(await bindingError(port, "0.0.0.0"), TAKEN);
  const actor = await scene.actor();
  assert.match((await actor.refusal("listen", { port, host: "127.0.0.1" })).code, TAKEN);
  listener.close();
  assert.equal(await bindingError(port), null);
});

scenario("the second one who wants a port exclusively is told ALREADY_LISTENING", {}, async (scene) => {
  const port = await freePort();
  const listener = bind(scene, { host: "127.0.0.1", port });
  const error = await refusalOf(() => bindExclusive({ host: "127.0.0.1", port }));
  assert.equal(error.code, "ALREADY_LISTENING");
  assert.equal(error.exitCode, 75);
  assert.equal(error.port, port);
  assert.equal(error.message, `another gateway instance is already listening on ws://127.0.0.1:${port}`);
  listener.close();
  bind(scene, { host: "127.0.0.1", port });
});

scenario("port 0 is the kernel's choice, another one each time", {}, (scene) => {
  const listeners = [1, 2, 3].map(() => bind(scene, { host: "127.0.0.1", port: 0 }));
  const ports = new Set(listeners.map(({ port }) => port));
  assert.equal(ports.size, 3);
  assert.ok(!ports.has(0));
});

scenario("a stranger on the port is ALREADY_LISTENING, and is named where it can be seen", {}, async (scene) => {
  const port = await freePort();
  const stranger = await scene.actor();
  await stranger.ask("listen", { port, host: "127.0.0.1" });
  const stateDir = scene.directory();
  const error = await refusalOf(() => scene.acquire({ stateDir, port }));
  assert.equal(error.code, "ALREADY_LISTENING");
  assert.equal(error.url, `ws://127.0.0.1:${port}`);
  assert.equal(error.owner, undefined);
  if (isPlainLinux || error.listener?.pid) assert.equal(error.listener?.pid, stranger.pid);
  await stranger.kill();
  assert.equal((await scene.acquire({ stateDir, port })).port, port);
});

scenario("a stranger on the wildcard address is ALREADY_LISTENING too", {}, async (scene) => {
  const port = await freePort();
  await scene.listen(createServer(), { port, host: "0.0.0.0", exclusive: true });
  const error = await refusalOf(() => bindExclusive({ host: "127.0.0.1", port }));
  assert.equal(error.code, "ALREADY_LISTENING");
});

scenario(
  "the other loopback family is guarded: nobody gets it, and nobody is served there",
  { skip: NO_IPV6 },
  async (scene) => {
    const port = await freePort();
    const gateway = await scene.acquire({ stateDir: scene.directory(), port });
    assert.deepEqual(
      gateway.addresses.map(({ address, role }) => [address, role]),
      [
        ["127.0.0.1", "listen"],
        ["::1", "guard"],
      ],
    );
    assert.match(await bindingError(port, "::1"), TAKEN);
    // macOS refuses nobody there, but lets them wait.
    await assert.rejects(scene.client(port, "::1", 2000));
    await gateway.close();
    assert.equal(await bindingError(port, "::1"), null);
  },
);

scenario("a stranger on the other loopback family is ALREADY_LISTENING there", { skip: NO_IPV6 }, async (scene) => {
  const port = await freePort();
  await scene.listen(createServer(), { port, host: "::1", exclusive: true });
  const error = await refusalOf(() => scene.acquire({ stateDir: scene.directory(), port }));
  assert.equal(error.code, "ALREADY_LISTENING");
  assert.equal(error.url, `ws://[::1]:${port}`);
  assert.equal(await bindingError(port), null);
});
