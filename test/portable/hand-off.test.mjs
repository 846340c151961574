// The bound port is handed to a server, and to the next one, and clients who come in between are served.

import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, createServer } from "node:http";
import { createServer as createNetServer } from "node:net";
import { bindExclusive } from "gateway-lock";
import { WebSocket, WebSocketServer } from "ws";
import {
  ask,
  bindingError,
  closed,
  freePort,
  lockFilesOf,
  NO_HAND_OFF,
  refusalOf,
  scenario,
  within,
} from "./scenes.mjs";

function answering(answer) {
  return createServer((_, response) => response.end(answer));
}

scenario(
  "an http server serves on the very port, and keeps connections alive",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const gateway = await scene.acquire({ stateDir: scene.directory(), port: await freePort() });
    const server = answering("served");
    let connections = 0;
    server.on("connection", () => connections++);
    await gateway.listen(server);
    assert.equal(server.address().port, gateway.port);
    assert.equal(server.address().address, "127.0.0.1");
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    scene.defer(() => agent.destroy());
    for (let request = 1; request <= 3; request++) assert.equal(await ask(gateway.port, { agent }), "served");
    assert.equal(connections, 1);
    assert.equal(await ask(gateway.port), "served");
    assert.equal(connections, 2);
  },
);

scenario(
  "nobody is refused or reset while servers follow each other and clients come all the time",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const GENERATIONS = 20;
    const REQUESTS = 5; // in each generation, at least
    const listener = bindExclusive({ host: "127.0.0.1", port: await freePort() });
    scene.defer(() => listener.close());
    let served = 0;
    let over = false;
    let onServed = () => {};
    const come = async () => {
      while (!over) {
        const socket = await scene.client(listener.port);
        const [answer] = await within(once(socket.end("?"), "data"), "an answer");
        assert.equal(String(answer), "!");
        served++;
        onServed();
      }
    };
    const clients = Promise.all([1, 2, 3, 4].map(come));
    for (let generation = 1; generation <= GENERATIONS; generation++) {
      const server = createNetServer((socket) => socket.on("error", () => {}).once("data", () => socket.end("!")));
      const enough = new Promise((resolve) => {
        onServed = () => served >= generation * REQUESTS && resolve();
      });
      await listener.listen(server);
      await Promise.race([clients, within(enough, `the clients of generation ${generation}`)]);
      if (generation === GENERATIONS) over = true;
      const end = once(server, "close");
      server.close();
      if (!over) await within(end, "the end of a server");
    }
    // Whoever is on the way still gets an answer, from one more.
    const last = createNetServer((socket) => socket.once("data", () => socket.end("!")));
    scene.defer(() => last.close());
    await listener.listen(last);
    await within(clients, "the last clients");
    assert.ok(served >= GENERATIONS * REQUESTS);
  },
);

scenario("a client that came before the server is served by it", { skip: NO_HAND_OFF }, async (scene) => {
  const gateway = await scene.acquire({ stateDir: scene.directory(), port: await freePort() });
  const early = ask(gateway.port);
  await gateway.listen(answering("served"));
  assert.equal(await early, "served");
});

scenario(
  "a WebSocket server echoes, and its clients are told when the gateway is closed",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const gateway = await scene.acquire({ stateDir: scene.directory(), port: await freePort() });
    const server = createServer();
    new WebSocketServer({ server }).on("connection", (socket) =>
      socket.on("message", (data) => socket.send(`${data}!`)),
    );
    await gateway.listen(server);
    gateway.ready();
    const client = new WebSocket(gateway.url);
    client.on("error", () => {});
    scene.defer(() => client.terminate());
    await within(once(client, "open"), "the WebSocket");
    for (const text of ["one", "two"]) {
      const echo = once(client, "message");
      client.send(text);
      assert.equal(String((await within(echo, "an echo"))[0]), `${text}!`);
    }
    const end = once(client, "close");
    await within(gateway.close({ force: true }), "the end of the gateway");
    await within(end, "the end of the WebSocket");
  },
);

scenario("a plain net server serves on a port that is bound exclusively", { skip: NO_HAND_OFF }, async (scene) => {
  const listener = bindExclusive({ host: "127.0.0.1", port: await freePort() });
  scene.defer(() => listener.close());
  const server = createNetServer((socket) => socket.end("hello"));
  await listener.listen(server);
  const client = await scene.client(listener.port);
  assert.equal(String((await within(once(client, "data"), "a greeting"))[0]), "hello");
  await closed(server);
});

scenario(
  "five servers follow each other on one claim, and who connects in between is served",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const stateDir = scene.directory();
    const gateway = await scene.acquire({ stateDir, port: await freePort() });
    let server = answering("generation 0");
    await gateway.listen(server);
    for (let generation = 1; generation <= 5; generation++) {
      gateway.ready();
      assert.equal(await ask(gateway.port), `generation ${generation - 1}`);
      await closed(server);
      assert.equal(gateway.owner.phase, "listening");
      assert.notEqual(await bindingError(gateway.port), null);
      const between = await scene.client(gateway.port);
      server = answering(`generation ${generation}`);
      await gateway.listen(server);
      const answer = once(between, "data");
      between.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
      assert.match(String((await within(answer, "an answer"))[0]), new RegExp(`generation ${generation}$`));
    }
  },
);

scenario(
  "a second server is refused while one serves, and the first one goes on",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const gateway = await scene.acquire({ stateDir: scene.directory(), port: await freePort() });
    await gateway.listen(answering("first"));
    const second = answering("second");
    assert.equal((await refusalOf(() => gateway.listen(second))).code, "HANDOFF_FAILED");
    assert.equal(second.listening, false);
    assert.equal(await ask(gateway.port), "first");
  },
);

scenario(
  "a closed gateway leaves a free port and no file, and can be had again at once",
  { skip: NO_HAND_OFF },
  async (scene) => {
    const stateDir = scene.directory();
    const port = await freePort();
    for (let round = 1; round <= 5; round++) {
      const gateway = await scene.acquire({ stateDir, port });
      const server = answering(`round ${round}`);
      await gateway.listen(server);
      gateway.ready();
      const agent = new Agent({ keepAlive: true });
      assert.equal(await ask(port, { agent }), `round ${round}`);
      await within(gateway.close(), "the end of the gateway");
      agent.destroy();
      assert.equal(server.listening, false);
      assert.deepEqual(lockFilesOf(stateDir), []);
      assert.equal((await refusalOf(() => gateway.listen(answering("late")))).code, "HANDOFF_FAILED");
    }
    assert.equal(await bindingError(port), null);
  },
);
