// What tests of locks share: another user, independent lock clients, and what a file looked like before.

import { type SpawnOptions, spawnSync } from "node:child_process";
import { lstatSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { isRoot } from "./capabilities.ts";
import { fixturePath } from "./processes.ts";

/** A user that is not root and owns nothing; only root can become it. */
export const OTHER_UID = 65534;
export const asOtherUser: SpawnOptions = { uid: OTHER_UID, gid: OTHER_UID, cwd: "/" };

/** Whether another user can load this package from here. */
export const canRunAsOtherUser: boolean =
  isRoot &&
  spawnSync(process.execPath, [fixturePath("lock-reader.mjs"), JSON.stringify({ path: "/" })], {
    uid: OTHER_UID,
    gid: OTHER_UID,
    cwd: "/",
    stdio: "ignore",
  }).status === 0;

// PROC_PID_INIT_INO of include/linux/proc_ns.h: only there does /proc/locks list the locks of everybody.
const INITIAL_PID_NAMESPACE = "pid:[4026531836]";
export const seesAllLocks: boolean = (() => {
  try {
    return readlinkSync("/proc/self/ns/pid") === INITIAL_PID_NAMESPACE;
  } catch {
    return false;
  }
})();

/** strace may change what flock(2) returns to a process. */
export const canInjectFaults: boolean = inTemporary((directory) => {
  const inject = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"];
  const { status } = spawnSync("strace", [...inject, "flock", "-n", join(directory, "file"), "true"], {
    stdio: "ignore",
  });
  return status !== null && status !== 0 && spawnSync("strace", ["-V"], { stdio: "ignore" }).status === 0;
});

export const canMakeDevices: boolean = inTemporary(
  (directory) => spawnSync("mknod", [join(directory, "null"), "c", "1", "3"], { stdio: "ignore" }).status === 0,
);

export const canMountProc: boolean =
  isRoot &&
  spawnSync("unshare", ["--mount", "mount", "-t", "proc", "-o", "hidepid=1", "proc", "/proc"], { stdio: "ignore" })
    .status === 0;

/** Arguments of unshare(1) for a command that sees a FUSE filesystem, followed by DIRECTORY TYPE COMMAND… */
export const FUSE: readonly string[] = ["--mount", "python3", fixturePath("lock-fuse.py")];
export const canMountFuse: boolean =
  isRoot &&
  inTemporary((path) => spawnSync("unshare", [...FUSE, path, "fuse.sshfs", "true"], { stdio: "ignore" }).status === 0);

function inTemporary<T>(use: (directory: string) => T): T {
  const directory = mkdtempSync(join(tmpdir(), "gateway-lock-can-"));
  try {
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const CONFLICT = 73;

/** Whether flock(1), a stranger to this package, gets the lock on a file or directory. */
export function flockCommandGets(path: string): "granted" | "refused" {
  const { status, stderr } = spawnSync("flock", ["-n", "-E", String(CONFLICT), path, "true"], { encoding: "utf8" });
  if (status !== 0 && status !== CONFLICT) throw new Error(`flock: ${stderr}`);
  return status === 0 ? "granted" : "refused";
}

/** All that lstat says of what changes when something is touched, and what lies beside it. */
export function appearance(path: string): object {
  const { ino, mode, nlink, uid, gid, size, mtimeNs, ctimeNs } = lstatSync(path, { bigint: true });
  const directory = lstatSync(dirname(path), { bigint: true });
  return {
    ...{ ino, mode, nlink, uid, gid, size, mtimeNs, ctimeNs },
    beside: readdirSync(dirname(path)).sort(),
    directory: { mode: directory.mode, mtimeNs: directory.mtimeNs, ctimeNs: directory.ctimeNs },
  };
}
