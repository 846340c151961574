// `gateway-lock status`: each verdict for people and for programs.

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { GatewayVerdict } from "../../lib/inspect/report.ts";
import { hasFlockCommand, itWhere } from "../support/capabilities.ts";
import { run, runForJson } from "../support/commands.ts";
import { deadPid, holdWithFlock, listenOn, recordOf } from "../support/gateways.ts";
import { asOtherUser, canRunAsOtherUser } from "../support/locks.ts";
import { startGateway, type TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

/** The same, for people and for programs, says the same. */
async function expectVerdict(verdict: GatewayVerdict, code: number, args: readonly string[], says: RegExp[] = []) {
  const { json, stderr } = await runForJson(["status", ...args]);
  expect(json).toMatchObject({ verdict, exitCode: code });
  const text = await run(["status", ...args]);
  expect(text.stdout).toMatch(new RegExp(`^${verdict}: .+\n\nlock  .+\n`));
  for (const line of [/^next +\S/m, ...says]) expect(text.stdout).toMatch(line);
  expect(text.code).toBe(code);
  expect([stderr, text.stderr]).toEqual(["", ""]);
  return json;
}

async function serve(options: object): Promise<TestProcess> {
  const gateway = startGateway(options);
  expect(await gateway.next("serving", "refused")).toEqual({ event: "serving" });
  return gateway;
}

function stateWithRecord(record: Buffer): string {
  const stateDir = temporaryDirectory();
  mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
  writeFileSync(join(stateDir, "locks/gateway.state.lock"), record, { mode: 0o600 });
  return stateDir;
}

it("free: a directory that nobody uses", async () => {
  await expectVerdict(
    "free",
    3,
    ["--state-dir", temporaryDirectory(), "--port", String(await freePort())],
    [/^lock +free$/m, /^listener +nobody$/m],
  );
});

it("expected: a gateway that serves, with the evidence for it", async () => {
  const stateDir = temporaryDirectory();
  const port = await freePort();
  const gateway = await serve({ stateDir, port });

  const report = await expectVerdict(
    "expected",
    0,
    ["--state-dir", stateDir],
    [
      new RegExp(`^lock +held by pid ${gateway.pid}$`, "m"),
      new RegExp(`^owner +pid ${gateway.pid}, listening, since `, "m"),
      new RegExp(`^listener +127\\.0\\.0\\.1:${port}, by pid ${gateway.pid}: .*node`, "m"),
      /^health +well \(status 200, \d+ ms\)$/m,
    ],
  );

  expect(report.lock).toMatchObject({ locked: true, holders: [gateway.pid] });
  expect(report.owner).toMatchObject({ pid: gateway.pid, stateDir, port });
  expect((await run(["status", "--state-dir", stateDir, "--require-health"])).code).toBe(0);
});

it("unhealthy: a gateway that is stopped in its tracks; that is a failure only where health is required", async () => {
  const stateDir = temporaryDirectory();
  const gateway = await serve({ stateDir, port: await freePort() });
  gateway.child.kill("SIGSTOP");

  const args = ["--state-dir", stateDir, "--health-timeout", "100"];
  await expectVerdict("unhealthy", 0, args, [/^health +not well: .+ within 100ms/m]);
  await expectVerdict("unhealthy", 1, [...args, "--require-health"]);
});

itWhere(hasFlockCommand, "needs flock(1)")("starting: a lock that is held, and nobody listens", async () => {
  const stateDir = stateWithRecord(Buffer.alloc(0));
  await holdWithFlock(join(stateDir, "locks/gateway.state.lock"));
  const args = ["--state-dir", stateDir, "--port", String(await freePort())];

  await expectVerdict("starting", 0, args);
  await expectVerdict("starting", 1, [...args, "--require-health"]);
});

itWhere(hasFlockCommand, "needs flock(1)")("split: one has the lock, another one the port", async () => {
  const stateDir = stateWithRecord(Buffer.alloc(0));
  const holder = await holdWithFlock(join(stateDir, "locks/gateway.state.lock"));
  const port = await freePort();
  await listenOn(port);

  await expectVerdict(
    "split",
    1,
    ["--state-dir", stateDir, "--port", String(port)],
    [
      new RegExp(`^lock +held by pid ${holder.pid}$`, "m"),
      new RegExp(`^listener +127\\.0\\.0\\.1:${port}, by pid ${process.pid}`, "m"),
    ],
  );
});

it("foreign-listener: the lock is free, and somebody has the port", async () => {
  const port = await freePort();
  await listenOn(port);
  const stateDir = join(temporaryDirectory(), "not-there");
  await expectVerdict(
    "foreign-listener",
    1,
    ["--state-dir", stateDir, "--port", String(port)],
    [
      new RegExp(`^state +${stateDir} \\(does not exist yet\\)$`, "m"),
      new RegExp(`^next .*no lock of ${stateDir}: .* name that with --state-dir; otherwise .*, or end it$`, "m"),
    ],
  );
});

it("stale-record: what a killed gateway has left", async () => {
  const port = await freePort();
  const stateDir = stateWithRecord(recordOf({ pid: await deadPid(), port }));
  await expectVerdict("stale-record", 3, ["--state-dir", stateDir], [/^record +pid \d+, ready/m]);
  const torn = stateWithRecord(Buffer.from('{"pid":1'));
  await expectVerdict(
    "stale-record",
    3,
    ["--state-dir", torn, "--port", String(port)],
    [/^record +torn, can't be read$/m, /^next .*takes over \/.*\.lock \(its record is torn, and can't be read\)$/m],
  );
});

it("unknown: a file in the place of the state directory", async () => {
  const file = join(temporaryDirectory(), "file");
  writeFileSync(file, "");
  await expectVerdict(
    "unknown",
    4,
    ["--state-dir", file, "--port", String(await freePort())],
    [new RegExp(`^state +${file} \\(is not a directory\\)$`, "m")],
  );
});

itWhere(canRunAsOtherUser, "needs root, and a package that others may read")(
  "unknown: another user's gateway, of which this one sees too little",
  async () => {
    const stateDir = temporaryDirectory();
    const port = await freePort();
    await serve({ stateDir, port });

    const args = ["status", "--state-dir", stateDir, "--port", String(port)];
    const { json } = await runForJson(args, asOtherUser);
    expect(json).toMatchObject({ verdict: "unknown", exitCode: 4 });
    const { code, stdout, stderr } = await run(args, asOtherUser);
    expect({ code, stderr }).toEqual({ code: 4, stderr: "" });
    expect(stdout).toMatch(/^listener +127.*, by a process that this user can't see$/m);
    expect(stdout).toMatch(/^owner +can't be read by this user \(EACCES\)$/m);
  },
);

it("looks at the very gateway that acquireGateway({ stateDir }) starts, whatever profile the environment names", async () => {
  const home = temporaryDirectory();
  const stateDir = join(home, "state");
  const gateway = startGateway({ stateDir, port: await freePort() });
  const { lockPaths } = await gateway.next("acquired");
  await gateway.next("serving");
  symlinkSync(stateDir, join(home, "link"));
  const env = { HOME: home, OPENCLAW_PROFILE: "rescue", OPENCLAW_GATEWAY_PORT: "1" };

  const { json } = await runForJson(["status", "--state-dir", "link"], { cwd: home, env });

  expect(json).toMatchObject({ verdict: "expected", lock: { paths: lockPaths, holders: [gateway.pid] } });
});

it("finds a profile's gateway by its name, and by the environment; options win", async () => {
  const home = temporaryDirectory();
  const port = await freePort();
  const stateDir = join(home, ".openclaw-rescue");
  await serve({ stateDir, configPath: join(stateDir, "openclaw.json"), port });
  const verdict = async (args: string[], env = {}) =>
    (await runForJson(["status", ...args, "--port", String(port)], { env: { HOME: home, ...env } })).json.verdict;

  expect(await verdict(["--profile", "rescue"])).toBe("expected");
  expect(await verdict([], { OPENCLAW_PROFILE: "rescue" })).toBe("expected");
  expect(await verdict([], { OPENCLAW_STATE_DIR: stateDir })).toBe("expected");
  expect(await verdict(["--profile", "rescue", "--app", "openclaw"], { OPENCLAW_PROFILE: "work" })).toBe("expected");
  expect(await verdict(["--profile", "work"], { OPENCLAW_PROFILE: "rescue" })).toBe("foreign-listener");
  expect(await verdict(["--app", "other", "--profile", "rescue"])).toBe("foreign-listener");
});

it("says which variable wins over the name of a profile, and does as it is told", async () => {
  const [home, stateDir] = [temporaryDirectory(), temporaryDirectory()];
  const port = await freePort();
  await serve({ stateDir, port });
  const args = ["status", "--profile", "rescue", "--port", String(port)];

  const told = await run(args, { env: { HOME: home, OPENCLAW_STATE_DIR: stateDir } });
  expect(told.stdout).toMatch(/^expected\b/);
  expect(told.stderr).toBe(
    "gateway-lock: OPENCLAW_STATE_DIR in the environment wins over what follows from the name of profile 'rescue'\n",
  );
  const untold = await run(args, { env: { HOME: home } });
  expect(untold.stdout).toMatch(/^foreign-listener\b/);
  expect(untold.stderr).not.toContain("environment");
});

it("takes options before the command, after it, and of the form --name=value", async () => {
  const stateDir = temporaryDirectory();
  const lock = temporaryDirectory();
  const lockDir = temporaryDirectory();
  const port = String(await freePort());

  const { json } = await runForJson([
    "--json",
    `--state-dir=${stateDir}`,
    "status",
    "--lock",
    lock,
    "--port",
    port,
    "--host=::1",
    "--host",
    "127.0.0.1",
    "--lock-dir",
    lockDir,
    "--no-loopback-guard",
    "--scheme",
    "http",
    "--reserve",
    "5,7-9",
    "--timeout",
    "Infinity",
    "--allow-network-filesystem",
  ]);

  expect(json.lock.paths).toHaveLength(3);
  for (const path of json.lock.paths) expect(path).toContain(lockDir);
});
