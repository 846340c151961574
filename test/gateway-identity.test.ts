// The same directory or config is the same lock by whatever path it is reached, and who loses it is told.

import {
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { describe, expect, it } from "vitest";
import type { Gateway } from "../lib/gateway.ts";
import { decodeRecord } from "../lib/lock/record.ts";
import { canUnshareMount, canUnshareUser, isLinux, itWhere } from "./support/capabilities.ts";
import { acquire, lockFilesIn, refusalOf } from "./support/gateways.ts";
import { fixturePath, startGateway, TestProcess } from "./support/processes.ts";
import { freePort, temporaryDirectory, wipe } from "./support/temporary.ts";

const NOTICED = 1000; // ms, within which a loss is noticed
const SLACK = 1000; // ms, of a busy machine

async function started(options: { stateDir: string; port: number; [option: string]: unknown }) {
  const gateway = startGateway(options);
  await gateway.next("serving");
  return gateway;
}

/** Resolves with the reason of the loss; throws when it is not noticed in time. */
async function lossOf({ lost }: Gateway): Promise<unknown> {
  if (lost.aborted) return lost.reason;
  return await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("the loss was not noticed")), NOTICED + SLACK);
    lost.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve(lost.reason);
    });
  });
}

describe("a state directory", () => {
  it("is the same lock by every spelling", async () => {
    const parent = temporaryDirectory();
    const stateDir = join(parent, "state");
    const port = await freePort();
    await started({ stateDir, port });
    symlinkSync(stateDir, join(parent, "link"));
    symlinkSync("link", join(parent, "link-to-link"));
    mkdirSync(join(parent, "other"));
    const spellings = [
      `${stateDir}/`,
      `${parent}/other/../state`,
      `${parent}//state/.`,
      join(parent, "link"),
      `${join(parent, "link-to-link")}/`,
      relative(process.cwd(), stateDir),
    ];
    for (const spelling of spellings) {
      const error = await refusalOf({ stateDir: spelling, port: await freePort() });
      expect(error, spelling).toMatchObject({
        code: "ALREADY_LISTENING",
        port,
        lockPath: join(stateDir, "locks", "gateway.state.lock"),
      });
    }
  });

  itWhere(canUnshareMount, "no mount namespaces")("is the same lock through a bind mount", async () => {
    const [stateDir, mountPoint, port] = [temporaryDirectory(), temporaryDirectory(), await freePort()];
    const owner = await started({ stateDir, port });
    const options = JSON.stringify({ stateDir: mountPoint, port: await freePort() });
    const contender = new TestProcess("unshare", [
      ...["--user", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$1" "$2" && exec "$3" "$4" "$5"', "sh"],
      ...[stateDir, mountPoint, process.execPath, fixturePath("gateway.mjs"), options],
    ]);
    expect(await contender.next("refused", "acquired")).toMatchObject({
      code: "ALREADY_LISTENING",
      port,
      owner: { pid: owner.pid },
    });
  });

  it("takes one gateway, even with another config", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    await started({ stateDir, port, configPath: join(stateDir, "one.json") });
    const second = { stateDir, port: await freePort(), configPath: join(stateDir, "two.json") };
    expect(await refusalOf(second)).toMatchObject({ code: "ALREADY_LISTENING", port });
    expect(lockFilesIn(stateDir)).toHaveLength(2);
  });

  itWhere(isLinux && canUnshareUser, "no pid namespaces")(
    "is refused across pid namespaces, and no pid is named that means nothing here",
    async () => {
      const [stateDir, port] = [temporaryDirectory(), await freePort()];
      const owner = new TestProcess("unshare", [
        ...["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", process.execPath],
        ...[fixturePath("gateway.mjs"), JSON.stringify({ stateDir, port })],
      ]);
      const { owner: record } = await owner.next("acquired");
      await owner.next("serving");
      const refused = await refusalOf({ stateDir, port: await freePort() });
      expect(refused).toMatchObject({ code: "ALREADY_LISTENING", port, owner: { pid: record.pid } });
      // The kernel may name it by the number that it has here, but never by the one that it has there.
      expect(refused.listener?.pid).not.toBe(record.pid);

      const inside = new TestProcess("unshare", [
        ...["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", process.execPath],
        ...[fixturePath("gateway.mjs"), JSON.stringify({ stateDir, port: await freePort() })],
      ]);
      const there = await inside.next("refused", "acquired");
      expect(there).toMatchObject({ code: "ALREADY_LISTENING", port, listener: { pid: null } });
      expect(there.cause.message).not.toContain(`pid ${record.pid}`);
    },
  );

  itWhere(isLinux && canUnshareUser, "no pid namespaces")(
    "is refused with an unknown pid where the owner is in another pid namespace and does not listen",
    async () => {
      const stateDir = temporaryDirectory();
      const owner = await acquire({ stateDir, port: await freePort() });
      const [lockPath = ""] = owner.lockPaths;
      const record = JSON.parse(readFileSync(lockPath, "utf8"));
      // Its pid is that of the contender's own init, which is alive.
      const { check: _, ...rest } = record;
      writeFileSync(lockPath, JSON.stringify({ ...rest, pid: 1, startTime: null, port: await freePort() }));
      const inside = new TestProcess("unshare", [
        ...["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", process.execPath],
        ...[fixturePath("gateway.mjs"), JSON.stringify({ stateDir, port: await freePort() })],
      ]);
      expect(await inside.next("refused", "acquired")).toMatchObject({
        code: "ALREADY_RUNNING",
        message: "gateway already running (pid unknown); lock timeout after 0ms",
      });
    },
  );
});

describe("a config", () => {
  it("is refused under a second state directory, inside the first, outside both, and through a symbolic link", async () => {
    const parent = temporaryDirectory();
    const outside = join(parent, "etc", "config.json");
    mkdirSync(dirname(outside));
    writeFileSync(outside, "{}");
    const first = join(parent, "first");
    for (const configPath of [join(first, "gateway.json"), outside]) {
      const port = await freePort();
      const owner = await started({ stateDir: first, port, configPath });
      const link = join(parent, `link-${basename(dirname(configPath))}.json`);
      symlinkSync(configPath, link);
      for (const path of [
        configPath,
        link,
        join(dirname(configPath), ".", "..", basename(dirname(configPath)), basename(configPath)),
      ]) {
        const stateDir = join(parent, "second");
        expect(await refusalOf({ stateDir, configPath: path, port: await freePort() }), path).toMatchObject({
          code: "ALREADY_LISTENING",
          port,
          owner: { pid: owner.pid, stateDir: first, configPath },
        });
        expect(lockFilesIn(stateDir)).toEqual([]);
      }
      await owner.kill();
    }
  });

  it("may have the same name in another directory", async () => {
    const parent = temporaryDirectory();
    for (const name of ["a", "b"]) {
      const configPath = join(parent, name, "config.json");
      expect(await acquire({ stateDir: join(parent, `state-${name}`), configPath, port: 0 })).toMatchObject({
        owner: { configPath, configLock: "exclusive" },
      });
    }
  });

  it("under one name in one directory is one lock, whether it exists or not", async () => {
    const parent = temporaryDirectory();
    const configPath = join(parent, "missing.json");
    const owner = await acquire({ stateDir: join(parent, "a"), configPath, port: 0 });
    writeFileSync(configPath, "{}");
    expect(await refusalOf({ stateDir: join(parent, "b"), configPath, port: await freePort() })).toMatchObject({
      code: "ALREADY_LISTENING",
      port: owner.port,
      lockPath: owner.lockPaths[1],
    });
  });
});

describe("lockDir", () => {
  it("takes all lock files, and tells resources apart by their real paths", async () => {
    const parent = temporaryDirectory();
    const lockDir = join(parent, "run");
    const stateDir = join(parent, "a");
    const owner = await acquire({ stateDir, lockDir, port: 0 });
    expect(owner.lockPaths.map(dirname)).toEqual([lockDir, lockDir]);
    expect(basename(owner.lockPaths[0] ?? "")).toMatch(/^gateway\.state\.[0-9a-f]{8}\.lock$/);
    expect(basename(owner.lockPaths[1] ?? "")).toMatch(/^gateway\.[0-9a-f]{8}\.lock$/);
    expect(existsSync(join(stateDir, "locks"))).toEqual(false);
    symlinkSync(stateDir, join(parent, "link"));
    await refusalOf({ stateDir: join(parent, "link"), lockDir, port: await freePort() });
    await acquire({ stateDir: join(parent, "b"), lockDir, port: 0 });
  });

  it("does not let in a rival that does not use it: the state directory itself is locked", async () => {
    const parent = temporaryDirectory();
    const stateDir = join(parent, "a");
    await acquire({ stateDir, lockDir: join(parent, "run"), port: 0 });
    expect(await refusalOf({ stateDir, port: await freePort() })).toMatchObject({ exitCode: 75 });
  });
});

describe("what is deleted under a live owner", () => {
  it("locks/: newcomers on another port are refused at once, and the owner restores its files", async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const owner = await started({ stateDir, port });
    const files = lockFilesIn(stateDir);
    for (let times = 0; times < 3; times++) {
      wipe(join(stateDir, "locks"));
      expect(await refusalOf({ stateDir, port: await freePort() })).toMatchObject({ retryable: true, exitCode: 75 });
      for (const file of files) {
        const path = join(stateDir, "locks", file);
        await expect
          .poll(() => existsSync(path) && decodeRecord(readFileSync(path, "utf8")), { timeout: NOTICED + SLACK })
          .toMatchObject({ kind: "record", record: { pid: owner.pid, port } });
      }
    }
    expect(await refusalOf({ stateDir, port: await freePort() })).toMatchObject({ code: "ALREADY_LISTENING", port });
  });

  it("a lock file that was replaced is restored", async () => {
    const owner = await acquire({ stateDir: temporaryDirectory(), port: 0 });
    const [lockPath = ""] = owner.lockPaths;
    unlinkSync(lockPath);
    writeFileSync(lockPath, "intruder", { mode: 0o600 });
    owner.assertCurrent();
    expect(decodeRecord(readFileSync(lockPath, "utf8"))).toMatchObject({ record: { ownerId: owner.owner.ownerId } });
    expect(owner.lost.aborted).toEqual(false);
  });

  for (const [what, take] of [
    ["renamed", (path: string) => renameSync(path, `${path}-moved`)],
    ["deleted", (path: string) => rmSync(path, { recursive: true })],
    [
      "replaced",
      (path: string) => {
        renameSync(path, `${path}-moved`);
        mkdirSync(path, { mode: 0o700 });
      },
    ],
  ] as const) {
    it(`the state directory, ${what}: the owner is told within a second`, async () => {
      const stateDir = join(temporaryDirectory(), "state");
      const owner = await acquire({ stateDir, port: 0 });
      take(stateDir);
      const began = performance.now();
      const reason = await lossOf(owner);
      expect(performance.now() - began).toBeLessThan(NOTICED + SLACK);
      expect(reason).toMatchObject({ name: "GatewayLockError", code: "LOCK_LOST", retryable: false, exitCode: 1 });
      expect((reason as Error).message).toMatch(/^the gateway lock at .* was lost: /);
      expect(() => owner.assertCurrent()).toThrow(expect.objectContaining({ code: "LOCK_LOST" }));
    });
  }

  it("the lock of a config outside the state directory: the owner is told", async () => {
    const parent = temporaryDirectory();
    const owner = await acquire({ stateDir: join(parent, "s"), configPath: join(parent, "etc", "c.json"), port: 0 });
    expect(owner.lockPaths[1]).toContain(join(parent, "etc", "locks"));
    unlinkSync(owner.lockPaths[1] ?? "");
    expect(() => owner.assertCurrent()).toThrow(
      `the gateway lock at ${owner.lockPaths[1]} was lost: it was deleted or renamed`,
    );
    expect(await lossOf(owner)).toMatchObject({ code: "LOCK_LOST", lockPath: owner.lockPaths[1] });
  });

  it("leaves a new owner's files alone when the one that lost them closes", async () => {
    const stateDir = join(temporaryDirectory(), "state");
    const old = await acquire({ stateDir, port: 0 });
    renameSync(stateDir, `${stateDir}-moved`);
    const successor = await acquire({ stateDir, port: 0 });
    await old.close();
    expect(realpathSync(stateDir)).toBe(stateDir);
    successor.assertCurrent();
    expect(lockFilesIn(stateDir)).toHaveLength(2);
  });
});
