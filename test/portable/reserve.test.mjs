// Reserved ports are claimed with the gateway's own, all or none; each is served when somebody asks for it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import {
  ask,
  bindingError,
  closed,
  freePort,
  isPlainLinux,
  isWindows,
  lockFilesOf,
  NO_HAND_OFF,
  refusalOf,
  scenario,
  within,
} from "./scenes.mjs";

const TAKEN = /^(EADDRINUSE|EACCES)$/;
const SOON = 5000; // ms: Windows tries a refused connection again for two seconds, macOS lets it wait

async function ports(count) {
  const found = new Set();
  while (found.size < count) found.add(await freePort());
  return [...found];
}

scenario("nobody gets a reserved port, and nobody is served there", {}, async (scene) => {
  const [port, ...reserve] = await ports(4);
  const gateway = await scene.acquire({ stateDir: scene.directory(), port, reserve, loopbackGuard: false });
  assert.deepEqual(
    gateway.addresses.map(({ port: one, role }) => [one, role]),
    [[port, "listen"], ...reserve.map((one) => [one, "reserved"])],
  );
  for (const one of reserve) assert.match(await bindingError(one), TAKEN);
  await assert.rejects(scene.client(reserve[0], "127.0.0.1", SOON));
  await gateway.close();
  for (const one of reserve) assert.equal(await bindingError(one), null);
});

scenario("one that somebody has refuses all of it, and nothing is left", {}, async (scene) => {
  const [port, other, free, taken] = await ports(4);
  const rival = await scene.actor();
  const stateDir = scene.directory();
  await rival.ask("acquire", { options: { stateDir: scene.directory(), port: other, reserve: [taken] } });
  const error = await refusalOf(() => scene.acquire({ stateDir, port, reserve: [free, taken] }));
  // Windows has no word of its own for a port that is bound and not listened on.
  assert.match(error.code, isWindows ? /^(ALREADY_LISTENING|BIND_FAILED)$/ : /^ALREADY_LISTENING$/);
  assert.equal(error.port, taken);
  assert.match(error.cause.message, /one of the ports to be reserved/);
  assert.deepEqual(lockFilesOf(stateDir), []);
  for (const one of [port, free]) assert.equal(await bindingError(one), null);
  await rival.kill();
  assert.equal((await scene.acquire({ stateDir, port, reserve: [free, taken] })).port, port);
});

scenario("servers follow each other on it, beside the gateway's own", { skip: NO_HAND_OFF }, async (scene) => {
  const [port, reserved] = await ports(2);
  const answering = (answer) => createServer((_, response) => response.end(answer));
  const gateway = await scene.acquire({ stateDir: scene.directory(), port, reserve: [reserved] });
  await gateway.listen(answering("main"));
  for (const answer of ["one", "two"]) {
    const server = answering(answer);
    await gateway.listen(server, reserved);
    assert.equal(await ask(reserved), answer);
    assert.equal(await ask(port), "main");
    const second = await refusalOf(() => gateway.listen(answering("too many"), reserved));
    assert.equal(second.code, "HANDOFF_FAILED");
    await closed(server);
    assert.match(await bindingError(reserved), TAKEN);
  }
  await gateway.close();
  assert.equal(await bindingError(reserved), null);
});

scenario("a child process is given it, or told that this system can't", {}, async (scene) => {
  const [port, reserved] = await ports(2);
  const gateway = await scene.acquire({ stateDir: scene.directory(), port, reserve: [reserved] });
  if (isWindows) {
    const error = await refusalOf(() => gateway.claim(reserved));
    assert.equal(error.code, "HANDOFF_FAILED");
    assert.match(error.message, /no descriptors of sockets/);
    return;
  }
  const fd = gateway.claim(reserved);
  assert.ok(fd > 2);
  if (!isPlainLinux) return;
  const program = 'require("node:http").createServer((_, response) => response.end("child")).listen({ fd: 3 })';
  const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "ignore", "inherit", fd] });
  scene.defer(() => child.kill("SIGKILL"));
  assert.equal(await ask(reserved), "child");
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await within(ended, "the end of the child");
});
