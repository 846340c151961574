// Where a profile lies follows from the user's home directory, and two spellings of one place are one place.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { checkIsolation, resolveProfile } from "gateway-lock";
import { assertDuplicate, freePort, isWindows, refusalOf, scenario } from "./scenes.mjs";

const home = isWindows ? "C:\\Users\\me" : "/home/me";
const HOME = isWindows ? "USERPROFILE" : "HOME";

scenario("it lies in the home directory that the environment names, else in the system's", {}, () => {
  assert.equal(resolveProfile({ env: { [HOME]: home } }).stateDir, join(home, ".openclaw"));
  assert.equal(resolveProfile({ env: {} }).stateDir, join(homedir(), ".openclaw"));
  // Git Bash and the like set HOME on Windows, in a spelling of their own.
  if (isWindows)
    assert.equal(resolveProfile({ env: { HOME: "/c/x", USERPROFILE: home } }).stateDir, join(home, ".openclaw"));
  const { stateDir, configPath, workspace } = resolveProfile({ profile: "rescue", home, env: {} });
  assert.deepEqual(
    [stateDir, configPath, workspace],
    [".openclaw-rescue", ".openclaw-rescue/openclaw.json", ".openclaw-rescue/workspace"].map((path) =>
      join(home, path),
    ),
  );
});

scenario("paths may begin with the places that this system has names for", {}, () => {
  const at = (path, env = {}) => resolveProfile({ home, stateDir: path, env }).stateDir;
  assert.equal(at("~"), home);
  assert.equal(at(join("~", "x")), join(home, "x"));
  const [variable, other, usual] = isWindows
    ? ["%LOCALAPPDATA%", "%localappdata%", join(home, "AppData", "Local", "x")]
    : ["$XDG_STATE_HOME", "$XDG_STATE_HOME", join(home, ".local", "state", "x")];
  const elsewhere = resolve("/elsewhere");
  assert.equal(at(join(variable, "x")), usual);
  assert.equal(at(join(other, "x"), { LOCALAPPDATA: elsewhere, XDG_STATE_HOME: elsewhere }), join(elsewhere, "x"));
});

scenario("the case of a variable's name counts where the system says so", {}, () => {
  const { port } = resolveProfile({ home, env: { OpenClaw_Gateway_Port: "20000" } });
  assert.equal(port, isWindows ? 20000 : 18789);
});

scenario(
  "spellings of one state directory or config are one, also in another case where that does not count",
  {},
  async (scene) => {
    const root = scene.directory();
    mkdirSync(join(root, "State"));
    mkdirSync(join(root, "Etc"));
    const ignoresCase = existsSync(join(root, "sTATE"));
    const near = ["State/", "./State/../State", ...(ignoresCase ? ["STATE", "state"] : [])];
    const first = { stateDir: join(root, "State"), configPath: join(root, "Etc", "My.json"), port: await freePort() };
    const others = [
      ...near.map((spelling) => [{ stateDir: `${root}/${spelling}` }, "state"]),
      ...["Etc/./My.json", ...(ignoresCase ? ["ETC/MY.JSON", "etc/my.json"] : [])].map((spelling) => [
        { stateDir: join(root, "other"), configPath: `${root}/${spelling}` },
        "config",
      ]),
    ];
    const predicted = (options) => checkIsolation([first, { port: 0, ...options }]).map(({ kind }) => kind);
    for (const [options, kind] of others) assert.deepEqual(predicted(options), [kind]);
    await scene.acquire(first);
    for (const [options, kind] of others) {
      const error = await refusalOf(async () => scene.acquire({ ...options, port: await freePort() }));
      assertDuplicate(error);
      assert.equal(error.resource.role, kind);
      assert.deepEqual(predicted(options), [kind]);
    }
    const apart = {
      stateDir: join(root, "other"),
      configPath: join(root, "Etc", ignoresCase ? "Your.json" : "MY.json"),
    };
    assert.deepEqual(predicted(apart), []);
    await scene.acquire({ ...apart, port: await freePort() });
  },
);
