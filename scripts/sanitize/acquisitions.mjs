// So many acquisitions in one process, of every kind: run under valgrind by test-sanitize. Arguments: how many, and the directory of the package.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";

const [total, root] = [Number(process.argv[2]), process.argv[3]];
const { acquireGateway, bindExclusive, lockFile, readOwner, tryLockFile } = await import(join(root, "dist/index.js"));
const directory = mkdtempSync(join(tmpdir(), "gateway-lock-acquisitions-"));
const path = join(directory, "lock");
const stateDir = join(directory, "state");

/** Each makes one acquisition, and gives it back. `share` is of a thousand. */
const KINDS = [
  { name: "tryLockFile", share: 780, run: (i) => tryLockFile(path, { remove: i % 2 === 0 }).release() },
  {
    name: "tryLockFile, beside one that is refused",
    share: 100,
    run() {
      const lock = tryLockFile(path);
      assert.equal(tryLockFile(path), null);
      readOwner(path);
      lock.release();
    },
  },
  {
    name: "lockFile, after a wait in the kernel",
    share: 20,
    async run() {
      const lock = tryLockFile(path);
      const next = lockFile(path);
      lock.release();
      (await next).release();
    },
  },
  {
    name: "lockFile, beside a wait that is cancelled",
    share: 10,
    async run() {
      const lock = await lockFile(path);
      const controller = new AbortController();
      const refused = assert.rejects(lockFile(path, { signal: controller.signal }), { name: "AbortError" });
      controller.abort();
      await refused;
      lock.release();
    },
  },
  {
    name: "bindExclusive",
    share: 40,
    run: () => bindExclusive({ host: "127.0.0.1", port: 0, backlog: 1 }).close(),
  },
  {
    name: "acquireGateway",
    share: 44,
    async run() {
      const gateway = await acquireGateway({ stateDir, port: 0 });
      await gateway.close();
    },
  },
  {
    name: "acquireGateway, refused beside one that serves",
    share: 5,
    async run() {
      const gateway = await acquireGateway({ stateDir, port: 0 });
      await gateway.listen(createServer());
      await assert.rejects(acquireGateway({ stateDir, port: gateway.port }), { code: "ALREADY_LISTENING" });
      await gateway.close();
    },
  },
  {
    name: "in a worker that ends with all of it held",
    share: 1,
    every: 25, // acquisitions each
    async run() {
      const program = `const { tryLockFile } = require(${JSON.stringify(join(root, "dist/library.cjs"))});
        for (let i = 0; i < 25; i++) tryLockFile(${JSON.stringify(path)} + i, { remove: true });`;
      const worker = new Worker(program, { eval: true });
      await new Promise((resolve, reject) => worker.once("exit", resolve).once("error", reject));
    },
  },
];
assert.equal(
  KINDS.reduce((sum, { share }) => sum + share, 0),
  1000,
);

const descriptors = () => readdirSync("/proc/self/fd").length;
let before;
for (const { name, share, run, every = 1 } of KINDS) {
  const count = Math.round((total * share) / 1000);
  const started = performance.now();
  for (let i = 0; i < count; i += every) await run(i);
  console.log(`${count} times ${name}: ${((performance.now() - started) / 1000).toFixed(1)} s`);
  before ??= descriptors();
}
rmSync(directory, { recursive: true });
assert.ok(descriptors() <= before + 3, `${descriptors()} descriptors, ${before} in the beginning`);
