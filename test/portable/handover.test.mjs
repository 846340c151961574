// A gateway goes from one process to another as it is; Windows says that it can't.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { readOwner } from "gateway-lock";
import { WebSocket } from "ws";
import { ask, freePort, isWindows, lockFilesOf, NO_HAND_OFF, scenario, within } from "./scenes.mjs";

const NOT_WINDOWS = isWindows ? "a process on Windows can't give its locks to another" : false;

scenario("the option is refused where there is no handover, before anything is touched", {}, async (scene) => {
  const stateDir = scene.directory();
  const start = scene.acquire({ stateDir, port: await freePort(), handover: true });
  if (!isWindows) return void (await start);
  await assert.rejects(start, { code: "ERR_INVALID_ARG_VALUE", message: /is not available on Windows/ });
  assert.deepEqual(lockFilesOf(stateDir), []);
});

scenario("the successor has the same port and the same locks", { skip: NOT_WINDOWS || NO_HAND_OFF }, async (scene) => {
  const options = { stateDir: scene.directory(), port: await freePort(), reserve: [await freePort()], handover: true };
  const owner = await scene.actor();
  await owner.ask("acquire", { options });
  await owner.ask("serve", { answer: "old" });
  assert.equal(await ask(options.port), "old");
  const socket = new WebSocket(`ws://127.0.0.1:${options.port}`);
  scene.defer(() => socket.terminate());
  await within(once(socket, "open"), "the WebSocket");
  const closed = once(socket, "close");

  const gateway = await scene.acquire(options);
  await within(closed, "the WebSocket's end");
  await gateway.listen(createServer((_, response) => response.end("new")));
  assert.equal(await ask(options.port), "new");
  assert.equal(readOwner(gateway.lockPaths[0]).record.pid, process.pid);
  gateway.assertCurrent();
  await owner.kill();
  assert.equal(await ask(options.port), "new");
  await gateway.close();
  assert.deepEqual(lockFilesOf(options.stateDir), []);
});
