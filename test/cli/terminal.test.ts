// What reaches a terminal, and what a pipe: colours, progress, nothing that commands a terminal, and quiet ends.

import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { plain } from "../../lib/cli/terminal.ts";
import { hasPython, itWhere } from "../support/capabilities.ts";
import { CLI, Command, plainEnvironment, run, runForJson } from "../support/commands.ts";
import { deadPid, recordOf } from "../support/gateways.ts";
import { fixturePath, startGateway, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const ESCAPE = "\u001b";
const itWithTerminal = itWhere(hasPython, "needs python3");

class Terminal extends TestProcess {
  text = "";

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    super("python3", [fixturePath("terminal.py"), process.execPath, CLI, ...args], {
      env: { ...plainEnvironment(temporaryDirectory()), TERM: "xterm-256color", ...env },
    });
    this.child.stdout?.on("data", (data) => {
      this.text += data;
    });
  }

  pressCtrlC(): void {
    this.send("type 03");
  }
}

/** What a command that ends by itself has printed in a terminal. */
async function textInTerminal(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const terminal = new Terminal(args, env);
  await terminal.exited;
  return terminal.text;
}

itWithTerminal("a terminal gets colours, unless somebody has said no", async () => {
  const args = ["profiles", "default"];
  expect(await textInTerminal(args)).toContain(`${ESCAPE}[32misolated${ESCAPE}[39m`);
  for (const env of [{ NO_COLOR: "1" }, { TERM: "dumb" }, { FORCE_COLOR: "0" }]) {
    const text = await textInTerminal(args, env);
    expect(text).toContain("isolated");
    expect(text).not.toContain(ESCAPE);
  }
  expect(await textInTerminal(["statsu"])).toContain(`${ESCAPE}[31mgateway-lock:${ESCAPE}[39m unknown`);
  const json = await textInTerminal([...args, "--json"]);
  expect(json).toContain('"ok":true');
  expect(json).not.toContain(ESCAPE);
});

it("a pipe gets none, unless somebody has said yes", async () => {
  const args = ["profiles", "default"];
  expect((await run(args, { env: { TERM: "xterm" } })).stdout).not.toContain(ESCAPE);
  expect((await run(args, { env: { FORCE_COLOR: "1" } })).stdout).toContain(`${ESCAPE}[32misolated`);
  expect((await run(["statsu"])).stderr).not.toContain(ESCAPE);
});

itWithTerminal("a terminal is told what is waited for, and Ctrl-C ends that at once, by the signal", async () => {
  const stateDir = temporaryDirectory();
  await startGateway({ stateDir, port: await freePort() }).next("serving");
  const terminal = new Terminal(["wait", "--for", "free", "--state-dir", stateDir]);

  expect((await terminal.next("text")).text).toContain(
    "waiting for it to be free: the gateway holds the lock and listens",
  );
  terminal.pressCtrlC();

  expect(await terminal.next("ended")).toMatchObject({ code: null, signal: constants.signals.SIGINT });
});

itWithTerminal("Ctrl-C ends stop at once, by the signal", async () => {
  const stateDir = temporaryDirectory();
  const gateway = startGateway({ stateDir, port: await freePort() });
  await gateway.next("serving");
  gateway.child.kill("SIGSTOP"); // so that it does not end
  const terminal = new Terminal(["stop", "--state-dir", stateDir]);

  expect((await terminal.next("text")).text).toContain(String(gateway.pid));
  terminal.pressCtrlC();

  expect(await terminal.next("ended")).toMatchObject({ code: null, signal: constants.signals.SIGINT });
});

// C0, a real colour, C1 (CSI in one character), DEL, bidi, zero width, separators, tags, and half of a character.
const EVIL = "a\u0007\u001b[31mred\u009b2J\u007f\r\n\u202eknil\u2066\u200b\u2028\u{e0041}\ud800z";

it("neither a record nor an option reaches a terminal with control characters in it, not in JSON either", async () => {
  const stateDir = temporaryDirectory();
  mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
  const record = recordOf({ pid: await deadPid(), hostname: EVIL, runtime: EVIL, url: EVIL, stateDir: EVIL });
  writeFileSync(join(stateDir, "locks/gateway.state.lock"), record, { mode: 0o600 });
  const port = String(await freePort());

  const text = await run(["status", "--state-dir", stateDir, "--port", port]);
  const { json, stdout } = await runForJson(["status", "--state-dir", stateDir, "--port", port]);
  const usage = await run(["status", "--host", EVIL]);
  const unknown = await run([`${EVIL}`]);

  expect(text.stdout).toContain("\\u001b[31mred\\u009b2J\\u007f");
  expect(usage.stderr).toContain("red");
  for (const shown of [text.stdout, stdout, usage.stderr, unknown.stderr])
    expect(shown.replaceAll("\n", "")).toBe(plain(shown.replaceAll("\n", "")));
  expect(json.owner.hostname).toBe(EVIL);
});

it("is quiet when nobody reads on", async () => {
  for (const args of [["--help"], ["profiles", "a", "b"], ["status", "--json"], ["statsu", "--json"]]) {
    const command = new Command(args);
    command.child.stdout?.destroy();
    const { signal, stderr } = await command.ended;
    expect(signal).toBeNull();
    expect(stderr).not.toContain("EPIPE");
    expect(stderr).not.toContain("    at ");
  }
});

itWhere(process.platform === "linux", "needs /dev/full")("says so where its answer can't be written", async () => {
  const full = openSync("/dev/full", "w");
  for (const args of [["profiles", "a"], ["profiles", "a", "--json"], ["--help"]]) {
    const { code, stderr } = await run(args, { stdio: ["ignore", full, "pipe"] });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^gateway-lock: .*ENOSPC.*\n {2}next: .*\n$/);
  }
});

it("prints all of a long answer into a slow pipe before it ends", async () => {
  const names = Array.from({ length: 1500 }, (_, index) => `name-${index}`);
  const command = new Command(["profiles", ...names, "--json"]);
  command.child.stdout?.pause();
  setTimeout(() => command.child.stdout?.resume(), 200);
  const { stdout } = await command.ended;
  expect(JSON.parse(stdout).profiles).toHaveLength(names.length);
});
