// Proves that whatever is taken from a live owner is noticed within a second: restored where its directory is locked itself, lost where not.

import { spawnSync } from "node:child_process";
import { mkdirSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Gateway } from "../lib/gateway.ts";
import { readOwner, readRecord } from "../lib/lock/record.ts";
import { itWhere } from "./support/capabilities.ts";
import { acquire, refusalOf } from "./support/gateways.ts";
import { fixturePath, startFixture, TestProcess } from "./support/processes.ts";
import { freePort, temporaryDirectory, wipe } from "./support/temporary.ts";

const NOTICED = 1000; // ms, within which a loss is noticed
const LOOK_AGAIN = { timeout: 5000, interval: 5 }; // ms; only reached when something is wrong

const moved = (path: string) => `${path}-moved`;
const rename = (path: string) => renameSync(path, moved(path));
const replaceFile = (path: string) => {
  rename(path);
  writeFileSync(path, "intruder", { mode: 0o600 });
};
const replaceDirectory = (path: string) => {
  rename(path);
  mkdirSync(path, { mode: 0o700 });
};

/** An owner of everything that there is to take from it, below a directory of its own. */
async function ownerIn(parent: string) {
  const paths = {
    parent: join(parent, "home"),
    stateDir: join(parent, "home", "state"),
    configHome: join(parent, "etc"),
    configDir: join(parent, "etc", "gateway"),
    workspace: join(parent, "work", "space"),
    file: join(parent, "data", "file"),
    inside: join(parent, "home", "state", "inside"),
  };
  for (const path of [paths.stateDir, paths.workspace, dirname(paths.file)])
    mkdirSync(path, { recursive: true, mode: 0o700 });
  for (const path of [paths.file, paths.inside]) writeFileSync(path, "");
  const gateway = await acquire({
    stateDir: paths.stateDir,
    configPath: join(paths.configDir, "config.json"),
    locks: [paths.workspace, paths.file, paths.inside],
    port: 0,
  });
  const inDirectory = (directory: string) => gateway.lockPaths.filter((path) => dirname(dirname(path)) === directory);
  const [stateLock = "", insideLock = ""] = inDirectory(paths.stateDir);
  const [configLock = ""] = inDirectory(paths.configDir);
  const [workspaceLock = ""] = inDirectory(paths.workspace);
  const [fileLock = ""] = inDirectory(dirname(paths.file));
  return { gateway, ...paths, stateLock, insideLock, configLock, workspaceLock, fileLock };
}
type Owner = Awaited<ReturnType<typeof ownerIn>>;

function saysWhoOwnsIt({ owner: { ownerId }, lockPaths }: Gateway): boolean {
  return lockPaths.every((path) => readRecord(path).record?.ownerId === ownerId);
}

function isLocked({ lockPaths }: Gateway): boolean {
  return lockPaths.every((path) => readOwner(path).holders.includes(process.pid));
}

type Taking = readonly [what: string, take: (owner: Owner) => void];

/** Everything is taken from owners of their own, one for each way, so that all of them are waited for at the same time. */
async function takeEach<T>(
  takings: readonly Taking[],
  outcome: (owner: Owner) => Promise<T>,
): Promise<Record<string, T>> {
  const parent = temporaryDirectory();
  const owners = await Promise.all(takings.map((_, index) => ownerIn(join(parent, String(index)))));
  const outcomes = takings.map(async ([what, take], index) => {
    const owner = owners[index] as Owner;
    take(owner);
    return [what, await outcome(owner)] as const;
  });
  return Object.fromEntries(await Promise.all(outcomes));
}

function each<T>(takings: readonly Taking[], outcome: T): Record<string, T> {
  return Object.fromEntries(takings.map(([what]) => [what, outcome]));
}

describe("what lies in a directory that is locked itself", () => {
  const restored: readonly Taking[] = [
    ["the state directory's lock file, deleted", ({ stateLock }) => unlinkSync(stateLock)],
    ["the state directory's lock file, renamed", ({ stateLock }) => rename(stateLock)],
    ["the state directory's lock file, replaced", ({ stateLock }) => replaceFile(stateLock)],
    ["the lock file of a file in the state directory, deleted", ({ insideLock }) => unlinkSync(insideLock)],
    ["the lock file of a file in the state directory, renamed", ({ insideLock }) => rename(insideLock)],
    ["the lock file of a file in the state directory, replaced", ({ insideLock }) => replaceFile(insideLock)],
    ["locks, renamed", ({ stateDir }) => rename(join(stateDir, "locks"))],
    ["locks, replaced by an empty directory", ({ stateDir }) => replaceDirectory(join(stateDir, "locks"))],
    ["the lock file of a directory in locks, deleted", ({ workspaceLock }) => unlinkSync(workspaceLock)],
    ["the lock file of a directory in locks, replaced", ({ workspaceLock }) => replaceFile(workspaceLock)],
    ["locks of a directory in locks, deleted", ({ workspace }) => wipe(join(workspace, "locks"))],
  ];

  it("is restored within a second after it was deleted, renamed or replaced, and rivals are refused meanwhile", async () => {
    const outcomes = await takeEach(restored, async ({ gateway, stateDir, workspace }) => {
      const began = performance.now();
      const refusals = [stateDir, workspace].map((wanted) => refusalOf({ stateDir: wanted, port: 0 }));
      await expect.poll(() => saysWhoOwnsIt(gateway), LOOK_AGAIN).toEqual(true);
      const ms = performance.now() - began;
      const codes = (await Promise.all(refusals)).map(({ exitCode }) => exitCode);
      gateway.assertCurrent();
      return { codes, inTime: ms < NOTICED, ms, locked: isLocked(gateway) };
    });
    show(outcomes);
    expect(outcomes).toEqual(each(restored, { codes: [75, 75], inTime: true, ms: expect.any(Number), locked: true }));
  });

  it("is restored when a passing contender has had it for a moment", async () => {
    const { gateway, insideLock } = await ownerIn(temporaryDirectory());
    unlinkSync(insideLock);
    const passing = startFixture("lock-holder.mjs", { path: insideLock });
    await passing.next("locked");

    passing.send("release-soon");
    await passing.next("done");
    gateway.assertCurrent();

    expect([saysWhoOwnsIt(gateway), isLocked(gateway)]).toEqual([true, true]);
  });

  it("is restored in lockDir too, where its file lies elsewhere, and a file's lock there is lost", async () => {
    const parent = temporaryDirectory();
    const options = { stateDir: join(parent, "state"), lockDir: join(parent, "run"), port: 0 };
    const gateway = await acquire(options);
    const [stateLock = "", configLock = ""] = gateway.lockPaths;
    expect([stateLock, configLock].map(dirname)).toEqual([options.lockDir, options.lockDir]);

    unlinkSync(stateLock);
    gateway.assertCurrent();
    expect([saysWhoOwnsIt(gateway), isLocked(gateway)]).toEqual([true, true]);

    unlinkSync(configLock);
    expect(() => gateway.assertCurrent()).toThrow(expect.objectContaining({ code: "LOCK_LOST", lockPath: configLock }));
  });

  it("is restored at once when the owner asks", async () => {
    const outcomes = await takeEach(restored, async ({ gateway }) => {
      gateway.assertCurrent();
      return { restored: saysWhoOwnsIt(gateway) && isLocked(gateway), lost: gateway.lost.aborted };
    });
    expect(outcomes).toEqual(each(restored, { restored: true, lost: false }));
  });
});

describe("what is not kept by a lock on its directory", () => {
  const lost: readonly Taking[] = [
    [
      "the state directory, replaced by a link to itself",
      ({ stateDir }) => {
        rename(stateDir);
        symlinkSync(moved(stateDir), stateDir);
      },
    ],
    ["its parent, renamed", ({ parent }) => rename(parent)],
    ["its parent, deleted", ({ parent }) => wipe(parent)],
    ["its parent, replaced", ({ parent }) => replaceDirectory(parent)],
    ["locks, replaced by a file", ({ stateDir }) => replaceFile(join(stateDir, "locks"))],
    [
      "locks, replaced by a link to itself",
      ({ stateDir }) => {
        rename(join(stateDir, "locks"));
        symlinkSync("locks-moved", join(stateDir, "locks"));
        unlinkSync(join(stateDir, "locks-moved", "gateway.state.lock"));
      },
    ],
    ["a config's lock file, deleted", ({ configLock }) => unlinkSync(configLock)],
    ["a config's lock file, renamed", ({ configLock }) => rename(configLock)],
    ["a config's lock file, replaced", ({ configLock }) => replaceFile(configLock)],
    ["locks beside a config, renamed", ({ configLock }) => rename(dirname(configLock))],
    ["a config's directory, renamed", ({ configDir }) => rename(configDir)],
    ["a config's directory, deleted", ({ configDir }) => wipe(configDir)],
    ["a config's directory, replaced", ({ configDir }) => replaceDirectory(configDir)],
    ["the parent of a config's directory, renamed", ({ configHome }) => rename(configHome)],
    ["a directory in locks, renamed", ({ workspace }) => rename(workspace)],
    ["a directory in locks, deleted", ({ workspace }) => wipe(workspace)],
    ["the parent of a directory in locks, renamed", ({ workspace }) => rename(dirname(workspace))],
    ["the lock file of a file in locks, deleted", ({ fileLock }) => unlinkSync(fileLock)],
    ["the lock file of a file in locks, replaced", ({ fileLock }) => replaceFile(fileLock)],
    ["the directory of a file in locks, renamed", ({ file }) => rename(dirname(file))],
  ];

  it("is lost within a second after it was deleted, renamed or replaced", async () => {
    const outcomes = await takeEach(lost, async ({ gateway }) => {
      const began = performance.now();
      await expect.poll(() => gateway.lost.aborted, LOOK_AGAIN).toEqual(true);
      const ms = performance.now() - began;
      return { code: gateway.lost.reason.code, inTime: ms < NOTICED, ms };
    });
    show(outcomes);
    expect(outcomes).toEqual(each(lost, { code: "LOCK_LOST", inTime: true, ms: expect.any(Number) }));
  });

  it("is lost at once when the owner asks, and stays lost", async () => {
    const asked = ({ gateway }: Owner) => {
      try {
        gateway.assertCurrent();
        return "current";
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    const outcomes = await takeEach(lost, async (owner) => [asked(owner), owner.gateway.lost.aborted, asked(owner)]);
    expect(outcomes).toEqual(each(lost, ["LOCK_LOST", true, "LOCK_LOST"]));
  });
});

/** A host on which nobody can watch a file any more: each user namespace has a limit of its own. */
const WITHOUT_INOTIFY: readonly string[] = [
  ...["unshare", "--user", "--map-root-user", "sh", "-c"],
  ...['echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"', "sh", process.execPath],
];
function runWithoutInotify(...args: string[]): [command: string, args: string[]] {
  const [command = "", ...rest] = WITHOUT_INOTIFY;
  return [command, [...rest, ...args]];
}
const watching = spawnSync(...runWithoutInotify("-e", "require('node:fs').watch('.')"), { encoding: "utf8" });

itWhere(watching.stderr?.includes("EMFILE"), "inotify can't be used up here")(
  "a host without inotify instances notices just as quickly",
  async () => {
    const parent = temporaryDirectory();
    const options = { stateDir: join(parent, "s"), configPath: join(parent, "etc", "c.json"), port: await freePort() };
    const owner = new TestProcess(...runWithoutInotify(fixturePath("gateway.mjs"), JSON.stringify(options)));
    const [stateLock, configLock] = (await owner.next("acquired")).lockPaths;
    await owner.next("serving");

    let began = performance.now();
    unlinkSync(stateLock);
    await expect.poll(() => readOwner(stateLock).record?.pid, LOOK_AGAIN).toBe(owner.pid);
    expect(performance.now() - began).toBeLessThan(NOTICED);

    began = performance.now();
    unlinkSync(configLock);
    expect(await owner.next("lost")).toMatchObject({ code: "LOCK_LOST" });
    expect(performance.now() - began).toBeLessThan(NOTICED);
  },
);

function show(figures: object): void {
  if (process.env.GATEWAY_LOCK_SHOW_TIMES) console.log(figures);
}

describe("a config in the state directory of another gateway", () => {
  it("is not had by wiping that one's locks: it is given the time to restore them", async () => {
    const stateDir = temporaryDirectory();
    const owner = await acquire({ stateDir, port: 0 });
    wipe(join(stateDir, "locks"));

    const rival = { stateDir: temporaryDirectory(), configPath: join(stateDir, "gateway.json"), port: 0 };
    expect(await refusalOf(rival)).toMatchObject({ exitCode: 75, owner: { ownerId: owner.owner.ownerId } });
    expect(owner.lost.aborted).toBe(false);
    expect([saysWhoOwnsIt(owner), isLocked(owner)]).toEqual([true, true]);
  });

  it("is had when that one has another config, after a second", async () => {
    const stateDir = temporaryDirectory();
    const owner = await acquire({ stateDir, configPath: join(temporaryDirectory(), "gateway.json"), port: 0 });
    const began = performance.now();
    const other = await acquire({
      stateDir: temporaryDirectory(),
      configPath: join(stateDir, "gateway.json"),
      port: 0,
    });
    expect(performance.now() - began).toBeGreaterThan(NOTICED);
    for (const gateway of [owner, other]) gateway.assertCurrent();
  });
});
