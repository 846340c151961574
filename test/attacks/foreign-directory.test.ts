// Proves that root, whose gateway lies in somebody else's directory, makes, gives away, writes and deletes nothing outside of it, whatever that user puts there.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { itWhere } from "../support/capabilities.ts";
import { appearance, asOtherUser, canRunAsOtherUser, OTHER_UID } from "../support/locks.ts";
import { TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const STATE_LOCK = "gateway.state.lock";
const ROUNDS = 1500;
/** Swaps two names as fast as it can, by renameat2(2) with RENAME_EXCHANGE. */
const SWAP = `
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.chdir(sys.argv[1])
print('{"event":"began"}', flush=True)
while True:
    libc.renameat2(-100, b"locks", -100, sys.argv[2].encode(), 2)
`;
const hasPython = spawnSync("python3", ["--version"]).status === 0;
const it = itWhere(canRunAsOtherUser && hasPython, "only root can become another user; needs Python");

/** Of the other user. */
function aForeignDirectory(): string {
  const directory = join(temporaryDirectory(), "theirs");
  chmodSync(join(directory, ".."), 0o755);
  mkdirSync(directory, { mode: 0o700 });
  chownSync(directory, OTHER_UID, OTHER_UID);
  return directory;
}

/** Starts gateways, and ends them, while `locks` is swapped with `other` all the time; how often it was acquired and refused. */
async function startWhileSwapped(stateDir: string, other: string): Promise<Record<string, number>> {
  const attacker = new TestProcess("python3", ["-c", SWAP, stateDir, other], asOtherUser);
  await attacker.next("began");
  const port = await freePort();
  const outcomes = { acquired: 0, refused: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    try {
      const gateway = await acquireGateway({ stateDir, port, handover: round % 2 === 0 });
      outcomes.acquired++;
      await gateway.close();
    } catch (error) {
      expect(error).toMatchObject({ code: expect.stringMatching(/^LOCK_(FAILED|LOST)$/) });
      outcomes.refused++;
    }
  }
  await attacker.kill();
  return outcomes;
}

it("a link to a directory of root's gets no file of another user", async () => {
  const stateDir = aForeignDirectory();
  const victim = temporaryDirectory();
  chmodSync(victim, 0o755);
  mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
  symlinkSync(victim, join(stateDir, "link"));
  for (const name of ["locks", "link"]) spawnSync("chown", ["-h", `${OTHER_UID}:${OTHER_UID}`, join(stateDir, name)]);
  const outcomes = await startWhileSwapped(stateDir, "link");
  expect(outcomes.refused).toBeGreaterThan(0);
  expect(outcomes.acquired).toBeGreaterThan(0);
  expect(readdirSync(victim)).toEqual([]);
  expect(statSync(victim)).toMatchObject({ uid: 0 });
});

it("a link to a third user's locks gets nothing locked, written or deleted there", async () => {
  const stateDir = aForeignDirectory();
  const third = aForeignDirectory();
  const [locks, lock] = [join(third, "locks"), join(third, "locks", STATE_LOCK)];
  mkdirSync(locks, { mode: 0o700 });
  writeFileSync(lock, "of the third user", { mode: 0o600 });
  for (const path of [third, locks, lock]) chownSync(path, OTHER_UID - 1, OTHER_UID - 1);
  mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
  symlinkSync(locks, join(stateDir, "link"));
  for (const name of ["locks", "link"]) spawnSync("chown", ["-h", `${OTHER_UID}:${OTHER_UID}`, join(stateDir, name)]);
  const before = appearance(lock);
  const outcomes = await startWhileSwapped(stateDir, "link");
  expect(outcomes.acquired).toBeGreaterThan(0);
  expect(appearance(lock)).toEqual(before);
  expect(readFileSync(lock, "utf8")).toBe("of the third user");
  expect(readdirSync(locks)).toEqual([STATE_LOCK]);
});

it("what is made there is given to its owner", async () => {
  const stateDir = aForeignDirectory();
  const gateway = await acquireGateway({ stateDir, port: await freePort() });
  for (const path of [join(stateDir, "locks"), ...gateway.lockPaths]) expect(lstatSync(path).uid).toBe(OTHER_UID);
  await gateway.close();
  expect(readdirSync(join(stateDir, "locks"))).toEqual([]);
});
