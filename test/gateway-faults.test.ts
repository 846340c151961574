// What goes wrong at a bad moment leaves nothing held that nobody owns, and no loss unnoticed.

import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, vi } from "vitest";
import { WebSocket } from "ws";
import { readRecord } from "../lib/lock/record.ts";
import { isLinux, itWhere } from "./support/capabilities.ts";
import { canInjectFaults } from "./support/locks.ts";
import { fixturePath, startFixture, startGateway, TestProcess } from "./support/processes.ts";
import { freePort, temporaryDirectory, wipe } from "./support/temporary.ts";

const PATIENCE = { timeout: 10_000, interval: 5 }; // ms; only reached when something is wrong

function openFilesBelow(directory: string, pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/${pid}/fd/${fd}`);
      return target.startsWith(directory) ? [target] : [];
    } catch {
      return []; // closed meanwhile
    }
  });
}

itWhere(canInjectFaults, "strace can't inject faults")(
  "a lock file that can't be restored leaves no lock behind",
  async () => {
    const FIRST_FAILURE = 5; // two files, for listening and ready; then the restoring
    const stateDir = temporaryDirectory();
    const port = await freePort();
    const inject = ["-e", "trace=pwrite64", "-e", `inject=pwrite64:error=ENOSPC:when=${FIRST_FAILURE}+`];
    const gateway = new TestProcess("strace", [
      ...["-D", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none", ...inject],
      ...[process.execPath, fixturePath("gateway.mjs"), JSON.stringify({ stateDir, port })],
    ]);
    await gateway.next("serving");
    gateway.send("ready");
    await gateway.next("done");

    wipe(join(stateDir, "locks"));

    const lost = await gateway.next("lost");
    expect(lost).toMatchObject({ code: "LOCK_LOST" });
    expect(lost.message).toContain("can't be restored");
    gateway.send("close");
    await gateway.next("done");
    expect(openFilesBelow(stateDir, gateway.pid)).toEqual([]);
    expect(readdirSync(join(stateDir, "locks"))).toEqual([]);
  },
);

itWhere(isLinux, "needs Linux")("a lock is free at its release, whatever is between fork and exec", async () => {
  const storm = startFixture("lock-storm.mjs", { path: join(temporaryDirectory(), "lock"), rounds: 30_000 });
  const { refused, spawned } = await storm.next("done");
  expect(spawned, "processes started meanwhile").toBeGreaterThan(10);
  expect(refused).toBe(0);
});

itWhere(isLinux, "needs Linux")("a loss is noticed also while the last clients leave", async () => {
  const [stateDir, elsewhere] = [temporaryDirectory(), temporaryDirectory()];
  const port = await freePort();
  const gateway = startGateway({ stateDir, port, configPath: join(elsewhere, "config.json") });
  const stateLock = (await gateway.next("acquired")).lockPaths[0];
  await gateway.next("serving");
  const client = new WebSocket(`ws://127.0.0.1:${port}`);
  client.on("error", () => {});
  await new Promise((resolve) => client.once("open", resolve));
  gateway.send("close");
  await vi.waitFor(() => expect(readRecord(stateLock).record?.phase).toBe("stopping"), PATIENCE);

  wipe(join(elsewhere, "locks"));

  expect(await gateway.next("lost")).toMatchObject({ code: "LOCK_LOST" });
  client.terminate();
});
