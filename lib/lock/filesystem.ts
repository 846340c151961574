// Which filesystem a directory lies on, and whether hosts other than this one can write there too.

import { readFileSync, statSync } from "node:fs";
import { systemError } from "../errors.ts";
import { isFailure, native } from "../native.ts";

export interface Filesystem {
  readonly type: string;
  /** Its locks may mean nothing to another host that has it mounted. */
  readonly network: boolean;
}

// Linux has only numbers for its filesystems. The names are the kernel's, the numbers those of statfs(2), linux/magic.h and each filesystem's own header.
const NETWORK: ReadonlyMap<number, string> = new Map([
  [0x6969, "nfs"],
  [0x517b, "smb"],
  [0xff534d42, "cifs"],
  [0xfe534d42, "smb2"],
  [0x01021997, "9p"],
  [0x5346414f, "afs"],
  [0x6b414653, "afs"],
  [0x73757245, "coda"],
  [0x00c36400, "ceph"],
  [0x01161970, "gfs2"],
  [0x7461636f, "ocfs2"],
  [0x0bd00bd0, "lustre"],
  [0x47504653, "gpfs"],
  [0x19830326, "beegfs"],
  [0x786f4256, "vboxsf"],
  [0xbacbacbc, "vmhgfs"],
  [0xaad7aaea, "panfs"],
  [0x013111a8, "ibrix"],
]);

const LOCAL: ReadonlyMap<number, string> = new Map([
  [0xef53, "ext4"],
  [0x58465342, "xfs"],
  [0x9123683e, "btrfs"],
  [0x01021994, "tmpfs"],
  [0x858458f6, "ramfs"],
  [0x794c7630, "overlayfs"],
  [0xf2f52010, "f2fs"],
  [0x2fc12fc1, "zfs"],
  [0xca451a4e, "bcachefs"],
  [0x4d44, "vfat"],
  [0x2011bab0, "exfat"],
  [0x73717368, "squashfs"],
  [0xe0f5e1e2, "erofs"],
]);

const FUSE = 0x65735546;

// FUSE says nothing of what is behind it: sshfs and virtiofs look the same to statfs. These are known to be local.
const LOCAL_FUSE: ReadonlySet<string> = new Set([
  "fuseblk",
  "fuse.fuse-overlayfs",
  "fuse.bindfs",
  "fuse.mergerfs",
  "fuse.gocryptfs",
  "fuse.encfs",
  "fuse.cryfs",
  "fuse.securefs",
  "fuse.lxcfs",
]);

/** @throws the system's error where `directory` cannot be looked at */
export function filesystemOf(directory: string): Filesystem {
  const facts = native().describeFilesystem(directory);
  if (isFailure(facts)) throw systemError(facts, directory);
  if (facts.remote !== null) return { type: facts.type, network: facts.remote };
  const magic = facts.number;
  const network = NETWORK.get(magic);
  if (network !== undefined) return { type: network, network: true };
  if (magic === FUSE) {
    const type = mountTypeOf(directory) ?? "fuse";
    return { type, network: !LOCAL_FUSE.has(type) };
  }
  return { type: LOCAL.get(magic) ?? `0x${magic.toString(16)}`, network: false };
}

/** The type in /proc/self/mountinfo, which names what is behind FUSE ("fuse.sshfs", "virtiofs"); proc_pid_mountinfo(5). */
function mountTypeOf(directory: string): string | null {
  const device = statSync(directory).dev;
  // makedev of <sys/sysmacros.h>, which is what st_dev packs.
  const major = Math.floor(device / 256) % 4096;
  const minor = (device % 256) + Math.floor(device / 2 ** 20) * 256;
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [mount = "", source = ""] = line.split(" - ");
    if (mount.split(" ")[2] === `${major}:${minor}`) return source.split(" ")[0] ?? null;
  }
  return null;
}
