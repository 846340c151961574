// Which filesystem a directory lies on, and whether hosts other than this one can write there too.

import { readFileSync, realpathSync, statSync } from "node:fs";
import { join, relative } from "node:path";
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
  // Of virtual machines. Docker Desktop's fakeowner even grants one lock twice now and then (docker/for-mac, issue 7004).
  [0x6a656a63, "fakeowner"],
  [0x7c7c6673, "prl_fs"],
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

/** The type in /proc/self/mountinfo, which names what is behind FUSE ("fuse.sshfs", "virtiofs"). */
function mountTypeOf(directory: string): string | null {
  const device = statSync(directory).dev;
  // makedev of <sys/sysmacros.h>, which is what st_dev packs.
  const major = Math.floor(device / 256) % 4096;
  const minor = (device % 256) + Math.floor(device / 2 ** 20) * 256;
  return mounts().find((mount) => mount.device === `${major}:${minor}`)?.type ?? null;
}

/**
 * Where overlays show what is in `directory`, because it lies in one of their layers. A lock that is taken there is the overlay's own (its inodes are):
 * who locks the layer itself does not meet it. Layers that the mount table does not tell, or tells by relative paths, are not found.
 */
export function overlaysOver(directory: string): string[] {
  const table = mounts();
  const here = locate(directory, table);
  if (here === null) return [];
  const overlays = table.filter(({ type, device }) => type === "overlay" && device !== here.device);
  return overlays
    .filter(({ options }) =>
      layersIn(options).some((layer) => {
        const there = locate(layer, table);
        return there?.device === here.device && isBelow(here.path, there.path);
      }),
    )
    .map(({ point }) => point);
}

/** Where a path lies on its filesystem, whatever it is mounted as. */
function locate(path: string, table: readonly Mount[]): { readonly device: string; readonly path: string } | null {
  let real: string;
  try {
    real = realpathSync.native(path);
  } catch {
    return null;
  }
  // Of two at one place, the later one hides the other.
  const mount = table.findLast(({ point }) => isBelow(real, point));
  return mount === undefined ? null : { device: mount.device, path: join(mount.root, relative(mount.point, real)) };
}

function isBelow(path: string, directory: string): boolean {
  return directory === "/" || path === directory || path.startsWith(`${directory}/`);
}

/** Directories that an overlay is made of, by the options of its mount. */
function layersIn(options: string): string[] {
  return options.split(",").flatMap((option) => {
    const [, name, value = ""] = /^(upperdir|lowerdir\+?|datadir\+?)=(.*)$/.exec(option) ?? [];
    if (name === undefined) return [];
    // After a backslash, a colon or comma is part of a path; else a colon ends one in the list of lower layers.
    const paths = [""];
    for (const [, escaped, char = ""] of decode(value).matchAll(/\\(.)|(.)/gs)) {
      if (char === ":" && name === "lowerdir") paths.push("");
      else paths[paths.length - 1] += escaped ?? char;
    }
    return paths.filter((path) => path.startsWith("/"));
  });
}

interface Mount {
  readonly device: string;
  /** What of the filesystem is mounted. */
  readonly root: string;
  readonly point: string;
  readonly type: string;
  /** As they stand there: see `decode`. */
  readonly options: string;
}

/** proc_pid_mountinfo(5). Empty where there is none. */
function mounts(): Mount[] {
  let table: string;
  try {
    table = readFileSync("/proc/self/mountinfo", "latin1");
  } catch {
    return [];
  }
  return table.split("\n").flatMap((line) => {
    const [mount = "", source = ""] = line.split(" - ");
    const [, , device, root, point] = mount.split(" ");
    const [type = "", , options = ""] = source.split(" ");
    if (device === undefined || root === undefined || point === undefined) return [];
    return { device, root: decode(root), point: decode(point), type, options };
  });
}

/** White space, commas and backslashes of a name are octal numbers there. */
function decode(field: string): string {
  const bytes = field.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
  return Buffer.from(bytes, "latin1").toString();
}
