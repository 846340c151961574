// Proves that another user who plants and takes away traps all the time, in a directory where both may make files, gets nothing of the gateway's user written,
// deleted or given away, and neither hangs it nor makes it two.

import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { itWhere } from "../support/capabilities.ts";
import { appearance, asOtherUser, canRunAsOtherUser, flockCommandGets } from "../support/locks.ts";
import { TestProcess } from "../support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const ROUNDS = 300;
/** $1 is the directory, $2 a file and $3 a directory of the victim's. */
const ATTACK = `cd "$1"; echo began; while :; do
  ln -s "$3" locks; rm -f locks
  ln -s "$2" locks; rm -f locks
  mkfifo locks; rm -f locks
  mkdir locks && { ln -s "$2" locks/gateway.state.lock; rm -rf locks; }
  mkdir locks && { mkfifo locks/gateway.state.lock; rm -rf locks; }
done 2>/dev/null`;

itWhere(canRunAsOtherUser, "only root can become another user")("traps that come and go", async () => {
  const [stateDir, victim] = [temporaryDirectory(), temporaryDirectory()];
  const [file, directory] = [join(victim, "file"), join(victim, "directory")];
  writeFileSync(file, "of the victim", { mode: 0o666 });
  mkdirSync(directory);
  chmodSync(victim, 0o755);
  chmodSync(stateDir, 0o1777);
  const before = [appearance(file), appearance(directory)];
  const descriptors = openDescriptors();
  const attacker = new TestProcess("sh", ["-c", ATTACK, "sh", stateDir, file, directory], asOtherUser);
  await attacker.next("text");
  const port = await freePort();
  const outcomes: Record<string, number> = {};
  for (let round = 0; round < ROUNDS; round++) {
    try {
      const gateway = await acquireGateway({ stateDir, port });
      expect(flockCommandGets(stateDir)).toBe("refused");
      await gateway.close();
      outcomes.acquired = (outcomes.acquired ?? 0) + 1;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      expect(code, String(error)).toBe("LOCK_FAILED");
      outcomes.refused = (outcomes.refused ?? 0) + 1;
    }
    // What is ours would keep the attacker out from now on.
    rmSync(join(stateDir, "locks"), { recursive: true, force: true });
  }
  await attacker.kill();
  // Both have happened, or it was no race.
  expect(outcomes.refused).toBeGreaterThan(0);
  expect(outcomes.acquired).toBeGreaterThan(0);
  expect(readFileSync(file, "utf8")).toBe("of the victim");
  expect([appearance(file), appearance(directory)]).toEqual(before);
  expect(openDescriptors()).toBe(descriptors);
});
