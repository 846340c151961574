// How the command is asked: help, its examples, mistakes, and which error is said how.

import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { CLI, plainEnvironment, run, runForJson } from "../support/commands.ts";
import { startGateway, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const COMMANDS = ["run", "status", "probe", "wait", "doctor", "stop", "profiles"];
const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));

it("--version", async () => {
  for (const args of [["--version"], ["-V"], ["status", "--version"]])
    expect(await run(args)).toEqual({ code: 0, signal: null, stdout: `${version}\n`, stderr: "" });
});

it("--help lists the commands, the options, examples and exit codes", async () => {
  const { code, stdout, stderr } = await run(["--help"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${command} `, "m"));
  for (const part of ["--state-dir", "--profile", "--json", "Examples:", "Exit codes:", "124"])
    expect(stdout).toContain(part);
  expect((await run(["-h"])).stdout).toBe(stdout);
  expect((await run(["help"])).stdout).toBe(stdout);
});

function examplesIn(help: string): string[] {
  return help.split("\n").filter((line) => line.startsWith("  gateway-lock "));
}

it.each(["", ...COMMANDS])("the examples of 'gateway-lock %s --help' work", async (command) => {
  const { code, stdout } = await run([command, "--help"].filter(Boolean));
  expect(code).toBe(0);
  const examples = examplesIn(stdout);
  expect(examples.length).toBeGreaterThan(1);
  expect(stdout).toContain("\nExit codes:");
  const home = temporaryDirectory();
  mkdirSync(join(home, "bin"));
  symlinkSync(CLI, join(home, "bin/gateway-lock"));
  for (const name of ["server.js", "server.py"]) writeFileSync(join(home, name), "");
  // With all of its derived ports free: where no other test has any.
  const port = String(30_000 + 120 * (process.pid % 20));
  const { PATH } = process.env;
  const env = { ...plainEnvironment(home), PATH: `${home}/bin:${PATH}`, OPENCLAW_GATEWAY_PORT: port };
  for (const example of examples) {
    // Nothing runs there: what would be waited for, does not come.
    const line = example
      .replace(/ --port \d+/, "")
      .replace("--state-dir .gateway", `--state-dir .gateway --port ${port}`)
      .replace("18789", port)
      .replace(/--timeout \d{5}/, "--timeout 10");
    const shell = new TestProcess("sh", ["-c", line], { cwd: home, env });
    const { code, signal } = await shell.exited;
    expect(signal).toBeNull();
    expect([0, 1, 3, 124], `${line}: ${code} ${shell.stderr}`).toContain(code);
  }
});

it.each([
  [["statsu"], "unknown command 'statsu'; did you mean status?", "--help"],
  [["status", "--jsno"], "unknown option '--jsno'; did you mean --json?", "status --help"],
  [["status", "--state-dri=.g"], "unknown option '--state-dri'; did you mean --state-dir?", "status --help"],
  [["status", "--json=1"], "unknown option '--json=1'", "status --help"],
  [["stop", "--force=no"], "unknown option '--force=no'; did you mean --force?", "stop --help"],
  [["help", "bogus"], "unknown command 'bogus'", "--help"],
  [["status", "--requirehealth"], "unknown option '--requirehealth'; did you mean --require-health?", "status --help"],
  [["status", "extra"], "too many arguments for 'status'. Expected 0 arguments but got 1", "status --help"],
  [["status", "--port", "abc"], `The "--port" option must be a number. Received 'abc'`, "status --help"],
  [
    ["status", "--port", "70000"],
    `The "--port" option must be an integer from 0 to 65535. Received 70000`,
    "status --help",
  ],
  [["status", "--port"], "option '--port <number>' argument missing", "status --help"],
  [
    ["status", "--host", "a.b"],
    `The "--host" option must be an IPv4 or IPv6 address, or 'localhost'. Received 'a.b'`,
    "status --help",
  ],
  [["status", "--state-dir", ""], `The "--state-dir" option must not be empty. Received ''`, "status --help"],
  [
    ["status", "--scheme", "ftp"],
    `The "--scheme" option must be one of 'ws', 'wss', 'http', 'https'. Received 'ftp'`,
    "status --help",
  ],
  [
    ["status", "--timeout", "soon"],
    `The "--timeout" option must be a number of milliseconds. Received 'soon'`,
    "status --help",
  ],
  [
    ["status", "--timeout", "-1"],
    `The "--timeout" option must be a number of milliseconds. Received '-1'`,
    "status --help",
  ],
  [
    ["status", "--health-timeout", "0"],
    `The "--health-timeout" option must be more than 0 and finite. Received 0`,
    "status --help",
  ],
  [
    ["status", "--health-path", "healthz"],
    `The "--health-path" option must begin with '/' and be percent-encoded. Received 'healthz'`,
    "status --help",
  ],
  [
    ["status", "--reserve", "9-5"],
    `The "--reserve" option must be ranges that go up, as 18800-18899. Received '9-5'`,
    "status --help",
  ],
  [
    ["status", "--reserve", "0"],
    `The "--reserve" option must be an integer from 1 to 65535. Received 0`,
    "status --help",
  ],
  [["status", "--profile", "../x"], `The "profile" option must be 1 to 64 letters`, "status --help"],
  [["wait"], "required option '--for <state>' not specified", "wait --help"],
  [
    ["wait", "--for", "ever"],
    "option '--for <state>' argument 'ever' is invalid. Allowed choices are free, ready",
    "wait --help",
  ],
  [["stop", "--pid", "x"], `The "--pid" option must be a number. Received 'x'`, "stop --help"],
  [["probe", "localhost"], "'localhost' is no gateway's URL", "probe --help"],
  [["profiles"], "missing required argument 'names'", "profiles --help"],
  [["run", "--port", "5"], "write -- and the program after the options", "run --help"],
  [["run", "node", "server.js"], "write -- and the program after the options", "run --help"],
  [["run", "sh", "-c", "true"], "unknown option '-c'; write -- before the program: gateway-lock run", "run --help"],
  [
    ["run", "--reserve", "derived", "--port", "0", "--", "true"],
    "--reserve derived: with --port 0 nobody knows",
    "run --help",
  ],
  [
    ["run", "--reserve", "derive", "--", "true"],
    `The "--reserve" option must be ports (18791), ranges (18800-18899) or 'derived'. Received 'derive'`,
    "run --help",
  ],
  [["run", "--prot", "5", "--", "node"], "unknown option '--prot'; did you mean --port?", "run --help"],
  [[], "no command is given", "--help"],
])("a mistake: %j", async (args, message, help) => {
  const { code, stdout, stderr } = await run(args);
  expect({ code, stdout }).toEqual({ code: 64, stdout: "" });
  const [first, next, ...more] = stderr.trimEnd().split("\n");
  const told = `gateway-lock: ${message}`;
  expect(first?.slice(0, told.length)).toBe(told);
  expect([next, more]).toEqual([`  next:  see gateway-lock ${help}`, []]);

  const { json } = await runForJson(args);
  expect(json).toMatchObject({ error: { code: "USAGE", exitCode: 64, next: `see gateway-lock ${help}` } });
});

it("a refusal has its code, its exit code, who it is and the next step, also as JSON", async () => {
  const stateDir = join(temporaryDirectory(), "a b");
  const port = await freePort();
  const gateway = startGateway({ stateDir, port });
  const { url } = await gateway.next("acquired");
  await gateway.next("serving");

  const { json, stderr } = await runForJson([
    ...["run", "--state-dir", stateDir, "--port", String(port), "--no-loopback-guard", "--timeout", "10"],
    ...["--", "true"],
  ]);

  expect(json.error).toMatchObject({ code: "ALREADY_LISTENING", exitCode: 75, url, owner: { pid: gateway.pid } });
  expect(stderr).toContain(`gateway-lock: another gateway instance is already listening on ${url}\n`);
  const [, next = ""] = /^ {2}next: {2}`(gateway-lock status .+)` says who it is$/m.exec(stderr) ?? [];
  expect(next).toBe(`gateway-lock status --state-dir '${stateDir}' --port ${port} --no-loopback-guard`);
});

it("a program that is not there is noticed before anything is made", async () => {
  const stateDir = join(temporaryDirectory(), "state");
  for (const program of ["no-such-program", "./no-such-program"]) {
    const { json } = await runForJson(["run", "--state-dir", stateDir, "--", program]);
    expect(json.error).toMatchObject({ exitCode: 127, message: expect.stringContaining(`no program '${program}'`) });
    expect(existsSync(stateDir)).toBe(false);
  }
});

it("what stands behind -- is the program's alone", async () => {
  const args = ["--json", "--port", "x", "--", "--version", "a b"];
  const program = ["--", process.execPath, "-p", "JSON.stringify(process.argv.slice(1))", "--", ...args];
  const ended = await run(["run", "--state-dir", temporaryDirectory(), "--port", String(await freePort()), ...program]);
  expect(ended).toMatchObject({ code: 0, stderr: "" });
  expect(JSON.parse(ended.stdout)).toEqual(args);
});

it("an error that nobody has foreseen shows where it came from only to those who ask", async () => {
  const ask = async (env: NodeJS.ProcessEnv) =>
    await run(["status"], { env: { HOME: "/", ...env, PREBUILDS_ONLY: "1", LIBC: "none" } });
  const quiet = await ask({});
  expect(quiet).toMatchObject({ code: 1, stdout: "" });
  expect(quiet.stderr).toMatch(/^gateway-lock: gateway-lock has no native addon for .*\n$/);
  expect((await ask({ GATEWAY_LOCK_DEBUG: "1" })).stderr).toMatch(/\n {4}at /);
});
