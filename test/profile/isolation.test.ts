// Two gateways that would share something are told apart from two that would not, whatever their paths look like.

import { type SpawnOptions, spawnSync } from "node:child_process";
import { chmodSync, linkSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { checkIsolation, type IsolationFinding, type ProfileInstance } from "../../lib/profile/isolation.ts";
import { resolveProfile } from "../../lib/profile/profile.ts";
import { canUnshareMount, hasIPv6, itWhere } from "../support/capabilities.ts";
import { asOtherUser, canRunAsOtherUser } from "../support/locks.ts";
import { temporaryDirectory } from "../support/temporary.ts";

const home = "/nobody/is/here";
const profile = (name: string, port?: number) => resolveProfile({ profile: name, port, home, env: {} });
const main = resolveProfile({ home, env: {} });
const kinds = (findings: readonly IsolationFinding[]) => findings.map(({ level, kind }) => `${level} ${kind}`);
const between = (a: ProfileInstance, b: ProfileInstance) => kinds(checkIsolation([a, b]));

it("profiles with names of their own are isolated", () => {
  expect(checkIsolation([main, profile("rescue"), profile("work")])).toEqual([]);
  expect(checkIsolation([])).toEqual([]);
  expect(checkIsolation([main])).toEqual([]);
});

it("says who shares what, in words and as data", () => {
  const rescue = { ...profile("rescue"), configPath: main.configPath };
  expect(checkIsolation([main, rescue])).toEqual([
    {
      level: "error",
      kind: "config",
      instances: [main, rescue],
      detail: "the default profile and profile 'rescue' have one config: /nobody/is/here/.openclaw/openclaw.json",
    },
  ]);
});

it("compares each two", () => {
  const [a, b, c] = [profile("a", 20000), profile("b", 21000), profile("c", 20000)];
  const [finding, ...others] = checkIsolation([a, b, c]);
  expect(others).toEqual([]);
  expect(finding).toMatchObject({ kind: "port", detail: "profile 'a' and profile 'c' have one port: 20000" });
  expect(finding?.instances[0]).toBe(a);
  expect(finding?.instances[1]).toBe(c);
});

it("the same one twice shares everything", () => {
  expect(between(main, main)).toEqual(["error config", "error state", "error workspace", "error port"]);
});

it.each([
  [0, ["error port"]],
  [1, ["error spacing"]],
  [19, ["error spacing"]],
  [20, ["warning spacing"]],
  [119, ["warning spacing"]],
  [120, []],
])("ports that are %i apart: %j", (distance, expected) => {
  expect(between(profile("a", 20000), profile("b", 20000 + distance))).toEqual(expected);
  expect(between(profile("a", 20000 + distance), profile("b", 20000))).toEqual(expected);
});

it("a port of the kernel's choice is in nobody's way", () => {
  expect(between(profile("a", 0), profile("b", 0))).toEqual([]);
  expect(between(profile("a", 0), profile("b", 10))).toEqual([]);
});

it("derived ports meet only where both claim them", () => {
  const [a, b] = [profile("a", 20000), profile("b", 20060)];
  const reserve = [20002, 20011, 20012, 20013, 20060];
  expect(between(a, b)).toEqual(["warning spacing"]);
  expect(between({ ...a, reserve: [20012] }, { ...b, reserve: [20062] })).toEqual(["warning spacing"]);
  const claimed = checkIsolation([
    { ...a, reserve },
    { ...b, reserve: [20011, 20012, 20099] },
  ]);
  expect(kinds(claimed)).toEqual(["error derived", "warning spacing"]);
  expect(claimed[0]?.detail).toBe("profile 'a' and profile 'b' both claim ports 20011-20012, 20060");
  // As acquireGateway would be given them.
  const options = { ...b.options, reserve: [20000] };
  expect(between(a, { ...b, options })).toEqual(["error derived", "warning spacing"]);
  expect(between(a, options)).toEqual(["error derived", "warning spacing"]);
});

it("the options of acquireGateway are instances too, with its defaults", () => {
  const root = temporaryDirectory();
  expect(between({ stateDir: root }, { stateDir: join(root, "b"), configPath: join(root, "gateway.json") })).toEqual([
    "error config",
    "error port",
  ]);
});

it("one's workspace that is another's state directory is shared", () => {
  const [a, b] = [profile("a"), profile("b")];
  expect(checkIsolation([a, { ...b, workspace: a.stateDir }]).map(({ detail }) => detail)).toEqual([
    `the workspace of profile 'b' is the state directory of profile 'a': ${a.stateDir}`,
  ]);
});

/** How `one` and `other` compare as state directories, as workspaces, and as configs in them that do not exist. */
function isOne(one: string, other: string): boolean {
  const instance = (path: string, port: number) => ({
    stateDir: path,
    workspace: path,
    configPath: join(path, "config"),
    port,
  });
  const findings = between(instance(one, 1000), instance(other, 2000));
  expect([[], ["error config", "error state"]]).toContainEqual(findings); // a workspace that is its own state directory is no second place
  return findings.length > 0;
}

it("paths are compared by what they lead to", () => {
  const root = temporaryDirectory();
  mkdirSync(join(root, "dir/sub"), { recursive: true });
  symlinkSync("dir", join(root, "link"));
  symlinkSync(join(root, "absent"), join(root, "dangling"));
  symlinkSync("loop", join(root, "loop"));
  const at = (path: string) => `${root}/${path}`;
  const same: [string, string][] = [
    ["dir", "dir"],
    ["dir", "dir/"],
    ["dir", "./dir/."],
    ["dir", "dir/sub/.."],
    ["dir", "link"],
    ["dir/sub", "link/sub"],
    ["dir/new", "link/new"],
    ["dir/new/deep", "link/new/deep/"],
    ["absent", "dangling"],
    ["absent/x", "dangling/x"],
    ["new", "missing/../new"],
    ["loop", "loop"],
  ];
  for (const [one, other] of same) expect(isOne(at(one), at(other)), `${one} and ${other}`).toBe(true);
  const different: [string, string][] = [
    ["dir", "dir/sub"],
    ["dir/new", "new"],
    ["dir", "DIR"],
    ["new", "NEW"],
    ["dangling", "link"],
  ];
  for (const [one, other] of different) expect(isOne(at(one), at(other)), `${one} and ${other}`).toBe(false);
  expect(readdirSync(root).sort()).toEqual(["dangling", "dir", "link", "loop"]);
  expect(readdirSync(join(root, "dir"))).toEqual(["sub"]);
});

it("a field that is nearly one of ours is a slip", () => {
  const slip = { ...main, reseve: [25509] };
  expect(() => checkIsolation([slip])).toThrow("did you mean 'reserve'?");
  expect(checkIsolation([{ ...main, label: "x" }, profile("rescue")])).toEqual([]);
});

it("ports meet only where the kernel would refuse the second socket", () => {
  const at = (host: string | string[], more: Partial<ProfileInstance> = {}) => ({
    stateDir: `/nobody/${JSON.stringify(host)}`,
    port: 1000,
    host,
    loopbackGuard: false,
    ...more,
  });
  const meets = (a: string | string[], b: string | string[], more: Partial<ProfileInstance> = {}) =>
    kinds(checkIsolation([at(a, more), at(b, { ...more, stateDir: "/nobody/else" })])).includes("error port");
  for (const [a, b] of [
    ["127.0.0.1", "127.0.0.1"],
    ["127.0.0.1", "0.0.0.0"],
    ["127.0.0.1", "::"],
    ["0.0.0.0", "::"],
    ["::1", "::"],
    ["::1", "0:0:0:0:0:0:0:1"],
    ["::%1", "::1"],
    ["127.0.0.1", "::ffff:127.0.0.1"],
    ["fe80::1%eth0", "fe80::1%eth0"],
  ] as const)
    expect([a, b, meets(a, b), meets(b, a)]).toEqual([a, b, true, true]);
  for (const [a, b] of [
    ["127.0.0.1", "127.0.0.2"],
    ["127.0.0.1", "192.0.2.1"],
    ["127.0.0.1", "::1"],
    ["0.0.0.0", "::1"],
    ["fe80::1%eth0", "fe80::1%eth1"],
  ] as const)
    expect([a, b, meets(a, b), meets(b, a)]).toEqual([a, b, false, false]);
  // Both keep rivals off the other loopback, where there is one.
  expect(meets("127.0.0.1", "127.0.0.2", { loopbackGuard: true })).toBe(hasIPv6);
});

it("with one lockDir, a config is told apart by its real path, which a mount changes: that is told", () => {
  const root = temporaryDirectory();
  mkdirSync(join(root, "run"));
  writeFileSync(join(root, "a.json"), "{}");
  const at = (lockDir: string, port: number) => ({
    stateDir: join(root, `${port}`),
    configPath: join(root, "a.json"),
    lockDir: join(root, lockDir),
    port,
  });
  const [shared] = checkIsolation([at("run", 1000), at("run", 2000)]);
  expect(shared?.detail).not.toContain("lock of its own");
  const [apart] = checkIsolation([at("run", 1000), at("other", 2000)]);
  expect(apart?.detail).toContain("each of them has a lock of its own there");
});

itWhere(canRunAsOtherUser, "needs root, and a checkout that others may read")(
  "a config whose directory this user can't write is shared, and each one's lock lies elsewhere: that is told",
  () => {
    const root = temporaryDirectory();
    chmodSync(root, 0o755);
    mkdirSync(join(root, "etc"));
    writeFileSync(join(root, "etc/app.json"), "{}");
    const program = `const { checkIsolation } = await import(${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)});
      const at = (port) => ({ stateDir: "/nobody/" + port, configPath: ${JSON.stringify(join(root, "etc/app.json"))}, port });
      console.log(checkIsolation([at(1000), at(2000)]).map(({ kind, detail }) => kind + ": " + detail).join());`;
    const detailFor = (options: SpawnOptions) =>
      spawnSync(process.execPath, ["--input-type=module", "-e", program], { ...options, encoding: "utf8" }).stdout;
    expect(detailFor({})).toMatch(/^config: .*etc\/app\.json\n$/);
    expect(detailFor(asOtherUser)).toMatch(/^config: .*etc\/app\.json; each of them has a lock of its own there\n$/);
  },
);

it("two names of one config are one", () => {
  const root = temporaryDirectory();
  writeFileSync(join(root, "a.json"), "{}");
  linkSync(join(root, "a.json"), join(root, "b.json"));
  expect(
    between(
      { stateDir: join(root, "a"), configPath: join(root, "a.json"), port: 1000 },
      { stateDir: join(root, "b"), configPath: join(root, "b.json"), port: 2000 },
    ),
  ).toEqual(["error config"]);
  // A lock goes by the name: the kernel does not keep them apart, and that is told.
  const [finding] = checkIsolation(
    ["a", "b"].map((name) => ({ stateDir: join(root, name), configPath: join(root, `${name}.json`), port: 0 })),
  );
  expect(finding?.detail).toMatch(/each of them has a lock of its own there$/);
});

/** What `checkIsolation` finds in a mount namespace that a shell script has prepared. */
function inNamespace(script: string, directory: string): string[] {
  const module = new URL("../../dist/profile/isolation.js", import.meta.url).href;
  const program = `import { checkIsolation } from "${module}"; import { join } from "node:path";
    const at = (path, port) => ({ stateDir: join(path, "new"), configPath: join(path, "new.json"), port });
    const [a, b] = process.argv.slice(1);
    console.log(JSON.stringify(checkIsolation([at(a, 1000), at(b, 2000)]).map(({ kind }) => kind)));`;
  const shell = `set -e; ${script}; exec "$NODE" --input-type=module -e "$PROGRAM" "$DIRECTORY/a" "$DIRECTORY/b"`;
  const { stdout, stderr } = spawnSync("unshare", ["--user", "--map-root-user", "--mount", "sh", "-c", shell], {
    env: { ...process.env, NODE: process.execPath, PROGRAM: program, DIRECTORY: directory },
    encoding: "utf8",
  });
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout);
}

itWhere(canUnshareMount, "needs mount namespaces")("a bind mount is what it shows", () => {
  const directory = temporaryDirectory();
  for (const name of ["a", "b"]) mkdirSync(join(directory, name));
  expect(inNamespace("true", directory)).toEqual([]);
  expect(inNamespace('mount --bind "$DIRECTORY/a" "$DIRECTORY/b"', directory)).toEqual(["config", "state"]);
});

it.each<[unknown, string]>([
  [undefined, "ERR_INVALID_ARG_TYPE"],
  [[null], "ERR_INVALID_ARG_TYPE"],
  [[{}], "ERR_INVALID_ARG_TYPE"],
  [[{ stateDir: "" }], "ERR_INVALID_ARG_VALUE"],
  [[{ stateDir: "/x", port: 65536 }], "ERR_SOCKET_BAD_PORT"],
  [[{ stateDir: "/x", reserve: [0] }], "ERR_SOCKET_BAD_PORT"],
])("refuses %o", (instances, code) => {
  expect(() => checkIsolation(instances as ProfileInstance[])).toThrow(expect.objectContaining({ code }));
});
