// Options win over the environment and the environment over defaults: every combination of what is said, and where, against a second account of the rules.

import { createHash } from "node:crypto";
import { join, posix } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ProfileOptions, resolveProfile } from "../../lib/profile/profile.ts";

const FIELDS = ["profile", "stateDir", "configPath", "port"] as const;
const VARIABLES = {
  profile: "PROFILE",
  stateDir: "STATE_DIR",
  configPath: "CONFIG_PATH",
  port: "GATEWAY_PORT",
} as const;
/** Whether an option is given, and whether a variable is missing, empty or set. */
const WAYS = [false, true].flatMap((option) =>
  (["missing", "empty", "set"] as const).map((variable) => ({ option, variable })),
);
/** 6 ways for each of the four fields. */
const COMBINATIONS = FIELDS.reduce<(typeof WAYS)[]>(
  (rows, _) => rows.flatMap((row) => WAYS.map((way) => [...row, way])),
  [[]],
);
const RUNS = 15;

const braced = (variable: string): string => `$\{${variable}}`;

const name = fc
  .stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}[a-zA-Z0-9_-]$/)
  .filter(
    (text) => !text.includes("..") && !/^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(text) && !/^default$/i.test(text),
  );
const segment = fc.stringMatching(/^[a-z0-9 ._-]{1,8}$/).filter((text) => text.trim() !== "" && !/^\.+$/.test(text));
const path = fc
  .tuple(
    fc.constantFrom(
      "",
      "~",
      "$HOME",
      braced("HOME"),
      "$XDG_STATE_HOME",
      braced("XDG_CONFIG_HOME"),
      "$XDG_DATA_HOME",
      "/x/..",
    ),
    fc.array(segment, { minLength: 1, maxLength: 3 }),
  )
  .map(([start, segments]) => `${start}/${segments.join("/")}`);
const port = fc.integer({ min: 0, max: 65535 });
const values = fc.record({
  app: fc.option(name, { nil: undefined }),
  home: name,
  pairs: fc.record({
    profile: fc.tuple(fc.oneof(name, fc.constantFrom("default", "Default")), name),
    stateDir: fc.tuple(path, path),
    configPath: fc.tuple(path, path),
    port: fc.tuple(port, port),
  }),
  noise: fc.record({
    XDG_STATE_HOME: fc.constantFrom(undefined, "", "/xdg/state", "relative"),
    XDG_CONFIG_HOME: fc.constantFrom(undefined, "/xdg/config"),
  }),
});

/** The rules, told a second time. */
function expected(
  app: string,
  home: string,
  said: { [F in (typeof FIELDS)[number]]: string | number | undefined },
  env: NodeJS.ProcessEnv,
) {
  const place = (text: string) => {
    const xdg = (variable: string, below: string) => {
      const there = env[variable] ?? "";
      return there.startsWith("/") ? there : `${home}/${below}`;
    };
    const starts: readonly (readonly [string, string])[] = [
      ["~/", home],
      ["$HOME/", home],
      [`${braced("HOME")}/`, home],
      ["$XDG_STATE_HOME/", xdg("XDG_STATE_HOME", ".local/state")],
      [`${braced("XDG_CONFIG_HOME")}/`, xdg("XDG_CONFIG_HOME", ".config")],
      ["$XDG_DATA_HOME/", xdg("XDG_DATA_HOME", ".local/share")],
    ];
    const [start, there] = starts.find(([one]) => text.startsWith(one)) ?? ["", ""];
    return posix.normalize(start === "" ? text : `${there}/${text.slice(start.length)}`);
  };
  const profile = said.profile === undefined || /^default$/i.test(`${said.profile}`) ? null : `${said.profile}`;
  const stateDir =
    said.stateDir === undefined ? `${home}/.${app}${profile === null ? "" : `-${profile}`}` : place(`${said.stateDir}`);
  const bits = Number.parseInt(
    createHash("sha256")
      .update(profile ?? "")
      .digest("hex")
      .slice(0, 8),
    16,
  );
  const base = Number(said.port ?? (profile === null ? 18789 : 18789 + 120 * (1 + (bits % 100))));
  const configPath = said.configPath === undefined ? `${stateDir}/${app}.json` : place(`${said.configPath}`);
  return {
    app,
    profile,
    stateDir,
    configPath,
    port: base,
    workspace: `${stateDir}/workspace`,
    derived:
      base === 0 ? { browserControl: 0, cdp: [0, 0] } : { browserControl: base + 2, cdp: [base + 11, base + 110] },
    options: { stateDir, configPath, port: base },
  };
}

describe("precedence", () => {
  it(`is kept in all ${COMBINATIONS.length} combinations of options and variables`, () => {
    let resolved = 0;
    fc.assert(
      fc.property(values, ({ app: given, home: user, pairs, noise }) => {
        const app = given ?? "openclaw";
        const home = `/home/${user}`;
        const prefix = app.toUpperCase().replace(/[^A-Z0-9]/g, "_");
        // Another app's variables are nobody's here.
        const others = { OTHER_APP_STATE_DIR: "/other", OTHER_APP_PROFILE: "other" };
        for (const ways of COMBINATIONS) {
          const env: NodeJS.ProcessEnv = { HOME: home, ...noise, ...others };
          const options: Record<string, unknown> = given === undefined ? {} : { app };
          const said: Record<string, string | number | undefined> = {};
          for (const [index, field] of FIELDS.entries()) {
            const [option, variable] = pairs[field];
            const way = ways[index] as (typeof WAYS)[number];
            if (way.option) options[field] = option;
            if (way.variable !== "missing")
              env[`${prefix}_${VARIABLES[field]}`] = way.variable === "set" ? `${variable}` : "";
            said[field] = way.option ? option : way.variable === "set" ? variable : undefined;
          }
          expect(resolveProfile({ ...options, env })).toEqual(expected(app, home, said as never, env));
          // A home in an option wins over the environment's.
          if (resolved++ % 100 === 0)
            expect(resolveProfile({ ...options, env: { ...env, HOME: "/no" }, home })).toEqual(
              expected(app, home, said as never, env),
            );
        }
      }),
      { numRuns: RUNS },
    );
    expect(resolved).toBe(RUNS * COMBINATIONS.length);
  });
});

it("leaves a relative XDG variable out, as the specification says", () => {
  const at = (XDG_STATE_HOME: string) =>
    resolveProfile({ stateDir: "$XDG_STATE_HOME/x", env: { HOME: "/home/me", XDG_STATE_HOME } }).stateDir;
  expect([at("/state"), at("state"), at("./state"), at("")]).toEqual([
    "/state/x",
    ...Array(3).fill("/home/me/.local/state/x"),
  ]);
});

describe("a name", () => {
  it("never leads out of the home directory, whatever it is", () => {
    const home = "/home/me";
    const odd = fc.oneof(
      fc.string({ unit: "binary", maxLength: 70 }),
      fc
        .array(fc.constantFrom("..", ".", "/", "\\", "a", "-", "~", "$HOME", "con", "\0", "\n", "é"), { maxLength: 6 })
        .map((parts) => parts.join("")),
    );
    let accepted = 0;
    fc.assert(
      fc.property(odd, fc.boolean(), (text, isApp) => {
        const options: ProfileOptions = { home, env: {}, [isApp ? "app" : "profile"]: text };
        let stateDir: string;
        try {
          ({ stateDir } = resolveProfile(options));
        } catch (error) {
          expect(error).toMatchObject({ name: "TypeError", code: "ERR_INVALID_ARG_VALUE" });
          return;
        }
        accepted++;
        expect(stateDir).toBe(
          join(home, isApp ? `.${text}` : text.toLowerCase() === "default" ? ".openclaw" : `.openclaw-${text}`),
        );
        expect(text).toMatch(/^[\w][\w.-]{0,63}$/);
      }),
      {
        numRuns: 3000,
        examples: [
          ["rescue", false],
          ["my-app", true],
        ],
      },
    );
    expect(accepted).toBeGreaterThan(1);
  });
});
