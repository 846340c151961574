// Proves that another user who can read a state directory and locks it for ever keeps a gateway out, but is named, and is not killed by stop.

import { chmodSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { inspectGateway } from "../../lib/inspect/status.ts";
import { stopGateway } from "../../lib/inspect/stop.ts";
import { hasFlockCommand, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { asOtherUser, seesAllLocks } from "../support/locks.ts";
import { TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

/** One process, so that the descriptor goes with it. */
const HOLD = `exec 3<"$0" && flock -n "$1" 3 && echo '{"event":"locked"}' && exec cat`;

const it = itWhere(
  isLinux && isRoot && hasFlockCommand && seesAllLocks,
  "needs Linux, root in the initial pid namespace, flock(1)",
);

function attack(directory: string, mode: string): TestProcess {
  return new TestProcess("sh", ["-c", HOLD, directory, mode], asOtherUser);
}

it.each(["-x", "-s"])(
  "flock %s on a directory that others may read is named by its pid, and goes with it",
  async (mode) => {
    const stateDir = temporaryDirectory();
    chmodSync(stateDir, 0o755);
    const options = { stateDir, port: await freePort() };
    const attacker = attack(stateDir, mode);
    await attacker.next("locked");

    const refusal = await acquireGateway(options).catch((error) => error);
    expect(refusal).toMatchObject({ code: "ALREADY_RUNNING", message: expect.stringContaining(`pid ${attacker.pid}`) });
    expect((await inspectGateway(options)).lock.holders).toEqual([attacker.pid]);
    for (const force of [false, true]) {
      const report = await stopGateway({ ...options, force });
      expect(report).toMatchObject({ outcome: "refused", exitCode: 1, pids: [], signal: null });
      expect(report.evidence[0]).toContain(`pid ${attacker.pid} holds the lock of ${stateDir}`);
    }
    expect(attacker.child.exitCode ?? attacker.child.signalCode).toBeNull();

    await attacker.kill();
    await (await acquireGateway(options)).close();
  },
);

it("a directory that is made for the gateway can't be locked by another user", async () => {
  const parent = temporaryDirectory();
  chmodSync(parent, 0o755);
  const stateDir = join(parent, "state");
  const gateway = await acquireGateway({ stateDir, port: await freePort() });
  const mustBeDenied = async () => {
    const attacker = attack(stateDir, "-s");
    expect((await attacker.exited).code).not.toBe(0);
    expect(attacker.stderr).toContain("Permission denied");
  };
  await mustBeDenied();
  await gateway.close();
  await mustBeDenied();
});
