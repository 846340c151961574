// Proves that whoever waits is told at once, and that waiting takes no lock, misses nothing and leaves nothing open.

import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { expect } from "vitest";
import { waitForGateway } from "../../lib/inspect/wait.ts";
import type { GatewayOptions, WaitOptions } from "../../lib/options.ts";
import { canUnshareUser, hasFlockCommand, hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { acquire, recordOf, startTimeOf } from "../support/gateways.ts";
import { startHolder, startReady, startStranger } from "../support/inspections.ts";
import { flockCommandGets } from "../support/locks.ts";
import { fixturePath, startGateway, TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";
import { startPool, threadsOf, until } from "../support/waits.ts";

const it = itWhere(isLinux, "needs Linux");
const itWithPython = itWhere(hasPython, "needs Python");

async function aGateway(): Promise<GatewayOptions & { port: number }> {
  return { stateDir: join(temporaryDirectory(), "state"), port: await freePort() };
}

it("is over at once where nobody has the lock, and where the gateway is ready", async () => {
  const options = await aGateway();
  expect(await waitForGateway({ ...options, for: "free", timeout: 0 })).toMatchObject({ verdict: "free" });
  expect(await waitForGateway({ ...options, for: "ready", timeout: 0 })).toBe(null);
  await startReady(options);
  expect(await waitForGateway({ ...options, for: "ready", timeout: 0 })).toMatchObject({ verdict: "expected" });
  expect(await waitForGateway({ ...options, for: "free", timeout: 0 })).toBe(null);
});

it("sees a gateway come, get its port and get ready, and is told of each step", async () => {
  const options = await aGateway();
  const seen: string[] = [];
  const onChange: WaitOptions["onChange"] = ({ verdict, owner }) => seen.push(`${verdict} ${owner?.phase ?? ""}`);
  const waiting = waitForGateway({ ...options, for: "ready", onChange });
  await until(() => seen.length > 0);
  const owner = await startHolder(options);
  await owner.do("publish", { fields: { port: options.port, phase: "starting" } });
  await until(() => seen.includes("starting starting"));
  await owner.process.kill();
  const gateway = startGateway(options);
  await gateway.next("serving");
  const report = await waiting; // the health probe says so, before the record does
  expect(report).toMatchObject({ verdict: "expected", owner: { pid: gateway.pid }, health: { ok: true } });
  expect(seen[0]).toBe("free ");
  expect(seen.at(-1)).toBe("expected listening");
  expect(seen.filter((step, index) => step === seen[index - 1] && step === "free ")).toEqual([]);
});

it("takes the record's word where there is no health endpoint, and nobody's while it hangs", async () => {
  const options = await aGateway();
  const gateway = await acquire(options);
  await gateway.listen(createServer((_, response) => response.writeHead(404).end()));
  expect(await waitForGateway({ ...options, for: "ready", timeout: 100 })).toBe(null);
  const waiting = waitForGateway({ ...options, for: "ready" });
  gateway.ready();
  expect(await waiting).toMatchObject({ verdict: "expected", health: { ok: false, status: 404 } });

  const other = await aGateway();
  const hung = await startReady(other);
  process.kill(hung.pid, "SIGSTOP");
  const health = { timeout: 100 };
  expect(await waitForGateway({ ...other, health, for: "ready", timeout: 300 })).toBe(null);
  const again = waitForGateway({ ...other, health, for: "ready" });
  process.kill(hung.pid, "SIGCONT");
  expect(await again).toMatchObject({ verdict: "expected" });
});

it("gives an answer no more time than is left", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  process.kill(gateway.pid, "SIGSTOP");
  const started = performance.now();
  expect(await waitForGateway({ ...options, for: "ready", timeout: 100, health: { timeout: 30_000 } })).toBe(null);
  expect(performance.now() - started).toBeLessThan(15_000);
});

it("does not wait for an answer that nobody will give while the record says something new", async () => {
  const options = await aGateway();
  const gateway = await acquire(options);
  const requests: unknown[] = [];
  // The server is there, and mute until it is ready.
  await gateway.listen(
    createServer((request, response) => requests.push(request.url) > 1 && response.writeHead(404).end()),
  );
  const waiting = waitForGateway({ ...options, for: "ready", health: { timeout: 20_000 } });
  await until(() => requests.length === 1);
  gateway.ready();
  expect(await waiting).toMatchObject({ owner: { phase: "ready" } });
});

itWithPython("lets a stranger have the port, but not an older gateway, which takes no lock", async () => {
  const options = await aGateway();
  const stranger = await startStranger(options.port);
  expect(await waitForGateway({ ...options, for: "free" })).toMatchObject({ verdict: "foreign-listener" });
  const locks = join(options.stateDir, "locks");
  mkdirSync(locks, { recursive: true });
  const record = recordOf({ pid: stranger.pid, startTime: startTimeOf(stranger.pid), port: options.port });
  writeFileSync(join(locks, "gateway.state.lock"), record);
  expect(await waitForGateway({ ...options, for: "free", timeout: 50 })).toBe(null);
  const waiting = waitForGateway({ ...options, for: "free" });
  await stranger.kill();
  expect(await waiting).toMatchObject({ verdict: "stale-record" });
});

it("goes on when directories are renamed, wiped and made again", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  let looks = 0;
  const waiting = waitForGateway({ ...options, for: "free", onChange: () => looks++ });
  await until(() => looks === 1);
  rmSync(join(options.stateDir, "locks"), { recursive: true });
  await until(() => looks === 2);
  renameSync(options.stateDir, `${options.stateDir}-away`);
  expect(await waiting).toMatchObject({ verdict: "free" }); // what is held is elsewhere now
  const again = waitForGateway({ ...options, stateDir: `${options.stateDir}-away`, for: "free" });
  await owner.process.kill();
  expect(await again).toMatchObject({ verdict: "free" });
});

itWhere(canUnshareUser, "needs user namespaces")("waits on where no watch and no handle is to be had", async () => {
  const options = await aGateway();
  const gateway = await startReady(options);
  // inotify(7): the limit of this user namespace. Who holds the lock can't be seen from there either.
  const script = 'echo 0 > /proc/sys/user/max_inotify_instances; exec "$@"';
  const argument = JSON.stringify({ verb: "wait", options: { ...options, for: "free" } });
  const command = ["sh", "-c", script, "sh", process.execPath, fixturePath("inspect-once.mjs"), argument];
  const waiter = new TestProcess("unshare", ["--user", "--map-root-user", ...command]);
  await waiter.next("seen");
  await gateway.kill();
  expect((await waiter.next("report")).report).toMatchObject({ verdict: "stale-record" });
});

it("ends at its timeout and by its signal, and leaves no descriptor and no thread", async () => {
  const options = await aGateway();
  await startReady(options);
  const controller = new AbortController();
  await waitForGateway({ ...options, for: "free", timeout: 0 }); // what is loaded once stays
  await startPool();
  const before = { descriptors: openDescriptors(), threads: threadsOf() };
  const started = performance.now();
  expect(await waitForGateway({ ...options, for: "free", timeout: 300 })).toBe(null);
  expect(performance.now() - started).toBeGreaterThanOrEqual(299);
  let looks = 0;
  const waits = Array.from({ length: 20 }, () =>
    waitForGateway({ ...options, for: "free", signal: controller.signal, onChange: () => looks++ }).catch(
      (reason) => reason,
    ),
  );
  await until(() => looks === 20);
  controller.abort("enough");
  expect(new Set(await Promise.all(waits))).toEqual(new Set(["enough"]));
  await expect(waitForGateway({ ...options, for: "ready", signal: controller.signal })).rejects.toBe("enough");
  await until(() => openDescriptors() === before.descriptors && threadsOf() === before.threads);
});

itWhere(hasFlockCommand, "needs flock(1)")("takes no lock while it waits", async () => {
  const options = await aGateway();
  const owner = await startHolder(options);
  let looks = 0;
  const waiting = waitForGateway({ ...options, for: "ready", timeout: 1500, onChange: () => looks++ });
  await until(() => looks === 1);
  await owner.process.kill();
  while ((await Promise.race([waiting, new Promise(setImmediate).then(() => "waiting")])) === "waiting")
    expect(flockCommandGets(options.stateDir)).toBe("granted");
});

it("refuses what it can't wait for", async () => {
  const options = await aGateway();
  const wrong = (change: object) => waitForGateway({ ...options, for: "free", ...change } as WaitOptions);
  await expect(wrong({ for: "gone" })).rejects.toMatchObject({ code: "ERR_INVALID_ARG_VALUE" });
  await expect(wrong({ timeout: -1 })).rejects.toMatchObject({ code: "ERR_OUT_OF_RANGE" });
  await expect(wrong({ onChange: 1 })).rejects.toMatchObject({ code: "ERR_INVALID_ARG_TYPE" });
  await expect(wrong({ until: "free" })).rejects.toThrow("is unknown");
});
