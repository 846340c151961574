// Proves that where a lock lies follows from the resource alone, so that all who could harm it meet at one file.

import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { expect } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { readOwner } from "../../lib/lock/record.ts";
import { locateResources, resolveResources } from "../../lib/lock/resources.ts";
import { type GatewayOptions, resolveGatewayOptions } from "../../lib/options.ts";
import { hasFlockCommand, isLinux, itWhere } from "../support/capabilities.ts";
import { flockCommandGets } from "../support/locks.ts";
import { acquire, filesIn, hash, hashedLock, refusal, STATE_LOCK } from "../support/resources.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux, "needs Linux");
const itWithFlock = itWhere(hasFlockCommand, "needs flock(1)");

function pathsOf(options: GatewayOptions): string[] {
  return resolveResources(resolveGatewayOptions(options)).map(({ lockPath }) => lockPath);
}

it("puts the state lock and that of the default config into `locks` of the state directory, state first", async () => {
  const stateDir = join(temporaryDirectory(), "state");
  const gateway = await acquire({ stateDir });
  const locks = join(stateDir, "locks");

  expect(gateway.lockPaths).toEqual([join(locks, STATE_LOCK), join(locks, hashedLock("gateway.json"))]);
  expect(gateway.owner).toMatchObject({
    stateDir,
    configPath: join(stateDir, "gateway.json"),
    configLock: "exclusive",
  });
  expect([stateDir, locks].map((path) => lstatSync(path).mode & 0o777)).toEqual([0o700, 0o700]);
  expect(gateway.lockPaths.map((path) => lstatSync(path).mode & 0o777)).toEqual([0o600, 0o600]);
  expect(filesIn(stateDir)).toEqual([basename(gateway.lockPaths[1] ?? ""), STATE_LOCK]);
  await gateway.close();
  expect(filesIn(stateDir)).toEqual([]);
});

it("puts the lock of a config elsewhere beside that config, also deeper in the state directory", async () => {
  const [stateDir, outside] = [temporaryDirectory(), temporaryDirectory()];
  for (const directory of [outside, join(stateDir, "deeper")]) {
    const gateway = await acquire({ stateDir, configPath: join(directory, "my.json") });
    expect(gateway.lockPaths).toEqual([
      join(stateDir, "locks", STATE_LOCK),
      join(directory, "locks", hashedLock("my.json")),
    ]);
    await gateway.close();
  }
});

it("puts all locks into `lockDir`, by hashes of real paths, and nothing elsewhere", async () => {
  const base = temporaryDirectory();
  const paths = ["state", "lockDir", "config", "workspace"].map((name) => join(base, name));
  const [stateDir = "", lockDir = "", config = "", workspace = ""] = paths;
  const file = join(base, "file");
  mkdirSync(workspace);
  writeFileSync(file, "");
  symlinkSync(lockDir, join(base, "link"));
  mkdirSync(lockDir);
  const configPath = join(config, "my.json");
  const gateway = await acquire({ stateDir, configPath, lockDir: join(base, "link"), locks: [workspace, file] });

  expect(gateway.lockPaths).toEqual(
    [
      `gateway.state.${hash(stateDir)}.lock`,
      hashedLock(configPath),
      hashedLock(file),
      `gateway.state.${hash(workspace)}.lock`,
    ].map((name) => join(lockDir, name)),
  );
  expect(filesIn(lockDir)).toHaveLength(4);
  expect([stateDir, config, workspace].flatMap(filesIn)).toEqual([]);
  expect(readdirSync(base)).toEqual(["config", "file", "link", "lockDir", "state", "workspace"]);
});

it("locks further resources after state and config, sorted by real path, however they were given", async () => {
  const base = temporaryDirectory();
  const [stateDir, one, two, three] = [join(base, "z"), join(base, "1"), join(base, "2"), join(base, "3")];
  for (const directory of [one, three]) mkdirSync(directory);
  writeFileSync(two, "");
  symlinkSync(one, join(base, "y"));
  const expected = [
    join(stateDir, "locks", STATE_LOCK),
    join(stateDir, "locks", hashedLock("gateway.json")),
    join(one, "locks", STATE_LOCK),
    join(base, "locks", hashedLock("2")),
    join(three, "locks", STATE_LOCK),
  ];
  for (const locks of [
    [three, two, join(base, "y")],
    [join(base, "y"), three, two],
  ]) {
    const gateway = await acquire({ stateDir, locks });
    expect(gateway.lockPaths).toEqual(expected);
    expect(expected.map((path) => readOwner(path).record?.ownerId)).toEqual(expected.map(() => gateway.owner.ownerId));
    await gateway.close();
  }
});

it("takes the same resource twice for one lock, by whatever path", async () => {
  const base = temporaryDirectory();
  const [stateDir, workspace] = [join(base, "state"), join(base, "workspace")];
  for (const directory of [stateDir, workspace]) mkdirSync(directory);
  const configPath = join(stateDir, "gateway.json");
  writeFileSync(configPath, "{}");
  symlinkSync(stateDir, join(base, "link"));
  symlinkSync(configPath, join(base, "config"));
  const once = pathsOf({ stateDir, locks: [workspace] });
  const twice: GatewayOptions = {
    stateDir: `${join(base, "link")}/`,
    configPath: join(base, "config"),
    locks: [workspace, stateDir, configPath, join(base, "link"), `${workspace}/../workspace`, join(base, "config")],
  };

  expect(once).toHaveLength(3);
  expect(pathsOf(twice)).toEqual(once);
  expect((await acquire(twice)).lockPaths).toEqual(once);
  expect(pathsOf({ ...twice, lockDir: base })).toHaveLength(3);
});

it("leads every path to one config to the same lock, whether the config is there or not", () => {
  const base = temporaryDirectory();
  const [stateDir, real] = [join(base, "state"), join(base, "real")];
  mkdirSync(real);
  symlinkSync(real, join(base, "directory-link"));
  symlinkSync("real/my.json", join(base, "config-link"));
  symlinkSync("config-link", join(base, "second-link"));
  const ways = ["real/my.json", "directory-link/my.json", "config-link", "second-link"].map((way) => join(base, way));
  const locksOf = () => ways.map((configPath) => pathsOf({ stateDir, configPath })[1]);
  const one = join(real, "locks", hashedLock("my.json"));

  expect(locksOf(), "dangling").toEqual(ways.map(() => one));
  writeFileSync(join(real, "my.json"), "{}");
  expect(locksOf(), "there").toEqual(ways.map(() => one));
});

it("gives configs that differ in case only different locks, where the directory tells them apart", () => {
  const base = temporaryDirectory();
  const path = (name: string) => pathsOf({ stateDir: join(base, "state"), configPath: join(base, name) })[1];
  const answers = [path("My.json"), path("my.json")];
  writeFileSync(join(base, "My.json"), "{}");
  expect([path("My.json"), path("my.json")]).toEqual(answers);
  writeFileSync(join(base, "my.json"), "{}");
  expect([path("My.json"), path("my.json")]).toEqual(answers);
  expect(answers).toEqual(["My.json", "my.json"].map((name) => join(base, "locks", hashedLock(name))));
});

it("leads to the same lock after a hard link with another case was made beside the config", () => {
  const base = temporaryDirectory();
  const options = { stateDir: join(base, "state"), configPath: join(base, "My.json") };
  writeFileSync(options.configPath, "{}");
  const before = pathsOf(options);
  for (const name of ["MY.JSON", "my.json"]) linkSync(options.configPath, join(base, name));

  expect(pathsOf(options)).toEqual(before);
});

it("makes the missing directory of a config, and not the config", async () => {
  const base = temporaryDirectory();
  const configPath = join(base, "missing", "too", "my.json");
  const gateway = await acquire({ stateDir: join(base, "state"), configPath });
  expect(gateway.lockPaths[1]).toBe(join(dirname(configPath), "locks", hashedLock("my.json")));
  expect(existsSync(configPath)).toEqual(false);
  expect(lstatSync(dirname(configPath)).mode & 0o777).toBe(0o700);
});

itWithFlock("locks a directory itself too, before its lock file, and not that of a file", async () => {
  const [stateDir, workspace, outside] = [temporaryDirectory(), temporaryDirectory(), temporaryDirectory()];
  const gateway = await acquire({ stateDir, configPath: join(outside, "my.json"), locks: [workspace] });
  const seen = () => [stateDir, workspace, outside].map(flockCommandGets);
  expect(seen()).toEqual(["refused", "refused", "granted"]);
  await gateway.close();
  expect(seen()).toEqual(["granted", "granted", "granted"]);
});

it("refuses what is no such resource, in clear words, and leaves nothing", async () => {
  const base = temporaryDirectory();
  const [file, directory, socketless] = [join(base, "file"), join(base, "directory"), join(base, "loop")];
  writeFileSync(file, "mine");
  mkdirSync(directory);
  symlinkSync(socketless, socketless);
  const stateDir = join(base, "state");
  const failures: [options: GatewayOptions, path: string, message: RegExp][] = [
    [{ stateDir: file }, file, /EEXIST|not a directory/],
    [{ stateDir: join(file, "below") }, join(file, "below"), /ENOTDIR/],
    [{ stateDir: socketless }, socketless, /ELOOP|EEXIST/],
    [{ stateDir, configPath: directory }, directory, /directory/],
    [{ stateDir, configPath: socketless }, socketless, /ELOOP|too many symbolic links/],
    [{ stateDir, locks: [join(base, "missing")] }, join(base, "missing"), /ENOENT.*create it first/],
    [{ stateDir, locks: ["/dev/null"] }, "/dev/null", /neither a file nor a directory/],
    [{ stateDir, lockDir: file }, file, /EEXIST|not a directory/],
  ];
  for (const [options, lockPath, message] of failures) {
    const words = expect.stringMatching(new RegExp(`^failed to acquire gateway lock at \\S+: .*(${message.source})`));
    expect(await refusal(options)).toMatchObject({ code: "LOCK_FAILED", lockPath, message: words, exitCode: 1 });
  }
  expect(filesIn(base)).toEqual(["file", "loop"]);
  expect(readFileSync(file, "utf8")).toBe("mine");
});

it("refuses `locks` that is a symbolic link or a file, and leaves it and its target untouched", async () => {
  const elsewhere = temporaryDirectory();
  const cases: [make: (path: string) => void, message: string][] = [
    [(path) => symlinkSync(elsewhere, path), "is a symbolic link"],
    [(path) => symlinkSync(join(elsewhere, "nothing"), path), "is a symbolic link"],
    [(path) => writeFileSync(path, ""), "is not a directory"],
  ];
  for (const [make, message] of cases) {
    const stateDir = temporaryDirectory();
    make(join(stateDir, "locks"));
    expect(await refusal({ stateDir })).toMatchObject({
      code: "LOCK_FAILED",
      lockPath: join(stateDir, "locks", STATE_LOCK),
      message: expect.stringContaining(message),
    });
    expect(readdirSync(stateDir)).toEqual(["locks"]);
  }
  expect(readdirSync(elsewhere)).toEqual([]);
});

/** All that is there, and when it was last changed. */
function changesIn(directory: string): string[] {
  return [".", ...readdirSync(directory, { recursive: true, encoding: "utf8" })].sort().map((name) => {
    const { mtimeNs, ctimeNs } = lstatSync(join(directory, name), { bigint: true });
    return `${name} ${mtimeNs} ${ctimeNs}`;
  });
}

it("tells somebody who only looks the same paths, and makes nothing, whatever is there and whatever is missing", async () => {
  const base = temporaryDirectory();
  const [state, workspace] = [join(base, "state"), join(base, "workspace")];
  for (const directory of [workspace, join(base, "real")]) mkdirSync(directory);
  writeFileSync(join(base, "file"), "");
  symlinkSync("real/my.json", join(base, "dangling"));
  symlinkSync("real", join(base, "link"));
  const layouts: GatewayOptions[] = [
    { stateDir: state },
    { stateDir: join(base, "link", "below", "state") },
    { stateDir: state, configPath: join(base, "missing", "My.json") },
    { stateDir: state, configPath: join(base, "dangling"), locks: [workspace, join(base, "file"), join(base, "link")] },
    { stateDir: state, lockDir: join(base, "missing-locks"), locks: [workspace, workspace] },
    { stateDir: join(base, "link"), configPath: join(base, "link", "Any.json"), lockDir: join(base, "link") },
  ];
  for (const options of layouts) {
    const before = changesIn(base);
    const located = locateResources(resolveGatewayOptions(options));
    expect(changesIn(base)).toEqual(before);
    expect(located).toEqual(resolveResources(resolveGatewayOptions(options)));
    const gateway = await acquire(options);
    expect(locateResources(resolveGatewayOptions(options))).toEqual(located);
    await gateway.close();
  }
});

it("gives somebody who only looks paths even where no gateway could be", () => {
  const base = temporaryDirectory();
  const [file, loop] = [join(base, "file"), join(base, "loop")];
  writeFileSync(file, "");
  symlinkSync(loop, loop);
  const locate = (options: GatewayOptions) =>
    locateResources(resolveGatewayOptions(options)).map(({ lockPath }) => lockPath);

  expect(locate({ stateDir: join(file, "below") })[0]).toBe(join(file, "below", "locks", STATE_LOCK));
  expect(locate({ stateDir: loop, configPath: loop })).toHaveLength(2);
  expect(locate({ stateDir: base, configPath: base, locks: [join(base, "missing"), "/dev/null"] })).toHaveLength(4);
});

it("ends where no directory can be made, whatever is made above it", async () => {
  // The kernel says ENOENT there for every mkdir; Node's own recursive one never comes back.
  for (const stateDir of ["/proc/gateway", "/proc/gateway/deep/down"])
    await expect(acquireGateway({ stateDir, port: 0 })).rejects.toMatchObject({
      code: "LOCK_FAILED",
      cause: { code: "ENOENT" },
    });
});

it("reads a path as the kernel does: `..` behind a link leads to where the link leads", async () => {
  const root = temporaryDirectory();
  mkdirSync(join(root, "real/sub"), { recursive: true });
  symlinkSync("real/sub", join(root, "link"));
  writeFileSync(join(root, "real/app.json"), "{}");
  symlinkSync("../link/../new.json", join(root, "real/dangling.json"));
  for (const [configPath, real] of [
    ["link/../app.json", "real/app.json"],
    ["link/../made/app.json", "real/made/app.json"],
    ["real/dangling.json", "real/new.json"],
  ] as const) {
    const gateway = await acquireGateway({
      stateDir: join(root, "state"),
      configPath: `${root}/${configPath}`,
      port: 0,
    });
    expect(gateway.owner.configPath).toBe(join(root, real));
    await gateway.close();
  }
});
