// Proves on real filesystems that a gateway's lock holds, or is refused: by trying, and not by a list of names.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { canUnshareMount, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { canMountFuse } from "../support/locks.ts";
import { type FixtureEvent, fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

/** What comes of a state directory at $1/state, after `mount` has been run in a mount namespace with $1 in place. */
async function tryOn(mount: string, options: object = {}): Promise<FixtureEvent> {
  const root = temporaryDirectory();
  const argument = JSON.stringify({ stateDir: join(root, "mounted", "state"), port: await freePort(), options });
  const script = `mkdir "$1/mounted"; ${mount}; mkdir "$1/mounted/state"; exec "$2" "$3" "$4"`;
  const command = [root, process.execPath, fixturePath("filesystem-contract.mjs"), argument];
  const user = isRoot ? [] : ["--user", "--map-root-user"];
  return await new TestProcess("unshare", [...user, "--mount", "sh", "-ec", script, "sh", ...command]).next("done");
}

/** Every promise is kept. */
const HOLDS = {
  code: null,
  refused: expect.stringMatching(/^ALREADY_/),
  names: true,
  holder: true,
  waited: true,
  restored: true,
  left: [],
};

const onImage = (make: string): string =>
  `truncate -s 320M "$1/image"; ${make} "$1/image" >/dev/null 2>&1; mount -o loop "$1/image" "$1/mounted"`;
const canLoop = (make: string): boolean =>
  isRoot &&
  spawnSync("unshare", [
    "--mount",
    "sh",
    "-ec",
    `set -- "$(mktemp -d)"; mkdir "$1/mounted"; trap 'umount "$1/mounted"; rm -r "$1"' EXIT; ${onImage(make)}`,
  ]).status === 0;

itWhere(canUnshareMount, "no mount namespaces")("tmpfs", async () => {
  expect(await tryOn('mount -t tmpfs none "$1/mounted"')).toMatchObject(HOLDS);
});

itWhere(canUnshareMount, "no mount namespaces")("the machine's own, by a bind mount too", async () => {
  expect(await tryOn(":")).toMatchObject(HOLDS);
  expect(await tryOn('mkdir "$1/bound"; mount --bind "$1/bound" "$1/mounted"')).toMatchObject(HOLDS);
});

const LAYERS = 'mount -t tmpfs none "$1"; mkdir "$1/mounted" "$1/lower" "$1/upper" "$1/work"';
const OVERLAY = 'mount -t overlay -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" none "$1/mounted"';

itWhere(canUnshareMount, "no mount namespaces")("an overlay", async () => {
  expect(await tryOn(`${LAYERS}; ${OVERLAY}`)).toMatchObject(HOLDS);
});

itWhere(isRoot, "only root can delete what the lower layer of an overlay has")(
  "an overlay whose lower layer has been in use",
  async () => {
    const used =
      'mkdir -m 700 "$1/lower/state" "$1/lower/state/locks"; umask 077; echo old > "$1/lower/state/locks/gateway.state.lock"';
    expect(await tryOn(`${LAYERS}; ${used}; ${OVERLAY}; mkdir() { :; }`)).toMatchObject(HOLDS);
  },
);

for (const make of ["mkfs.ext4 -q", "mkfs.xfs -q", "mkfs.btrfs -q"]) {
  const name = make.replace(/mkfs\.(\w+).*/, "$1");
  const isThere = ["/sbin", "/usr/sbin"].some((folder) => existsSync(join(folder, `mkfs.${name}`)));
  // Not every machine has each of them, and may have no loop device: ext4 is most machines' own.
  itWhere(isThere && canLoop(make), `no ${name} to be mounted here`, { of: "runtime" })(
    `${name}, in an image`,
    async () => {
      expect(await tryOn(onImage(make))).toMatchObject(HOLDS);
    },
  );
}

const hasCompiler = spawnSync("gcc", ["--version"]).status === 0;

// The numbers of statfs(2), linux/magic.h and the filesystems' own headers. None of them can be mounted here: what statfs(2) answers is changed on its way.
const NETWORK: readonly (readonly [number, string])[] = [
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
];

itWhere(hasCompiler && isLinux, "no compiler")(
  "a network filesystem is known by its number, refused with the way out, and accepted with consent; an unknown one is tried",
  async () => {
    const [directory, library] = [temporaryDirectory(), join(temporaryDirectory(), "statfs.so")];
    const compiled = spawnSync("gcc", ["-shared", "-fPIC", "-o", library, fixturePath("statfs-type.c"), "-ldl"]);
    expect(compiled.stderr.toString()).toBe("");
    const types = [...NETWORK.map(([number]) => number), 0xef53, 0x12345678];
    const argument = { stateDir: join(directory, "state"), types };
    const tried = startFixture("statfs-types.mjs", argument, { env: { ...process.env, LD_PRELOAD: library } });
    const { outcomes } = await tried.next("done");
    for (const [number, name] of NETWORK) {
      const { refused, consented } = outcomes[number];
      expect({ name, ...refused }).toEqual({
        name,
        code: "LOCK_UNSUPPORTED",
        message: expect.stringMatching(
          `^the filesystem at \\S+ \\(${name}\\) cannot hold a lock: other hosts .*allowNetworkFilesystem`,
        ),
      });
      expect({ name, ...consented }).toEqual({ name, code: null });
    }
    for (const number of types.slice(NETWORK.length))
      expect(outcomes[number].refused, `${number}`).toEqual({ code: null });
  },
);

/** In memory, by a program of ours: see test/fixtures/memory-fuse.py. Of a type that counts as local, unless another is named. */
async function tryOnFuse(locks: string, type = "fuse.bindfs", options: object = {}): Promise<FixtureEvent> {
  const root = temporaryDirectory();
  const argument = JSON.stringify({ stateDir: join(root, "state"), port: await freePort(), options });
  const [mode = "", errno = ""] = locks.split(" ");
  const server = ["env", `LOCKS=${mode}`, `ERRNO=${errno}`, "python3", fixturePath("memory-fuse.py"), root, type];
  const contract = [process.execPath, fixturePath("filesystem-contract.mjs"), argument];
  return await new TestProcess("unshare", ["--mount", ...server, ...contract]).next("done");
}

const itFuse = itWhere(canMountFuse, "needs root, FUSE and Python");

itFuse("FUSE with locks of the kernel's own, and with locks that its server keeps", async () => {
  expect(await tryOnFuse("kernel")).toMatchObject(HOLDS);
  expect(await tryOnFuse("server")).toMatchObject({ ...HOLDS, holder: expect.anything() });
});

for (const errno of ["ENOSYS", "EOPNOTSUPP", "ENOLCK", "EINVAL"]) {
  itFuse(`FUSE that answers ${errno} to flock(2): LOCK_UNSUPPORTED`, async () => {
    const { code, message } = await tryOnFuse(`refused ${errno}`);
    expect({ code, message }).toEqual({
      code: "LOCK_UNSUPPORTED",
      message: expect.stringMatching(/^the filesystem at \S+ \(fuse\.bindfs\) cannot hold a lock: E/),
    });
  });
}

itFuse("FUSE that lies is found out, though its name is on the list of local ones", async () => {
  for (const lie of ["granted", "forgotten"]) {
    const { code, message } = await tryOnFuse(lie);
    expect({ lie, code, message }).toEqual({
      lie,
      code: "LOCK_UNSUPPORTED",
      message: expect.stringMatching(/^the filesystem at \S+ \(fuse\.bindfs\) cannot hold a lock: /),
    });
  }
});

itFuse("consent to a network filesystem is none to a lie", async () => {
  const consent = { allowNetworkFilesystem: true };
  expect(await tryOnFuse("server", "fuse.sshfs", consent)).toMatchObject({ code: null });
  expect(await tryOnFuse("granted", "fuse.sshfs", consent)).toMatchObject({ code: "LOCK_UNSUPPORTED" });
});
