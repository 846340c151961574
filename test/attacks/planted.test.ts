// Proves that links, FIFOs, files and directories that another user plants in place of a gateway's locks are refused with their path, and a linked file is left alone.

import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { appearance, asOtherUser, OTHER_UID } from "../support/locks.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux && isRoot, "needs Linux and root, to be two users");

/** What the attacker runs in the sticky state directory; $0 is the victim's file, $1 its directory. */
const PLANTED: readonly [string, string][] = [
  ["locks is a symbolic link to a directory of the victim's", 'ln -s "$1" locks'],
  ["locks is a symbolic link to nothing", "ln -s nothing locks"],
  ["locks is a file", "echo planted > locks"],
  ["locks is a FIFO", "mkfifo locks"],
  ["locks is the attacker's own directory", "mkdir locks"],
  ["locks is the attacker's own directory, with a lock file", "mkdir locks && echo planted > locks/gateway.state.lock"],
  ["the state lock is a symbolic link to a file of the victim's", 'mkdir locks && ln -s "$0" locks/gateway.state.lock'],
  ["the state lock is a symbolic link to nothing", 'mkdir locks && ln -s "$1/made" locks/gateway.state.lock'],
  ["the state lock is a FIFO", "mkdir locks && mkfifo locks/gateway.state.lock"],
  ["the state lock is a directory", "mkdir -p locks/gateway.state.lock"],
];

it.each(PLANTED)("%s", async (_, plant) => {
  const stateDir = temporaryDirectory();
  const victim = temporaryDirectory();
  const file = join(victim, "file");
  writeFileSync(file, "of the victim");
  mkdirSync(join(victim, "private"), { mode: 0o700 });
  chmodSync(stateDir, 0o1777);
  const { status, stderr } = spawnSync("sh", ["-c", `cd "$2" && ${plant}`, file, victim, stateDir], {
    ...asOtherUser,
    encoding: "utf8",
  } as object);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const before = appearance(file);
  const outcome = await acquireGateway({ stateDir, port: await freePort() }).then(
    async (gateway) => {
      await gateway.close();
      return "acquired";
    },
    ({ code, message }) => ({ code, message }),
  );
  expect(outcome).toMatchObject({ code: "LOCK_FAILED", message: expect.stringContaining(join(stateDir, "locks")) });
  expect(appearance(file)).toEqual(before);
});

it("the config is another user's link, in a directory of all users: it leads nowhere", async () => {
  const stateDir = temporaryDirectory();
  const victim = temporaryDirectory();
  chmodSync(victim, 0o755);
  chmodSync(stateDir, 0o1777);
  const config = join(stateDir, "gateway.json");
  writeFileSync(join(victim, "other.json"), "{}");
  const port = await freePort();
  for (const target of ["new/deep/x.json", "other.json", "none.json"]) {
    const planted = spawnSync("ln", ["-sf", join(victim, target), config], asOtherUser as object);
    expect(planted.status).toBe(0);
    const error = await acquireGateway({ stateDir, port }).catch((error) => error);
    expect(error).toMatchObject({ code: "LOCK_FAILED", message: expect.stringContaining(config) });
    expect(error.message).toContain(
      `it is a symbolic link that user ${OTHER_UID} has put into a directory of all users`,
    );
    expect(readdirSync(victim)).toEqual(["other.json"]);
    rmSync(config);
  }
});

it("no directory is made where a link of one's own says", async () => {
  const stateDir = temporaryDirectory();
  const config = join(stateDir, "gateway.json");
  symlinkSync(join(stateDir, "new/deep/x.json"), config);
  const port = await freePort();
  const error = await acquireGateway({ stateDir, port }).catch((error) => error);
  expect(error).toMatchObject({ code: "LOCK_FAILED", message: expect.stringContaining("create it first") });
  expect(readdirSync(stateDir)).toEqual(["gateway.json"]);
  mkdirSync(join(stateDir, "new/deep"), { recursive: true });
  const gateway = await acquireGateway({ stateDir, port });
  expect(gateway.lockPaths).toContainEqual(expect.stringContaining(join(stateDir, "new/deep/locks/")));
  await gateway.close();
});
