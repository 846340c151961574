// Proves that a directory which other hosts may write as well holds no gateway's lock without the user's consent.

import { join } from "node:path";
import { expect } from "vitest";
import { itWhere } from "../support/capabilities.ts";
import { canMountFuse, FUSE } from "../support/locks.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(canMountFuse, "needs root, FUSE and Python");

/** A gateway process that sees this directory on a filesystem of this type. */
async function startOn(type: string, directory: string, options: object): Promise<TestProcess> {
  const argument = JSON.stringify({ port: await freePort(), lockDir: temporaryDirectory(), ...options });
  const command = [process.execPath, fixturePath("gateway.mjs"), argument];
  return new TestProcess("unshare", [...FUSE, directory, type, ...command]);
}

it("refuses a state directory or a further one on a network filesystem, and names it", async () => {
  const [local, remote] = [temporaryDirectory(), temporaryDirectory()];
  for (const options of [{ stateDir: remote }, { stateDir: local, locks: [remote] }]) {
    const refused = await (await startOn("fuse.sshfs", remote, options)).next("refused", "acquired");
    expect(refused).toMatchObject({ event: "refused", code: "LOCK_UNSUPPORTED", retryable: false, exitCode: 1 });
    expect(refused.message).toMatch(`the filesystem at ${remote} (fuse.sshfs) cannot hold a lock: `);
    expect(refused.message).toContain("allowNetworkFilesystem");
  }
});

it("refuses a config on a network filesystem, wherever its lock lies", async () => {
  const remote = temporaryDirectory();
  const options = { stateDir: temporaryDirectory(), configPath: join(remote, "my.json") };
  const gateway = await startOn("fuse.sshfs", remote, options);
  expect(await gateway.next("refused", "acquired")).toMatchObject({ event: "refused", code: "LOCK_UNSUPPORTED" });
});

it("accepts it with the user's consent, and a local FUSE filesystem without", async () => {
  for (const [type, allowNetworkFilesystem] of [
    ["fuse.sshfs", true],
    ["fuse.bindfs", false],
  ] as const) {
    const stateDir = temporaryDirectory();
    const gateway = await startOn(type, stateDir, { stateDir, allowNetworkFilesystem });
    expect(await gateway.next("acquired", "refused"), type).toMatchObject({ event: "acquired" });
    gateway.child.stdin?.end();
    await gateway.exited;
  }
});
