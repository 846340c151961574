// `gateway-lock run --handover`: one takes over from another, whose program is ended for it, and clients wait in between.

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { readOwner } from "../../lib/lock/record.ts";
import { hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { CLI } from "../support/commands.ts";
import { lockFilesIn } from "../support/gateways.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";
import { hasPrlimit, until } from "../support/waits.ts";

const it = itWhere(isLinux && hasPython, "needs python3 on Linux");
const itWithPrlimit = itWhere(isLinux && hasPrlimit, "needs prlimit(1)");

interface Claim {
  readonly stateDir: string;
  readonly port: number;
}

async function aClaim(): Promise<Claim> {
  return { stateDir: temporaryDirectory(), port: await freePort() };
}

const ownerOf = ({ stateDir }: Claim) => readOwner(join(stateDir, "locks/gateway.state.lock"));
/** Answers what has come, and then ends. */
const SERVER = `
  const server = require("node:http").createServer((_, response) => response.end(String(process.pid)));
  server.listen({ fd: 3 }, () => console.log(JSON.stringify({ event: "serving", pid: process.pid })));
  process.on("SIGTERM", () => server.close(() => process.exit()));
`;

const python = ["python3", fixturePath("run-server.py")];
const graceful = [process.execPath, "-e", SERVER];
/** Takes no notice of SIGTERM, once it has told of it. */
const stubborn = [process.execPath, fixturePath("run-server.mjs")];

function run(claim: Claim, command: readonly string[], options: readonly string[] = ["--handover"]): TestProcess {
  const { stateDir, port } = claim;
  const args = [CLI, "run", "--state-dir", stateDir, "--port", String(port), ...options, "--", ...command];
  const runner = new TestProcess(process.execPath, args);
  onTestFinished(() => {
    for (const pid of ownerOf(claim).holders) process.kill(pid, "SIGKILL");
  });
  return runner;
}

/** Clients with a connection each, one after the other, until they are told to stop: who has answered, and what went wrong. */
function visit(port: number): { stop(): Promise<string[]> } {
  const heard = new Set<string>();
  let visits = true;
  const ended = (async () => {
    while (visits) {
      const answer = await fetch(`http://127.0.0.1:${port}`, { headers: { connection: "close" } }).catch(
        (error) => error.cause,
      );
      heard.add(answer instanceof Response ? await answer.text() : String(answer.code ?? answer));
    }
  })();
  return {
    stop: async () => {
      visits = false;
      await ended;
      return [...heard];
    },
  };
}

it("replaces the running one, whose program hears SIGTERM; it ends well, and clients wait", async () => {
  const claim = await aClaim();
  const first = run(claim, python);
  const { pid: old } = await first.next("serving");
  await until(() => ownerOf(claim).record?.pid === old);

  const second = run(claim, graceful);
  expect((await first.next("signal")).name).toBe("SIGTERM");
  const { pid } = await second.next("serving");

  expect(await first.exited).toEqual({ code: 0, signal: null });
  expect(first.stderr).toBe(
    `gateway-lock: pid ${second.pid} asks for the gateway: the program is told to end\ngateway-lock: the gateway has been handed over to pid ${second.pid}\n`,
  );
  expect(second.stderr).toBe(`gateway-lock: pid ${first.pid} hands its gateway over\n`);
  await until(() => ownerOf(claim).record?.pid === pid);
  expect([...ownerOf(claim).holders].sort()).toEqual([pid, second.pid].sort());

  second.child.kill("SIGTERM");
  await second.exited;
  expect(lockFilesIn(claim.stateDir)).toEqual([]);
});

it("three times in a row refuses no client", async () => {
  const claim = await aClaim();
  let runner = run(claim, graceful);
  await runner.next("serving");
  const visitor = visit(claim.port);
  for (let time = 0; time < 3; time++) {
    const next = run(claim, graceful);
    await next.next("serving");
    expect(await runner.exited).toEqual({ code: 0, signal: null });
    runner = next;
  }
  // What the program itself has accepted, it may reset: from Node 26 on its server.close() ends who has not sent anything yet.
  expect(await visitor.stop()).not.toContain("ECONNREFUSED");
});

it("takes over from a program that uses the library, and from one that has adopted its claim", async () => {
  const claim = await aClaim();
  const program = startFixture("handover-gateway.mjs", { options: claim });
  await program.next("acquired");
  const adopting = [process.execPath, fixturePath("handover-gateway.mjs"), JSON.stringify({ options: claim })];
  const runner = run(claim, adopting);
  await program.next("handed-over");
  await runner.next("acquired");
  await until(() => ownerOf(claim).holders.length === 1);

  const last = run(claim, python);
  await runner.next("handed-over");
  await last.next("serving");

  expect(await runner.exited).toEqual({ code: 0, signal: null });
  expect(readdirSync(join(claim.stateDir, "locks"))).toContain("gateway.state.sock");
});

it("starts its program again, if that has ended for a successor that came to nothing", async () => {
  const claim = await aClaim();
  const runner = run(claim, python);
  const { pid: before } = await runner.next("serving");
  const successor = startFixture("handover-gateway.mjs", { options: claim, stopAt: "successor received" });
  expect(await successor.exited).toEqual({ code: null, signal: "SIGKILL" });
  const { pid: after } = await runner.next("serving");
  expect(after).not.toBe(before);
  await until(() => ownerOf(claim).record?.pid === after);
  expect(runner.stderr).toContain("gateway-lock: the gateway goes on here: the program is started again\n");
  runner.child.kill("SIGTERM");
  await runner.exited;
  expect(lockFilesIn(claim.stateDir)).toEqual([]);
});

it("waits for the end of a program whose runner was killed over that", async () => {
  const claim = await aClaim();
  const told = `(console.log('{"event": "told"}'), setTimeout(() => process.exit(), 500))`;
  const runner = run(claim, [process.execPath, "-e", SERVER.replace("server.close(() => process.exit())", told)]);
  await runner.next("serving");
  const successor = startFixture("handover-gateway.mjs", { options: claim });
  await runner.next("told");
  await runner.kill();
  expect(await successor.next("acquired", "refused")).toMatchObject({ event: "acquired" });
});

it("leaves nothing when it is told to end in the middle of one", async () => {
  const claim = await aClaim();
  const runner = run(claim, python);
  await runner.next("serving");
  const successor = startFixture("handover-gateway.mjs", {
    options: claim,
    stopAt: "successor received",
    signal: "SIGSTOP",
  });
  await successor.next("successor draining");
  await runner.next("signal");
  await until(() => readFileSync(`/proc/${successor.pid}/status`, "utf8").includes("State:\tT"));
  runner.child.kill("SIGTERM");
  await successor.kill();
  expect(await runner.exited).toEqual({ code: null, signal: "SIGTERM" });
  expect(lockFilesIn(claim.stateDir)).toEqual([]);
});

it("is no matter of what can be told: standard error may be full", async () => {
  const claim = await aClaim();
  const { stateDir, port } = claim;
  const args = [CLI, "run", "--state-dir", stateDir, "--port", String(port), "--handover", "--", ...graceful];
  const muted = ["-c", 'exec "$@" 2>/dev/full', "sh", process.execPath, ...args];
  const first = new TestProcess("/bin/sh", muted);
  await first.next("serving");
  const second = run(claim, graceful);
  await second.next("serving");
  expect(await first.exited).toEqual({ code: 0, signal: null });
});

it("tells a terminal as often as there is something to tell, and nothing else", async () => {
  const claim = await aClaim();
  const { stateDir, port } = claim;
  const args = [CLI, "run", "--state-dir", stateDir, "--port", String(port), "--handover", "--", ...graceful];
  const terminal = new TestProcess("python3", [fixturePath("terminal.py"), process.execPath, ...args]);
  await terminal.next("serving");
  const told: string[] = [];
  for (let time = 1; time <= 6; time++) {
    const successor = startFixture("handover-gateway.mjs", { options: claim, stopAt: "successor received" });
    for (;;) {
      const { event, text } = await terminal.next("text", "serving");
      if (event === "serving") break;
      told.push(text);
    }
    await successor.exited;
  }
  expect(told.filter((line) => line.startsWith("gateway-lock: "))).toHaveLength(12);
  expect(told.filter((line) => /listeners|memory/.test(line))).toEqual([]);
});

it("of one without --handover is refused", async () => {
  const claim = await aClaim();
  await run(claim, python, []).next("serving");
  const second = run(claim, python);
  expect(await second.exited).toEqual({ code: 75, signal: null });
  expect(second.stderr).toContain(
    "gateway-lock: the running gateway did not hand over: it does not offer that: it was started without `handover`",
  );
});

it("goes on when the program does not end, and ends with it when it does", async () => {
  const claim = await aClaim();
  const runner = run(claim, stubborn);
  const { pid } = await runner.next("serving");
  await until(() => ownerOf(claim).record?.pid === pid);
  const successor = startFixture("handover-gateway.mjs", { options: claim, stopAt: "successor draining" });
  expect((await runner.next("signal")).signal).toBe("SIGTERM");
  expect(await successor.exited).toEqual({ code: null, signal: "SIGKILL" });
  // It serves on, and whether it is the program's own end that comes next is not for the command to know.
  expect(await (await fetch(`http://127.0.0.1:${claim.port}`)).text()).toBe("node");
  process.kill(pid, "SIGKILL");
  const { pid: next } = await runner.next("serving");
  expect(next).not.toBe(pid);
});

itWithPrlimit("leaves nothing when its program can't be started again", async () => {
  const claim = await aClaim();
  const runner = run(claim, stubborn);
  const { pid } = await runner.next("serving");
  await until(() => ownerOf(claim).record?.pid === pid);
  const successor = startFixture("handover-gateway.mjs", { options: claim, stopAt: "successor draining" });
  await successor.exited;
  // All numbers up to those of the locks are in use, until the claim is given up.
  const open = readdirSync(`/proc/${runner.pid}/fd`).filter((fd) =>
    readlinkSync(`/proc/${runner.pid}/fd/${fd}`).endsWith(".lock"),
  );
  execFileSync("prlimit", ["--pid", String(runner.pid), `--nofile=${Math.max(...open.map(Number)) + 1}:`]);
  process.kill(pid, "SIGKILL");
  expect(await runner.exited).toEqual({ code: 1, signal: null });
  expect(runner.stderr).toContain("EMFILE");
  expect(lockFilesIn(claim.stateDir)).toEqual([]);
});
