// The profiles that a user has are those whose directories are there, with the ports that their gateways had.

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { findProfiles } from "../../lib/profile/find.ts";
import { checkIsolation } from "../../lib/profile/isolation.ts";
import { resolveProfile } from "../../lib/profile/profile.ts";
import { acquire, recordOf } from "../support/gateways.ts";
import { STATE_LOCK } from "../support/resources.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const env = { OPENCLAW_STATE_DIR: "/elsewhere", OPENCLAW_GATEWAY_PORT: "1", OPENCLAW_PROFILE: "x" };

it("finds directories, the default profile's first, and nothing else", () => {
  const home = temporaryDirectory();
  expect(findProfiles({ home, env })).toEqual([]);
  for (const name of [
    ".openclaw-work",
    ".openclaw",
    ".openclaw-a",
    ".openclaw-..",
    ".openclaw-",
    ".other",
    ".openclawx",
    "openclaw-b",
  ])
    mkdirSync(join(home, name));
  writeFileSync(join(home, ".openclaw-file"), "");
  symlinkSync("nowhere", join(home, ".openclaw-dangling"));
  const found = findProfiles({ home, env });
  expect(found.map(({ profile }) => profile)).toEqual([null, "a", "work"]);
  expect(found[1]).toEqual(resolveProfile({ profile: "a", home, env: {}, port: 0 }));
  expect(findProfiles({ app: "other", home }).map(({ stateDir }) => stateDir)).toEqual([join(home, ".other")]);
  expect(findProfiles({ env: { HOME: home } })).toEqual(found);
  expect(findProfiles({ home: join(home, "missing") })).toEqual([]);
});

it("takes port and config from a profile's record, whatever stands in it", async () => {
  const home = temporaryDirectory();
  const { options } = resolveProfile({ profile: "work", home, env: {}, port: await freePort() });
  await acquire({ ...options, configPath: join(home, "my.json") });
  expect(findProfiles({ home })).toMatchObject([
    { profile: "work", port: options.port, configPath: join(home, "my.json") },
  ]);

  for (const configPath of ["", "a\0b", "~", "~/x"]) {
    const lock = join(home, ".openclaw-odd/locks", STATE_LOCK);
    mkdirSync(join(home, ".openclaw-odd/locks"), { recursive: true });
    writeFileSync(lock, recordOf({ pid: 1, port: 20_000, configPath }));
    expect(() => checkIsolation(findProfiles({ home }))).not.toThrow();
  }
});

it("finds profiles that are one", () => {
  const home = temporaryDirectory();
  mkdirSync(join(home, ".openclaw"));
  symlinkSync(".openclaw", join(home, ".openclaw-copy"));
  expect(checkIsolation(findProfiles({ home })).map(({ kind }) => kind)).toEqual(["config", "state", "workspace"]);
});
