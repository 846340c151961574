// Proves that a handover is with a process of the same user that speaks the same protocol, and that nobody gets anything by lying: what does not check is refused,
// and the owner goes on.

import { once } from "node:events";
import { chmodSync, mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, expect } from "vitest";
import type { Gateway } from "../../lib/gateway.ts";
import { readOwner } from "../../lib/lock/record.ts";
import type { GatewayOptions } from "../../lib/options.ts";
import { hasPython, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { expectNothingLeft, refusalOf } from "../support/gateways.ts";
import { aborted, acquire, heirs, reached } from "../support/handovers.ts";
import { bodyOf, connectTo, until } from "../support/listener-tools.ts";
import { asOtherUser, OTHER_UID } from "../support/locks.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors } from "../support/temporary.ts";

const it = itWhere(isLinux && hasPython, "needs python3 on Linux");
const itAsRoot = itWhere(isLinux && hasPython && isRoot, "needs root, to become another user");

const HELLO_LIMIT = 2000; // ms
/** It accepts before this process hears that it is connected. ms */
const EARLY = 500;

const socketIn = (stateDir: string) => join(stateDir, "locks/gateway.state.sock");

/** A successor that says what it is told to. */
async function stranger(stateDir: string, options = {}): Promise<TestProcess> {
  const peer = new TestProcess("python3", [fixturePath("handover-peer.py"), "contender", socketIn(stateDir)], options);
  await peer.next("ready");
  return peer;
}

/** An owner that says what it is told to; it has locked the state directory, as an owner would. */
async function impostor(stateDir: string, ...locks: string[]): Promise<TestProcess> {
  mkdirSync(join(stateDir, "locks"), { mode: 0o700, recursive: true });
  const args = [fixturePath("handover-peer.py"), "owner", socketIn(stateDir), stateDir, ...locks];
  const peer = new TestProcess("python3", args);
  await peer.next("ready");
  return peer;
}

const say = (peer: TestProcess, message: object) => peer.send(`say ${JSON.stringify(message)}`);
const hello = { type: "hello", protocol: 1, version: "0.1.0" };

async function owner(): Promise<{ gateway: Gateway; options: GatewayOptions & { port: number } }> {
  const options = await heirs();
  const gateway = await acquire(options);
  await gateway.listen(createServer((_, response) => response.end("owner")));
  gateway.ready();
  return { gateway, options };
}

/** It serves, is recorded, and can be handed over to somebody who is honest. */
async function expectUnmoved(gateway: Gateway, options: GatewayOptions & { port: number }): Promise<void> {
  expect(await bodyOf(options.port)).toBe("owner");
  expect(readOwner(gateway.lockPaths[0] ?? "").record).toMatchObject({
    ownerId: gateway.owner.ownerId,
    phase: "ready",
  });
  gateway.assertCurrent();
  const successor = await acquire(options);
  await aborted(gateway.handedOver);
  await successor.close();
  expectNothingLeft(options.stateDir);
}

describe("an owner", () => {
  it("refuses a successor of an older version of the protocol, and says which", async () => {
    const { gateway, options } = await owner();
    const peer = await stranger(options.stateDir);
    say(peer, { ...hello, protocol: 0, version: "0.0.9" });
    const { message } = await peer.next("said");
    expect(message).toEqual({
      type: "refused",
      reason:
        "the successor (gateway-lock 0.0.9) speaks version 0 of the handover's protocol, and the owner (gateway-lock 0.1.0) version 1",
      busy: false,
    });
    await peer.next("end");
    await expectUnmoved(gateway, options);
  });

  itAsRoot("refuses a process of another user, even where the socket can be reached", async () => {
    const { gateway, options } = await owner();
    for (const path of [options.stateDir, join(options.stateDir, "locks")]) chmodSync(path, 0o711);
    chmodSync(socketIn(options.stateDir), 0o666);
    const peer = await stranger(options.stateDir, asOtherUser);
    say(peer, hello);
    expect((await peer.next("said")).message).toMatchObject({
      type: "refused",
      reason: `the successor runs as user ${OTHER_UID}, and the owner as user 0`,
    });
    await peer.next("end");
    await expectUnmoved(gateway, options);
  });

  for (const [what, text] of [
    ["says nothing that can be understood", "}{"],
    ["says something else first", '{"type":"confirmed"}'],
    ["says a number", "17"],
    ["sends descriptors that it was not asked for", '{"type":"claim","kinds":["lock"],"more":false}'],
    ["has no version", '{"type":"hello","version":{"a":1}}'],
  ] as const) {
    it(`goes on when a successor ${what}`, async () => {
      const { gateway, options } = await owner();
      const peer = await stranger(options.stateDir);
      peer.send(`say ${text}`);
      await peer.next("end");
      await expectUnmoved(gateway, options);
    });
  }

  it("goes on, and is not kept from anybody, while strangers connect and say nothing", async () => {
    const { gateway, options } = await owner();
    for (let count = 0; count < 10; count++) await stranger(options.stateDir);
    await expectUnmoved(gateway, options);
  });

  it("hangs up on one that has said nothing for two seconds", async () => {
    const { options } = await owner();
    const silent = connect(socketIn(options.stateDir)).resume();
    await once(silent, "connect");
    const since = performance.now();
    await once(silent, "close");
    expect(performance.now() - since).toBeGreaterThan(HELLO_LIMIT - EARLY);
    expect(performance.now() - since).toBeLessThan(2 * HELLO_LIMIT);
  });

  it("goes on when a successor confirms what it has not taken", async () => {
    const { gateway, options } = await owner();
    const peer = await stranger(options.stateDir);
    const resumed = reached("owner", "resumed");
    say(peer, hello);
    expect((await peer.next("said")).message).toMatchObject({ type: "draining", protocol: 1 });
    const { message, descriptors } = await peer.next("said");
    expect(message.kinds).toEqual(["lock", "lock", "lock", "listener", "guard", "baton"]);
    expect(descriptors).toBe(6);
    say(peer, { type: "received" });
    say(peer, { type: "confirmed" });
    expect((await peer.next("said")).message).toMatchObject({
      type: "broken",
      reason: "the successor has confirmed what it had not taken",
    });
    await resumed;
    // It still has copies of everything, and nobody is kept from anything by that.
    await peer.kill();
    await expectUnmoved(gateway, options);
  });

  it("lets go for one that has taken the baton, whatever it says then", async () => {
    const { gateway, options } = await owner();
    const peer = await stranger(options.stateDir);
    say(peer, hello);
    await peer.next("said");
    await peer.next("said");
    say(peer, { type: "received" });
    peer.send("take");
    expect((await peer.next("taken")).was).toBe(true);
    say(peer, { type: "draining" });
    await aborted(gateway.handedOver);
    // Locks and sockets are with it, by the same open file descriptions.
    expect((await refusalOf({ ...options, handover: undefined })).code).toBe("ALREADY_LISTENING");
    await peer.kill();
    await acquire(options);
  });
});

describe("an owner that is sent descriptors", () => {
  it("keeps none, whoever sends them in place of a hello", async () => {
    const { gateway, options } = await owner();
    const before = openDescriptors();
    for (let time = 0; time < 5; time++) {
      const peer = await stranger(options.stateDir);
      peer.send('give [["lock", "/"], ["listener", null], ["baton", null]]');
      await peer.next("end");
      await peer.kill();
    }
    await until(() => openDescriptors() <= before);
    await expectUnmoved(gateway, options);
  });

  it("is kept from nothing by one that talks without end", async () => {
    const { gateway, options } = await owner();
    const peer = await stranger(options.stateDir);
    const progress = JSON.stringify({ type: "progress", requests: 1 });
    for (let time = 0; time < 2000; time++) peer.send(`say ${progress}`);
    await peer.next("end");
    await expectUnmoved(gateway, options);
  });
});

describe("a successor", () => {
  it("silences no socket by which a supervisor listens too", async () => {
    const options = await heirs();
    const reserved = await freePort();
    const peer = await impostor(options.stateDir);
    const successor = acquire({ ...options, reserve: [reserved], loopbackGuard: false });
    await peer.next("said");
    const given = [
      ["lock", options.stateDir],
      ["shared-listener", options.port],
      ["shared-guard", reserved],
      ["baton", null],
    ];
    peer.send(`give ${JSON.stringify(given)}`);
    await peer.next("said");
    await peer.next("said");
    await (await successor).close();
    for (const port of [options.port, reserved]) {
      const client = await connectTo({ port });
      client.destroy();
    }
  });

  it("is told what its predecessor refuses, in one line", async () => {
    const options = await heirs();
    const peer = await impostor(options.stateDir);
    const refusal = refusalOf(options);
    expect((await peer.next("said")).message).toMatchObject({ type: "hello", protocol: 1 });
    say(peer, { type: "refused", reason: "not \u001b[31mnow\nor ever" });
    expect((await refusal).message).toBe("the running gateway did not hand over: not  [31mnow or ever");
  });

  it("takes nothing by descriptors of other files", async () => {
    const options = await heirs();
    const peer = await impostor(options.stateDir);
    const refusal = refusalOf(options);
    await peer.next("said");
    peer.send('give [["lock", "/"], ["lock", "/dev/null"], ["listener", null], ["baton", null]]');
    const { code, message } = await refusal;
    expect(code).toBe("HANDOVER_FAILED");
    expect(message).toBe(
      `the running gateway did not hand over: it has not given the state directory ${options.stateDir}, which somebody has`,
    );
    await peer.next("end");
  });

  it("takes nothing by descriptors of the right files that have not the lock", async () => {
    const options = await heirs();
    const peer = await impostor(options.stateDir);
    const refusal = refusalOf(options);
    await peer.next("said");
    // Opened anew, through another path: an open file description of its own, without the lock.
    peer.send(`give [["lock", "${options.stateDir}/."], ["baton", null]]`);
    expect((await refusal).message).toContain(`it has not given the state directory ${options.stateDir}`);
  });

  it("keeps descriptors apart from what was said before them, in one breath", async () => {
    const options = await heirs();
    const peer = await impostor(options.stateDir);
    const successor = acquire(options);
    await peer.next("said");
    const progress = JSON.stringify({ type: "progress", requests: 1 });
    peer.send(`say ${progress}\nsay ${progress}\ngive [["lock", "${options.stateDir}"], ["baton", null]]`);
    await peer.next("said");
    await peer.kill();
    (await successor).assertCurrent();
  });

  it("takes nothing without a baton, or with two", async () => {
    for (const batons of ['["lock", "/"]', '["baton", null], ["baton", null]']) {
      const options = await heirs();
      const peer = await impostor(options.stateDir);
      const refusal = refusalOf(options);
      await peer.next("said");
      peer.send(`give [${batons}]`);
      expect((await refusal).message).toBe("the running gateway did not hand over: it has given no baton");
    }
  });

  it("takes all of it, once it is complete, from an owner that is gone without a word", async () => {
    const options = await heirs();
    const peer = await impostor(options.stateDir);
    const successor = acquire(options);
    await peer.next("said");
    peer.send(`give [["lock", "${options.stateDir}"], ["baton", null]]`);
    await peer.next("said");
    await peer.kill();
    (await successor).assertCurrent();
  });

  itAsRoot("believes nobody of another user who listens there", async () => {
    const options = await heirs();
    mkdirSync(join(options.stateDir, "locks"), { mode: 0o777 });
    for (const path of [options.stateDir, join(options.stateDir, "locks")]) chmodSync(path, 0o1777);
    const path = socketIn(options.stateDir);
    const peer = new TestProcess(
      "python3",
      [fixturePath("handover-peer.py"), "owner", path, options.stateDir],
      asOtherUser,
    );
    await peer.next("ready");
    expect((await refusalOf(options)).message).toBe(
      `the running gateway did not hand over: it runs as user ${OTHER_UID}, and this process as user 0`,
    );
  });
});
