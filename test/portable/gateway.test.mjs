// One gateway at a time: whoever comes second is told who the first one is, and nothing of it is left behind.

import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdirSync, symlinkSync, unlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { acquireGateway, EXIT, readOwner } from "gateway-lock";
import { WebSocket } from "ws";
import {
  ask,
  assertDuplicate,
  bindingError,
  canLink,
  canResolveLongPaths,
  freePort,
  isPlainLinux,
  lockFilesOf,
  longPathIn,
  NO_HAND_OFF,
  refusalOf,
  scenario,
  until,
  within,
} from "./scenes.mjs";

scenario("a second gateway in another process is refused, and told who the first one is", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  const gateway = await scene.acquire({ ...options, metadata: { role: "first" } });
  const actor = await scene.actor();
  const error = await actor.refusal("acquire", { options });
  assert.equal(error.name, "GatewayLockError");
  assertDuplicate(error);
  if (error.code === "ALREADY_LISTENING") {
    assert.equal(error.message, `another gateway instance is already listening on ${gateway.url}`);
    assert.equal(error.url, gateway.url);
  }
  assert.equal(error.retryable, true);
  assert.equal(error.exitCode, EXIT.DUPLICATE);
  assert.equal(error.lockPath, gateway.lockPaths[0]);
  const { pid, ownerId, url, phase, metadata, configPath } = error.owner;
  assert.equal(pid, process.pid);
  assert.equal(ownerId, gateway.owner.ownerId);
  assert.equal(url, gateway.url);
  assert.equal(phase, "listening");
  assert.deepEqual(metadata, { role: "first" });
  assert.equal(basename(configPath), "gateway.json");
  if (isPlainLinux) assert.equal(error.listener.pid, process.pid);
  await gateway.close();
  assert.equal((await actor.ask("acquire", { options })).url, gateway.url);
});

scenario("a second gateway in the same process is refused as well", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  await scene.acquire(options);
  const error = await refusalOf(() => acquireGateway(options));
  assert.equal(error.code, "ALREADY_LISTENING");
  assert.equal(error.owner.pid, process.pid);
});

scenario("a duplicate that ends as the error says exits with 75", {}, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort() };
  await scene.acquire(options);
  const actor = await scene.actor();
  actor.ask("acquireOrExit", { options }).catch(() => {});
  assert.equal((await within(actor.ended, "the duplicate's exit")).code, 75);
});

scenario("of six that start at the same moment exactly one wins, and the others are duplicates", {}, async (scene) => {
  const actors = await scene.actors(6);
  for (let round = 1; round <= 3; round++) {
    const options = { stateDir: scene.directory(), port: await freePort() };
    const results = await Promise.allSettled(actors.map((actor) => actor.ask("acquire", { options })));
    const winners = actors.filter((_, index) => results[index].status === "fulfilled");
    assert.equal(winners.length, 1);
    for (const { reason } of results.filter(({ status }) => status === "rejected")) {
      assert.match(`${reason.code}`, /^ALREADY_(LISTENING|RUNNING)$/);
      assert.equal(reason.exitCode, 75);
    }
    await winners[0].ask("close", {});
    assert.deepEqual(lockFilesOf(options.stateDir), []);
  }
});

scenario("a config is one gateway's, whatever their state directories and ports", {}, async (scene) => {
  const configPath = join(scene.directory(), "shared.json");
  await scene.acquire({ stateDir: scene.directory(), configPath, port: await freePort() });
  const actor = await scene.actor();
  const stateDir = scene.directory();
  const port = await freePort();
  const error = await actor.refusal("acquire", { options: { stateDir, configPath, port } });
  assertDuplicate(error);
  assert.equal(error.owner.pid, process.pid);
  assert.deepEqual(lockFilesOf(stateDir), []);
  assert.equal(await bindingError(port), null);
});

scenario("gateways on state directories and ports of their own do not see each other", {}, async (scene) => {
  const gateways = [];
  for (let count = 0; count < 3; count++) {
    gateways.push(await scene.acquire({ stateDir: scene.directory(), port: await freePort() }));
  }
  const owners = gateways.map(({ lockPaths }) => readOwner(lockPaths[0]).record.ownerId);
  assert.equal(new Set(owners).size, 3);
});

scenario(
  "the record tells of each phase while the lock is held, and is gone with it",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const stateDir = scene.directory();
    const owner = await scene.actor();
    const { lockPaths, port } = await owner.ask("acquire", { options: { stateDir, port: await freePort() } });
    assert.equal(lockPaths.length, 2);
    const phaseNow = () => {
      for (const lockPath of lockPaths) {
        const { record, torn, locked } = readOwner(lockPath);
        assert.equal(torn, false);
        assert.equal(record?.pid, owner.pid);
        assert.equal(record.port, port);
        assert.notEqual(locked, false);
      }
      return readOwner(lockPaths[0]).record.phase;
    };
    assert.equal(phaseNow(), "listening");
    await owner.ask("serve", { answer: "served" });
    assert.equal(phaseNow(), "ready");
    const health = JSON.parse(await ask(port, { path: "/healthz" }));
    const { ownerId } = readOwner(lockPaths[0]).record;
    assert.deepEqual(health, { ok: true, status: "live", phase: "ready", pid: owner.pid, ownerId });
    // An upgraded connection: Node 26 ends one that has not sent a whole request.
    const client = new WebSocket(`ws://127.0.0.1:${port}`);
    client.on("error", () => {});
    scene.defer(() => client.terminate());
    await within(once(client, "open"), "the WebSocket");
    const closing = owner.ask("close", {});
    await until(() => phaseNow() === "stopping");
    client.terminate();
    await closing;
    assert.deepEqual(lockFilesOf(stateDir), []);
    assert.equal(readOwner(lockPaths[0]).record, null);
  },
);

scenario("new metadata is in the record at once, and what is no JSON is refused", {}, async (scene) => {
  const gateway = await scene.acquire({ stateDir: scene.directory(), port: await freePort(), metadata: { turn: 1 } });
  assert.deepEqual(readOwner(gateway.lockPaths[0]).record.metadata, { turn: 1 });
  gateway.update({ metadata: { turn: 2, name: "日本 é" } });
  assert.deepEqual(readOwner(gateway.lockPaths[0]).record.metadata, { turn: 2, name: "日本 é" });
  assert.throws(() => gateway.update({ metadata: { turn: () => {} } }), { code: "ERR_INVALID_ARG_VALUE" });
  assert.deepEqual(readOwner(gateway.lockPaths[0]).record.metadata, { turn: 2, name: "日本 é" });
});

async function ownsAlone(scene, stateDir) {
  const options = { stateDir, port: await freePort() };
  const gateway = await scene.acquire(options);
  for (const lockPath of gateway.lockPaths) {
    const { record } = readOwner(lockPath);
    assert.equal(record.pid, process.pid);
    assert.equal(record.stateDir, gateway.owner.stateDir);
  }
  const actor = await scene.actor();
  assertDuplicate(await actor.refusal("acquire", { options }));
  await gateway.close();
  assert.deepEqual(lockFilesOf(stateDir), []);
}

scenario("a state directory may have spaces and quotes in its path", {}, async (scene) => {
  await ownsAlone(scene, join(scene.directory(), "state of it's own"));
});

scenario("a state directory may have any letters in its path", {}, async (scene) => {
  await ownsAlone(scene, join(scene.directory(), "zustand-日本-é"));
});

scenario(
  "a state directory may have a path of more than 260 characters",
  { skip: canResolveLongPaths ? false : "this system's realpath takes no path that long" },
  async (scene) => {
    await ownsAlone(scene, longPathIn(scene.directory()));
  },
);

scenario(
  "a symbolic link to the state directory is the same directory",
  { skip: canLink ? false : "this system makes no symbolic links" },
  async (scene) => {
    const stateDir = scene.directory();
    const link = join(scene.directory(), "link");
    symlinkSync(stateDir, link);
    await scene.acquire({ stateDir, port: await freePort() });
    const error = await refusalOf(async () => acquireGateway({ stateDir: link, port: await freePort() }));
    assert.equal(error.code, "ALREADY_LISTENING");
  },
);

scenario("bad options are refused with Node's own codes before anything is touched", {}, async (scene) => {
  const stateDir = join(scene.directory(), "state");
  const refusals = [
    [{ stateDir, prot: 1 }, "ERR_INVALID_ARG_VALUE", /'port'/],
    [{ stateDir: 1 }, "ERR_INVALID_ARG_TYPE", /stateDir/],
    [{ stateDir, port: 65536 }, "ERR_SOCKET_BAD_PORT", /port/],
    [{ stateDir, port: "80" }, "ERR_INVALID_ARG_TYPE", /port/],
    [{ stateDir, host: "gateway.example" }, "ERR_INVALID_ARG_VALUE", /host/],
    [{ stateDir, timeout: -1 }, "ERR_OUT_OF_RANGE", /timeout/],
    [{ stateDir, metadata: { text: "x".repeat(2048) } }, "ERR_INVALID_ARG_VALUE", /metadata/],
  ];
  for (const [options, code, message] of refusals) {
    await assert.rejects(acquireGateway(options), (error) => error.code === code && message.test(error.message));
  }
  assert.equal(existsSync(stateDir), false);
});

scenario("a directory where the lock file should be is LOCK_FAILED, and the port stays free", {}, async (scene) => {
  const stateDir = scene.directory();
  mkdirSync(join(stateDir, "locks", "gateway.state.lock"), { recursive: true });
  const port = await freePort();
  const error = await refusalOf(() => acquireGateway({ stateDir, port }));
  assert.equal(error.code, "LOCK_FAILED");
  assert.equal(error.exitCode, 1);
  assert.equal(await bindingError(port), null);
});

scenario(
  "a symbolic link where the lock file should be is LOCK_FAILED",
  { skip: canLink ? false : "this system makes no symbolic links" },
  async (scene) => {
    const stateDir = scene.directory();
    mkdirSync(join(stateDir, "locks"));
    const link = join(stateDir, "locks", "gateway.state.lock");
    symlinkSync(join(scene.directory(), "elsewhere"), link);
    const port = await freePort();
    assert.equal((await refusalOf(() => acquireGateway({ stateDir, port }))).code, "LOCK_FAILED");
    unlinkSync(link);
    await scene.acquire({ stateDir, port });
  },
);
