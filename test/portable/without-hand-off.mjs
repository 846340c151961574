// For a runtime that takes no bound socket (Bun): the hand-off fails loudly, nothing listens elsewhere, the claim stays.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createServer as createNetServer } from "node:net";
import { readOwner } from "gateway-lock";
import { bindingError, freePort, refusalOf, scenario } from "./scenes.mjs";

for (const [name, create] of [
  ["an http server", createServer],
  ["a net server", createNetServer],
]) {
  scenario(`${name} is not served: HANDOFF_FAILED, it listens nowhere, and the claim stays`, {}, async (scene) => {
    const options = { stateDir: scene.directory(), port: await freePort() };
    const gateway = await scene.acquire(options);
    const server = create();
    const error = await refusalOf(() => gateway.listen(server));
    assert.equal(error.code, "HANDOFF_FAILED");
    assert.equal(error.exitCode, 1);
    assert.equal(server.listening, false);
    assert.equal(server.address(), null);
    assert.equal(readOwner(gateway.lockPaths[0]).record.phase, "listening");
    assert.notEqual(await bindingError(options.port), null);
    const rival = await scene.actor();
    const { code, owner } = await rival.refusal("acquire", { options });
    assert.equal(code, "ALREADY_LISTENING");
    assert.equal(owner.pid, process.pid);
    await gateway.close();
    await rival.ask("acquire", { options });
  });
}
