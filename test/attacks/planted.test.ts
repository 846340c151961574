// Proves that links, FIFOs, files and directories that another user plants in place of a gateway's locks are refused with their path, and a linked file is left alone.

import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { appearance, asOtherUser } from "../support/locks.ts";
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
