// A profile's paths and port follow from its name, and what is said outright wins.

import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { describe, expect, it } from "vitest";
import { derivedPorts, type ProfileOptions, resolveProfile } from "../../lib/profile/profile.ts";
import { acquire } from "../support/gateways.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const home = "/home/me";
const resolved = (options: ProfileOptions) => resolveProfile({ home, env: {}, ...options });

it("without a profile is the usual layout", () => {
  expect(resolved({})).toEqual({
    app: "openclaw",
    profile: null,
    stateDir: "/home/me/.openclaw",
    configPath: "/home/me/.openclaw/openclaw.json",
    port: 18789,
    workspace: "/home/me/.openclaw/workspace",
    derived: { browserControl: 18791, cdp: [18800, 18899] },
    options: { stateDir: "/home/me/.openclaw", configPath: "/home/me/.openclaw/openclaw.json", port: 18789 },
  });
});

it("with a profile has a directory and a port of its own", () => {
  const bits = Number.parseInt(createHash("sha256").update("rescue").digest("hex").slice(0, 8), 16);
  const port = 18789 + 120 * (1 + (bits % 100));
  expect(resolved({ profile: "rescue" })).toEqual({
    app: "openclaw",
    profile: "rescue",
    stateDir: "/home/me/.openclaw-rescue",
    configPath: "/home/me/.openclaw-rescue/openclaw.json",
    port,
    workspace: "/home/me/.openclaw-rescue/workspace",
    derived: { browserControl: port + 2, cdp: [port + 11, port + 110] },
    options: { stateDir: "/home/me/.openclaw-rescue", configPath: "/home/me/.openclaw-rescue/openclaw.json", port },
  });
});

// Worked out with sha256sum(1), so that they stay what they are.
it.each([
  ["rescue", 25509],
  ["work", 29349],
  ["a", 20109],
])("the port of '%s' is and stays %i", (profile, port) => {
  expect(resolved({ profile }).port).toBe(port);
});

describe("precedence", () => {
  it.each<[string, ProfileOptions, object]>([
    [
      "a variable over the default",
      { env: { OPENCLAW_PROFILE: "work" } },
      { profile: "work", stateDir: "/home/me/.openclaw-work" },
    ],
    ["an option over the variable", { profile: "play", env: { OPENCLAW_PROFILE: "work" } }, { profile: "play" }],
    [
      "'default' over the variable: none",
      { profile: "default", env: { OPENCLAW_PROFILE: "work" } },
      { profile: null, port: 18789 },
    ],
    [
      "'Default' is none too",
      { env: { OPENCLAW_PROFILE: "Default" } },
      { profile: null, stateDir: "/home/me/.openclaw" },
    ],
    [
      "an empty variable is none",
      { env: { OPENCLAW_PROFILE: "", OPENCLAW_STATE_DIR: "", OPENCLAW_GATEWAY_PORT: "" } },
      { profile: null, port: 18789 },
    ],
    [
      "a directory in a variable",
      { env: { OPENCLAW_STATE_DIR: "/srv/state" } },
      { stateDir: "/srv/state", configPath: "/srv/state/openclaw.json", workspace: "/srv/state/workspace" },
    ],
    [
      "a directory in a variable, over a profile's",
      { profile: "work", env: { OPENCLAW_STATE_DIR: "/srv/state" } },
      { profile: "work", stateDir: "/srv/state" },
    ],
    [
      "a directory in an option",
      { stateDir: "/opt/state", env: { OPENCLAW_STATE_DIR: "/srv/state" } },
      { stateDir: "/opt/state", configPath: "/opt/state/openclaw.json" },
    ],
    [
      "a config in a variable",
      { env: { OPENCLAW_CONFIG_PATH: "/etc/a.json" } },
      { stateDir: "/home/me/.openclaw", configPath: "/etc/a.json" },
    ],
    [
      "a config in an option",
      { configPath: "/etc/b.json", env: { OPENCLAW_CONFIG_PATH: "/etc/a.json" } },
      { configPath: "/etc/b.json" },
    ],
    [
      "a port in a variable, over a profile's",
      { profile: "work", env: { OPENCLAW_GATEWAY_PORT: "20000" } },
      { port: 20000, derived: { browserControl: 20002, cdp: [20011, 20110] } },
    ],
    ["a port in an option", { port: 20001, env: { OPENCLAW_GATEWAY_PORT: "20000" } }, { port: 20001 }],
    [
      "the variables of another app",
      { app: "my-app.2", env: { MY_APP_2_PROFILE: "x", OPENCLAW_PROFILE: "y" } },
      {
        app: "my-app.2",
        profile: "x",
        stateDir: "/home/me/.my-app.2-x",
        configPath: "/home/me/.my-app.2-x/my-app.2.json",
      },
    ],
    [
      "the home of the environment",
      { home: undefined, env: { HOME: "/home/you" } },
      { stateDir: "/home/you/.openclaw" },
    ],
    ["a home in an option", { env: { HOME: "/home/you" } }, { stateDir: "/home/me/.openclaw" }],
    [
      "the system's home where HOME is empty",
      { home: undefined, env: { HOME: "" } },
      { stateDir: `${homedir()}/.openclaw` },
    ],
    ["~ in a variable", { env: { OPENCLAW_STATE_DIR: "~/state" } }, { stateDir: "/home/me/state" }],
    [
      "~ in an option",
      { stateDir: "~", configPath: "~/a/../b.json" },
      { stateDir: "/home/me", configPath: "/home/me/b.json" },
    ],
    [
      "~name and a ~ further on as they are",
      { stateDir: "/x/~", configPath: "/x/~you/~" },
      { stateDir: "/x/~", configPath: "/x/~you/~" },
    ],
    ["relative paths, made absolute", { stateDir: "state" }, { stateDir: `${process.cwd()}/state` }],
    ["a port of the kernel's choice", { port: 0 }, { port: 0, derived: { browserControl: 0, cdp: [0, 0] } }],
  ])("%s", (_, options, expected) => {
    expect(resolved(options)).toMatchObject(expected);
  });

  it("takes the process's own environment where none is given", () => {
    process.env.GATEWAY_LOCK_TEST_APP_PROFILE = "mine";
    try {
      expect(resolveProfile({ app: "gateway-lock-test-app" }).profile).toBe("mine");
    } finally {
      delete process.env.GATEWAY_LOCK_TEST_APP_PROFILE;
    }
  });
});

describe("names", () => {
  it.each(["a", "Z9", "_x", "with-dash", "with.dot", "1", "a".repeat(64), "console", "nul-1"])(
    "'%s' is one",
    (profile) => {
      expect(resolved({ profile }).stateDir).toBe(`/home/me/.openclaw-${profile}`);
    },
  );

  const bad = [
    "",
    ".",
    "..",
    ".hidden",
    "-x",
    "x.",
    "a/b",
    "a\\b",
    "a..b",
    "../x",
    "a b",
    " a",
    "a\n",
    "\u0000",
    "\u001b[2J",
    "ä",
    "a:b",
    "a*",
    "~",
    "a".repeat(65),
  ];
  it.each([...bad, "con", "NUL", "aux.txt", "COM1", "lpt9"])("%j is none", (name) => {
    const error = { name: "TypeError", code: "ERR_INVALID_ARG_VALUE" };
    expect(() => resolved({ profile: name })).toThrow(expect.objectContaining(error));
    expect(() => resolved({ app: name })).toThrow(expect.objectContaining(error));
    if (name !== "") {
      const named = expect.objectContaining({ ...error, message: expect.stringContaining('"OPENCLAW_PROFILE"') });
      expect(() => resolved({ env: { OPENCLAW_PROFILE: name } })).toThrow(named);
    }
  });
});

it.each<[object, string]>([
  [{ profil: "x" }, "ERR_INVALID_ARG_VALUE"],
  [{ profile: 1 }, "ERR_INVALID_ARG_TYPE"],
  [{ port: "1" }, "ERR_INVALID_ARG_TYPE"],
  [{ port: 65536 }, "ERR_SOCKET_BAD_PORT"],
  [{ env: { OPENCLAW_GATEWAY_PORT: "65536" } }, "ERR_SOCKET_BAD_PORT"],
  [{ env: { OPENCLAW_GATEWAY_PORT: "1e3" } }, "ERR_SOCKET_BAD_PORT"],
  [{ env: { OPENCLAW_GATEWAY_PORT: " 80" } }, "ERR_SOCKET_BAD_PORT"],
  [{ stateDir: "" }, "ERR_INVALID_ARG_VALUE"],
  [{ stateDir: "a\0b" }, "ERR_INVALID_ARG_VALUE"],
  [{ env: "x" }, "ERR_INVALID_ARG_TYPE"],
  [{ home: 1 }, "ERR_INVALID_ARG_TYPE"],
  [{ home: undefined, env: { HOME: 5 } }, "ERR_INVALID_ARG_TYPE"],
  [{ home: undefined, env: { HOME: "/a\0b" } }, "ERR_INVALID_ARG_VALUE"],
  [{ stateDir: "$XDG_STATE_HOME/x", env: { XDG_STATE_HOME: "/a\0b" } }, "ERR_INVALID_ARG_VALUE"],
  [{ stateDir: "$constructor/x" }, "ERR_INVALID_ARG_VALUE"],
  [{ stateDir: "$XDG_RUNTIME_DIR/x" }, "ERR_INVALID_ARG_VALUE"],
  [{ env: { OPENCLAW_STATE_DIR: "~somebody/x" } }, "ERR_INVALID_ARG_VALUE"],
])("refuses %o", (options, code) => {
  expect(() => resolved(options as ProfileOptions)).toThrow(expect.objectContaining({ code }));
});

it("the default home is the environment's own fields, and no inherited ones", () => {
  const { stateDir } = resolveProfile({
    app: "constructor",
    env: Object.create({ CONSTRUCTOR_STATE_DIR: "/x" }),
    home,
  });
  expect(stateDir).toBe("/home/me/.constructor");
});

it("derived ports are those of a profile's `derived`", () => {
  expect(() => derivedPorts(resolved({}) as never)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARG_TYPE" }));
});

it("derived ports stop where ports do", () => {
  expect(derivedPorts(resolved({ port: 65500 }).derived)).toEqual([
    65502,
    ...Array.from({ length: 25 }, (_, i) => 65511 + i),
  ]);
  expect(derivedPorts(resolved({ port: 0 }).derived)).toEqual([]);
  expect(derivedPorts(resolved({}).derived)).toHaveLength(101);
});

it("the options are those of acquireGateway", async () => {
  const profile = resolved({ profile: "rescue", home: temporaryDirectory(), port: await freePort() });
  const gateway = await acquire(profile.options);
  expect(gateway.owner).toMatchObject({
    stateDir: profile.stateDir,
    configPath: profile.configPath,
    port: profile.port,
  });
});
