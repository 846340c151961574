// Proves what permissions and ownership make of the place of a lock.

import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { readOwner } from "../../lib/lock/record.ts";
import { isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { asOtherUser, canRunAsOtherUser, OTHER_UID } from "../support/locks.ts";
import { startGateway } from "../support/processes.ts";
import { acquire, filesIn, hashedLock, refusal, STATE_LOCK } from "../support/resources.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux, "needs Linux");
const itAsRoot = itWhere(isRoot, "needs root");
const itAsOrdinaryUser = itWhere(!isRoot || canRunAsOtherUser, "needs a user whom permissions bind");

it("keeps the mode of a lock directory that is there, and refuses one that others may write", async () => {
  const stateDir = temporaryDirectory();
  const locks = join(stateDir, "locks");
  mkdirSync(locks);
  chmodSync(locks, 0o755);
  await (await acquire({ stateDir })).close();
  expect(lstatSync(locks).mode & 0o777).toBe(0o755);

  chmodSync(locks, 0o775);
  expect(await refusal({ stateDir })).toMatchObject({
    code: "LOCK_FAILED",
    message: expect.stringContaining("chmod go-w"),
  });
  expect(readdirSync(locks)).toEqual([]);
  chmodSync(locks, 0o1777);
  await (await acquire({ stateDir })).close();
});

/** A state directory and one that may not be written, for a user whom permissions bind. */
function unwritable(): { stateDir: string; readOnly: string; spawnOptions: object } {
  const base = temporaryDirectory();
  const [stateDir, readOnly] = [join(base, "state"), join(base, "read-only")];
  for (const directory of [stateDir, readOnly]) mkdirSync(directory);
  if (isRoot) for (const path of [base, stateDir]) chownSync(path, OTHER_UID, OTHER_UID);
  chmodSync(readOnly, 0o555);
  onTestFinished(() => chmodSync(readOnly, 0o755));
  return { stateDir, readOnly, spawnOptions: isRoot ? asOtherUser : {} };
}

itAsOrdinaryUser(
  "locks a config that it may only read under the state directory, and says so in the record",
  async () => {
    const { stateDir, readOnly, spawnOptions } = unwritable();
    const configPath = join(readOnly, "my.json");
    const gateway = startGateway({ stateDir, configPath, port: await freePort() }, spawnOptions);
    const acquired = await gateway.next("acquired", "refused");
    const locks = join(stateDir, "locks");

    expect(acquired).toMatchObject({
      event: "acquired",
      lockPaths: [join(locks, STATE_LOCK), join(locks, hashedLock(configPath))],
      owner: { configPath, configLock: "state-only" },
    });
    expect(readOwner(join(locks, hashedLock(configPath))).record).toMatchObject({ configLock: "state-only" });
    expect(readdirSync(readOnly)).toEqual([]);
  },
);

itAsOrdinaryUser("refuses an entry of `locks` beside which no lock can lie", async () => {
  const { stateDir, readOnly, spawnOptions } = unwritable();
  const gateway = startGateway({ stateDir, locks: [readOnly], port: await freePort() }, spawnOptions);
  expect(await gateway.next("refused", "acquired")).toMatchObject({
    event: "refused",
    code: "LOCK_FAILED",
    lockPath: join(readOnly, "locks", STATE_LOCK),
    cause: { code: "EACCES" },
  });
  await gateway.exited;
  expect(filesIn(stateDir)).toEqual([]);
});

itAsRoot("gives what root makes to the owner of the directory, so that the owner can start later", async () => {
  const stateDir = temporaryDirectory();
  const outside = temporaryDirectory();
  for (const path of [stateDir, outside]) chownSync(path, OTHER_UID, OTHER_UID);
  const gateway = await acquire({ stateDir, configPath: join(outside, "my.json") });
  const made = [...gateway.lockPaths, ...gateway.lockPaths.map((path) => dirname(path))];
  expect(made.map((path) => lstatSync(path).uid)).toEqual(made.map(() => OTHER_UID));
  await gateway.close();
});

itWhere(canRunAsOtherUser, "needs root, and a checkout that others may read")(
  "lets the owner of the directory start after root was killed there, and refuses it while root runs",
  async () => {
    const stateDir = temporaryDirectory();
    chownSync(stateDir, OTHER_UID, OTHER_UID);
    const options = { stateDir, port: await freePort() };
    const root = startGateway(options);
    await root.next("serving");
    expect(await startGateway(options, asOtherUser).next("refused")).toMatchObject({ code: "ALREADY_LISTENING" });
    await root.kill();
    expect(await startGateway(options, asOtherUser).next("acquired", "refused")).toMatchObject({ event: "acquired" });
  },
);
