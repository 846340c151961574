// Everything that the package does by system calls, each as something that can be done alone: what is there before, the act itself, and how it is undone. The
// context has a state directory and a port of its own, `owner`, which is another process where the path needs one, and `values` for what the act has made.

import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, get } from "node:http";
import { join } from "node:path";
import { acquireGateway, bindExclusive, inspectGateway, lockFile, readOwner, tryLockFile } from "../../dist/index.js";
import { Partner } from "./partners.mjs";

/** Before and after an act, somebody looks whether it is there. */
export const MARK = "/gateway-lock-faults-mark";
const GONE = 2 ** 22 + 1; // beyond the largest pid that Linux gives

function optionsOf({ stateDir, port }) {
  return { stateDir, port, locks: [join(stateDir, "data")], timeout: 0 };
}

/** Lock files and sockets that lie there, of any name. */
function filesBelow({ stateDir }) {
  return readdirSync(stateDir, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory() && entry.name !== "data")
    .map(({ parentPath, path, name }) => join(parentPath ?? path, name));
}

function prepare({ stateDir }) {
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  writeFileSync(join(stateDir, "data"), "");
}

async function acquire(context, more = {}) {
  context.values.gateway = await acquireGateway({ ...optionsOf(context), ...more });
}

async function close({ values: { gateway } }) {
  await gateway?.close({ force: true });
}

async function serve({ values }) {
  values.server = createServer((_, response) => response.end(`${process.pid}`));
  await values.gateway.listen(values.server);
  values.gateway.ready();
}

function answerOf(port, host = "127.0.0.1") {
  return new Promise((resolve, reject) => {
    get({ host, port, agent: false }, (response) => response.setEncoding("utf8").once("data", resolve)).once(
      "error",
      reject,
    );
  });
}

/** What has resolved is held, whatever has failed meanwhile. Only the kernel is asked: a look at all processes takes long under strace. */
function mustOwn({ values: { gateway } }) {
  gateway.assertCurrent();
  for (const path of gateway.lockPaths) {
    const { ownerId } = JSON.parse(readFileSync(path, "utf8"));
    assert.equal(ownerId, gateway.owner.ownerId, `${path} names somebody else`);
    assert.equal(tryLockFile(path), null, `${path} is free`);
  }
}

const acquired = {
  kind: "taking",
  before: prepare,
  act: acquire,
  check: (context, { outcome }) => outcome === "ok" && mustOwn(context),
  after: close,
  filesLeft: filesBelow,
};

export const PATHS = {
  "a gateway is acquired": acquired,
  "a gateway is acquired over a stale record": {
    ...acquired,
    before(context) {
      prepare(context);
      const locks = join(context.stateDir, "locks");
      mkdirSync(locks, { recursive: true, mode: 0o700 });
      const { stateDir, port } = context;
      const record = {
        pid: GONE,
        ownerId: "gone",
        createdAt: "2026-01-01T00:00:00.000Z",
        configPath: join(stateDir, "gateway.json"),
        stateDir,
        port,
        startTime: 1,
      };
      writeFileSync(join(locks, "gateway.state.lock"), JSON.stringify(record), { mode: 0o600 });
    },
  },
  "a gateway that may be handed over is acquired": {
    ...acquired,
    act: (context) => acquire(context, { handover: true }),
  },
  "a gateway with two hosts and reserved ports is acquired": {
    ...acquired,
    kind: "taking both",
    act: (context) => acquire(context, { host: "localhost", reserve: [context.port + 1] }),
  },
  "a gateway serves and is ready": {
    ...acquired,
    kind: "serving",
    async before(context) {
      prepare(context);
      await acquire(context);
    },
    act: serve,
    check: async (context, { outcome }) => {
      mustOwn(context);
      if (outcome === "ok") assert.equal(await answerOf(context.port), `${process.pid}`);
    },
  },
  "a gateway's record is changed": {
    ...acquired,
    kind: "updating",
    async before(context) {
      prepare(context);
      await acquire(context);
    },
    act: ({ values: { gateway } }) => gateway.update({ metadata: { changed: true } }),
    check: ({ stateDir, values: { gateway } }) => {
      gateway.assertCurrent();
      assert.equal(tryLockFile(join(stateDir, "locks", "gateway.state.lock")), null, "the state lock is free");
    },
  },
  "a deleted lock file is restored": {
    ...acquired,
    kind: "restoring",
    async before(context) {
      prepare(context);
      await acquire(context);
      rmSync(context.values.gateway.lockPaths[0]);
    },
    act: ({ values: { gateway } }) => gateway.assertCurrent(),
  },
  "a gateway is closed": {
    ...acquired,
    kind: "ending",
    async before(context) {
      prepare(context);
      await acquire(context);
      await serve(context);
    },
    act: close,
    check: undefined,
    after: close,
  },
  "a gateway is refused": {
    kind: "refused",
    before: prepare,
    act: (context) => acquire({ ...context, ...context.owner }, { locks: [] }),
    check: (_, { outcome }) => assert.notEqual(outcome, "ok", "two owners"),
    needsOwner: true,
  },
  "a gateway is looked at": {
    kind: "looking",
    act: async ({ owner, values }) => {
      values.report = await inspectGateway(optionsOf(owner));
    },
    check({ values: { report } }) {
      if (report) assert.ok(!["free", "stale-record"].includes(report.verdict), `it is ${report.verdict}`);
    },
    needsOwner: true,
  },
  "an owner's record is read": {
    kind: "looking",
    act: ({ owner, values }) => {
      values.reading = readOwner(join(owner.stateDir, "locks", "gateway.state.lock"));
    },
    check({ values: { reading } }) {
      if (reading) assert.notEqual(reading.locked, false, "it is called free");
    },
    needsOwner: true,
  },
  "a lock file is locked and given back": {
    kind: "locking",
    before: prepare,
    act(context) {
      const lock = tryLockFile(join(context.stateDir, "plain.lock"), { remove: true });
      if (lock === null) throw Object.assign(new Error("somebody has it"), { code: "HELD" });
      context.values.lock = lock;
      lock.release();
    },
    after: ({ values: { lock } }) => lock?.release(),
    filesLeft: filesBelow,
  },
  "a lock file is waited for": {
    kind: "waiting",
    before(context) {
      prepare(context);
      context.values.held = tryLockFile(join(context.stateDir, "plain.lock"), { remove: true });
    },
    async act({ stateDir, values }) {
      const waiting = lockFile(join(stateDir, "plain.lock"), { remove: true, timeout: 5000 });
      waiting.catch(() => {});
      values.held.release();
      values.lock = await waiting;
    },
    check({ stateDir, values: { lock } }, { outcome }) {
      if (outcome === "ok") assert.equal(tryLockFile(join(stateDir, "plain.lock")), null, "it is not held");
      lock?.assertCurrent();
    },
    after({ values: { held, lock } }) {
      held.release();
      lock?.release();
    },
    filesLeft: filesBelow,
  },
  "a wait is cancelled": {
    kind: "cancelling",
    before(context) {
      prepare(context);
      context.values.held = tryLockFile(join(context.stateDir, "plain.lock"), { remove: true });
    },
    act: ({ stateDir }) => lockFile(join(stateDir, "plain.lock"), { timeout: 20 }),
    after: ({ values: { held } }) => held.release(),
    filesLeft: filesBelow,
  },
  "ports are bound": {
    kind: "binding",
    act({ port, values }) {
      values.listener = bindExclusive({ host: "localhost", port, backlog: 10 });
    },
    check({ port, values: { listener } }) {
      // Of the halves that the host has, each is taken.
      if (listener)
        assert.throws(() => bindExclusive({ host: "localhost", port, backlog: 10 }), { code: "ALREADY_LISTENING" });
    },
    after: ({ values: { listener } }) => listener?.close(),
  },
  "a gateway is taken over": {
    kind: "taking over",
    before: prepare,
    act: (context) => acquire({ ...context, ...context.owner, values: context.values }, { handover: true, locks: [] }),
    check: (context, { outcome }) => outcome === "ok" && mustOwn({ ...context, ...context.owner }),
    after: close,
    needsOwner: "handover",
  },
  "a gateway is handed over": {
    kind: "handing over",
    spawns: true,
    before: async (context) => {
      prepare(context);
      await acquire(context, { handover: true });
      await serve(context);
      context.values.successor = new Partner("successor", { ...optionsOf(context), handover: true });
      await context.values.successor.next();
    },
    async act({ values: { gateway, successor } }) {
      successor.go();
      const { event, code, message } = await successor.next();
      if (event === "refused") throw Object.assign(new Error(message), { code });
      if (!gateway.handedOver.aborted)
        await new Promise((resolve) => gateway.handedOver.addEventListener("abort", resolve));
    },
    async check({ port, values: { gateway } }, { outcome }) {
      if (outcome === "ok") return;
      gateway.assertCurrent();
      assert.equal(await answerOf(port), `${process.pid}`, "the owner that goes on does not serve");
    },
    async after(context) {
      await context.values.successor?.end();
      await close(context);
    },
  },
};
