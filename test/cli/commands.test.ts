// `gateway-lock probe`, `wait`, `stop`, `doctor` and `profiles`: what they print and how they exit.

import { spawnSync } from "node:child_process";
import { mkdirSync, symlinkSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { hasIPv6, hasPython, itWhere } from "../support/capabilities.ts";
import { CLI, Command, run, runForJson } from "../support/commands.ts";
import { acquire, listenOn } from "../support/gateways.ts";
import { startStranger } from "../support/inspections.ts";
import { startFixture, startGateway, type TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

async function serve(options: object): Promise<TestProcess> {
  const gateway = startGateway(options);
  expect(await gateway.next("serving", "refused")).toEqual({ event: "serving" });
  return gateway;
}

/** Answers every request alike. */
async function answerWith(status: number, body: unknown): Promise<string> {
  const paths: string[] = [];
  const server = createServer((request, response) => {
    paths.push(request.url ?? "");
    response.writeHead(status).end(JSON.stringify({ ...(body as object), path: request.url }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it("probe asks the owner of the lock, and believes nobody else", async () => {
  const stateDir = temporaryDirectory();
  const port = await freePort();
  const gateway = await serve({ stateDir, port });

  const { json, code, stderr } = await runForJson(["probe", "--state-dir", stateDir]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(json).toMatchObject({ ok: true, url: `ws://127.0.0.1:${port}`, health: { ok: true, status: 200 } });
  expect((await run(["probe", "--state-dir", stateDir])).stdout).toMatch(
    new RegExp(`^healthy\n\nurl +ws://127\\.0\\.0\\.1:${port}\nidentity +owner ${json.ownerId}\nhealth +well `),
  );

  const impostor = await answerWith(200, { ok: true, ownerId: "another" });
  const asked = await runForJson(["probe", impostor, "--state-dir", stateDir]);
  expect(asked.json).toMatchObject({ ok: false, exitCode: 1, url: impostor, ownerId: json.ownerId });
  expect(asked.json.health.error).toContain("ownerId");

  await gateway.kill();
  const gone = await runForJson(["probe", "--state-dir", stateDir]);
  expect(gone.json).toMatchObject({ ok: false, exitCode: 1, url: null, ownerId: null, health: null });
  expect((await run(["probe", "--state-dir", stateDir])).stdout).toMatch(/^not healthy\n\nhealth +nobody was asked\n/);
});

it("probe with a URL and no gateway's name asks anybody, and says so", async () => {
  const well = await answerWith(200, { ok: true });
  const unwell = await answerWith(503, { ok: false });

  expect((await runForJson(["probe", well])).json).toMatchObject({ ok: true, ownerId: null, health: { status: 200 } });
  expect((await runForJson(["probe", unwell])).json).toMatchObject({ ok: false, exitCode: 1, health: { status: 503 } });
  const { stdout } = await run(["probe", `${well}/custom?deep=1`]);
  expect(stdout).toMatch(/^healthy\n[\s\S]*^identity +not checked$[\s\S]*anybody might have answered/m);
});

it("probe says what to do about an answer that is no health document, and about none", async () => {
  const mute = await answerWith(200, {});
  expect((await runForJson(["probe", mute])).json).toMatchObject({
    ok: false,
    next: expect.stringMatching(/^it answers \/healthz with no health document: route gateway\.healthz/),
  });
  const refused = await runForJson(["probe", `http://127.0.0.1:${await freePort()}`]);
  expect(refused.json.next).toMatch(/^start the gateway, or name the address/);
});

it("probe does not say that there is nothing to do, of an owner without a health endpoint", async () => {
  const options = { stateDir: temporaryDirectory(), port: await freePort() };
  const gateway = await acquire(options);
  await gateway.listen(createServer((_, response) => response.writeHead(404).end()));
  const args = ["probe", "--state-dir", options.stateDir, "--health-path", "/well"];
  const { json } = await runForJson(args);
  expect(json).toMatchObject({
    ok: false,
    health: { status: 404 },
    next: expect.stringMatching(/^it answers \/well /),
  });
});

it("probe gives up in the time that it is given", async () => {
  const port = await freePort();
  await listenOn(port);
  for (const option of ["--timeout", "--health-timeout"]) {
    const { json } = await runForJson(["probe", `ws://127.0.0.1:${port}`, option, "50"]);
    expect(json).toMatchObject({ ok: false, health: { status: null, error: expect.stringContaining("within 50ms") } });
  }
});

it("wait --for ready ends when the gateway says that it is ready", async () => {
  const stateDir = temporaryDirectory();
  const waiting = new Command(["wait", "--for", "ready", "--state-dir", stateDir, "--json"]);
  const gateway = startFixture("gateway-contender.mjs");
  await gateway.next("loaded");
  const say = async (command: string, fields = {}) => {
    gateway.send(JSON.stringify({ command, ...fields }));
    await gateway.next("acquired", "serving", "done");
  };
  await say("acquire", { options: { stateDir, port: await freePort() } });
  await say("serve");
  expect(waiting.stdout).toBe("");
  await say("ready");

  const { code, stdout } = await waiting.ended;

  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ for: "ready", reached: true, report: { owner: { pid: gateway.pid } } });
  const again = await run(["wait", "--for", "ready", "--state-dir", stateDir]);
  expect(again).toMatchObject({ code: 0, stdout: expect.stringMatching(/^expected: /), stderr: "" });
});

it("wait --for free ends when the gateway is killed", async () => {
  const stateDir = temporaryDirectory();
  const gateway = await serve({ stateDir, port: await freePort() });
  const early = await runForJson(["wait", "--for", "free", "--state-dir", stateDir, "--timeout", "50"]);
  expect(early.json).toMatchObject({ reached: false, exitCode: 124, report: { verdict: "expected" } });

  const waiting = new Command(["wait", "--for", "free", "--state-dir", stateDir]);
  await gateway.kill();

  expect(await waiting.ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/^(free|stale-record): /) });
  const { json } = await runForJson(["wait", "--for", "free", "--state-dir", stateDir]);
  expect(json).toMatchObject({ for: "free", reached: true, exitCode: 0 });
});

it("wait says at the timeout what it has seen, and exits with 124", async () => {
  const ended = await run([
    "wait",
    "--for",
    "ready",
    "--state-dir",
    temporaryDirectory(),
    "--timeout",
    "20",
    "--port",
    String(await freePort()),
  ]);
  expect(ended).toMatchObject({ code: 124, stdout: "" });
  expect(ended.stderr).toMatch(/^gateway-lock: not ready after \d+ ms: no gateway runs; start it, or look .+\n$/);
});

it("wait --for free warns of a stranger, at whom the next start fails", async () => {
  const port = await freePort();
  await listenOn(port);
  const ended = await run(["wait", "--for", "free", "--state-dir", temporaryDirectory(), "--port", String(port)]);
  expect(ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/^foreign-listener: /) });
  expect(ended.stderr).toMatch(new RegExp(`^gateway-lock: pid ${process.pid} .*another port`));
});

it("wait --for free says at the timeout how the gateway ends", async () => {
  const stateDir = temporaryDirectory();
  await serve({ stateDir, port: await freePort() });
  const { stderr } = await run(["wait", "--for", "free", "--state-dir", stateDir, "--timeout", "20"]);
  expect(stderr).toMatch(/^gateway-lock: not free after \d+ ms: .*gateway-lock stop/);
  expect(stderr).not.toContain("nothing to do");
});

it("stop ends the owner, and nobody else", async () => {
  const stateDir = temporaryDirectory();
  const gateway = await serve({ stateDir, port: await freePort() });

  const { json } = await runForJson(["stop", "--state-dir", stateDir]);
  expect(json).toMatchObject({ outcome: "stopped", exitCode: 0, pids: [gateway.pid], signal: "SIGTERM" });
  expect(await gateway.exited).toEqual({ code: null, signal: "SIGTERM" });
  expect((await runForJson(["stop", "--state-dir", stateDir])).json).toMatchObject({ outcome: "none", exitCode: 0 });
});

it("stop says in words whom it has stopped, and with --force by what", async () => {
  const stateDir = temporaryDirectory();
  const gateway = await serve({ stateDir, port: await freePort() });
  gateway.child.kill("SIGSTOP");

  const refused = await run(["stop", "--state-dir", stateDir, "--timeout", "50"]);
  expect(refused).toMatchObject({ code: 1, stderr: "" });
  expect(refused.stdout).toMatch(
    new RegExp(
      `^still running: SIGTERM to pid ${gateway.pid} has not ended it in \\d+ ms\n\nevidence  [^]*^next +.*--force`,
      "m",
    ),
  );
  const forced = await run(["stop", "--state-dir", stateDir, "--timeout", "50", "--force"]);
  expect(forced).toMatchObject({ code: 0, stderr: "" });
  expect(forced.stdout).toMatch(new RegExp(`^stopped: pid ${gateway.pid}, by SIGKILL in \\d+ ms\n`));
});

it("stop names a stranger on the port, and leaves it alone", async () => {
  const port = await freePort();
  await listenOn(port);
  const args = ["stop", "--state-dir", temporaryDirectory(), "--port", String(port)];

  const { json, stdout } = await runForJson(args);

  expect(json.pids).toEqual([]);
  expect(json.signal).toBeNull();
  expect(stdout).toContain(String(process.pid));
});

itWhere(hasPython && hasIPv6, "needs Python and IPv6")(
  "stop prints a command that does what it says, with all that says which gateway is meant",
  async () => {
    const base = join(temporaryDirectory(), "it's here");
    const port = await freePort();
    const stranger = await startStranger(port, { host: "::1" });
    const places = ["--state-dir", join(base, "state"), "--config", join(base, "my.json"), "--lock-dir", base];
    const { json } = await runForJson(["stop", ...places, "--host", "::1", "--port", `${port}`, "--scheme", "http"]);
    expect(json).toMatchObject({ outcome: "refused", pids: [] });

    const printed = /`gateway-lock ([^`]*)`/.exec(json.next)?.[1];
    expect(printed).toMatch(/^stop --force --pid \d+ .*--config .*--scheme http .*--lock-dir /);
    const repeated = spawnSync("sh", ["-c", `exec "$0" "$1" ${printed}`, process.execPath, CLI], { encoding: "utf8" });

    expect(repeated.stdout).toMatch(new RegExp(`^stopped: pid ${stranger.pid}, by SIGTERM`));
    expect(repeated.status).toBe(0);
  },
);

it("doctor answers with every check: 0 where all is good, 1 where something is to be mended", async () => {
  const stateDir = temporaryDirectory();
  // Above the ports of other tests, which would have those that are derived from it, and below the ephemeral range.
  const port = 30_500 + (process.pid % 2000);
  const good = await runForJson(["doctor", "--state-dir", stateDir, "--port", String(port)]);
  expect(good.json.findings.filter(({ ok }: { ok: boolean }) => ok === false)).toEqual([]);
  expect(good.json).toMatchObject({ ok: true, exitCode: 0 });
  const people = await run(["doctor", "--state-dir", stateDir, "--port", String(port)]);
  expect(people).toMatchObject({ code: 0, stderr: "" });
  expect(people.stdout).toMatch(/^all good.*\n\nok +addon +\S/);

  await listenOn(port);
  const bad = await runForJson(["doctor", "--state-dir", stateDir, "--port", String(port)]);
  expect(bad.json).toMatchObject({ ok: false, exitCode: 1 });
  expect(bad.json.findings).toContainEqual(expect.objectContaining({ check: "port-owner", ok: false }));
  expect((await run(["doctor", "--state-dir", stateDir, "--port", String(port)])).stdout).toMatch(
    /^\d+ findings?\n[\s\S]*^NOTE +port-owner +\S.*\n +next: \S/m,
  );
});

it("doctor compares a profile with those whose directories are there", async () => {
  const home = temporaryDirectory();
  const profiles = async (...args: string[]) => {
    const { json } = await runForJson(["doctor", ...args], { env: { HOME: home } });
    return json.findings.find(({ check }: { check: string }) => check === "profiles");
  };
  expect(await profiles("--profile", "rescue")).toMatchObject({
    ok: true,
    evidence: expect.stringContaining("no other"),
  });
  mkdirSync(join(home, ".openclaw"), { mode: 0o700 });
  mkdirSync(join(home, ".openclaw-rescue"), { mode: 0o700 });
  expect(await profiles("--profile", "rescue")).toMatchObject({
    ok: true,
    evidence: expect.stringContaining("2 profiles"),
  });
  symlinkSync(".openclaw-rescue", join(home, ".openclaw-work"));
  expect(await profiles("--profile", "rescue")).toMatchObject({ ok: false });
  expect(await profiles("--state-dir", join(home, ".openclaw-rescue"))).toMatchObject({ ok: true });
});

it("profiles shows what names come to: 0 where they are isolated, 1 where they share something", async () => {
  const home = temporaryDirectory();
  const env = { HOME: home };

  const apart = await runForJson(["profiles", "default", "rescue"], { env });
  expect(apart.json).toMatchObject({
    ok: true,
    exitCode: 0,
    profiles: [
      { profile: null, stateDir: join(home, ".openclaw"), port: 18789 },
      {
        profile: "rescue",
        stateDir: join(home, ".openclaw-rescue"),
        workspace: join(home, ".openclaw-rescue/workspace"),
      },
    ],
    findings: [],
  });
  expect((await run(["profiles", "default", "rescue"], { env })).stdout).toMatch(/^isolated\n\ndefault +state +/);

  const shared = await runForJson(["profiles", "one", "two"], { env: { ...env, OPENCLAW_STATE_DIR: home } });
  expect(shared.json).toMatchObject({ ok: false, exitCode: 1 });
  expect(shared.json.findings).toContainEqual(
    expect.objectContaining({ level: "error", kind: "state", instances: ["one", "two"] }),
  );
  const people = await run(["profiles", "one", "two"], { env: { ...env, OPENCLAW_STATE_DIR: home } });
  expect(people).toMatchObject({ code: 1, stderr: "" });
  expect(people.stdout).toMatch(/^conflict\n[\s\S]*^error +\S/m);
});

it("profiles compares what each of them would reserve as well", async () => {
  const env = { HOME: temporaryDirectory() };
  const kindsWith = async (...args: string[]) => {
    const { json } = await runForJson(["profiles", "default", "rescue", ...args], { env });
    return json.findings.map(({ kind }: { kind: string }) => kind);
  };
  expect(await kindsWith("--reserve", "derived")).toEqual([]);
  expect(await kindsWith("--reserve", "derived,9000")).toEqual(["derived"]);
  expect(await kindsWith("--reserve", "derived", "--port", "20000")).toEqual(["port", "derived"]);
  expect(await kindsWith("--lock", env.HOME)).toEqual(["workspace"]);
});
