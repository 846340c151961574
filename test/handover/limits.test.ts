// Proves that a handover ends in good time, whatever does not: a request that is never answered, an application without last words.

import { mkdirSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { CLI } from "../support/commands.ts";
import { refusalOf } from "../support/gateways.ts";
import { heirs } from "../support/handovers.ts";
import { bodyOf } from "../support/listener-tools.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";

const it = itWhere(isLinux && hasPython, "needs python3 on Linux");

/** An owner that says what it is told to. */
async function impostor(stateDir: string): Promise<TestProcess> {
  mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
  const args = [fixturePath("handover-peer.py"), "owner", join(stateDir, "locks/gateway.state.sock"), stateDir];
  const peer = new TestProcess("python3", args);
  await peer.next("ready");
  return peer;
}

it("after ten seconds: the owner serves on, and the successor is told what was not done", async () => {
  const play = async ({ stateDir, port }: { stateDir: string; port: number }, hook?: string) => {
    const options = { stateDir, port };
    const owner = startFixture("handover-gateway.mjs", { options, hook });
    await owner.next("acquired");
    const stream = hook === undefined ? get({ port, path: "/stream", agent: false }) : null;
    await new Promise((resolve) => (stream === null ? resolve(null) : stream.once("response", resolve)));
    const successor = startFixture("handover-gateway.mjs", { options });
    const { code, message, ms } = await successor.next("refused");
    await owner.next("owner resumed");
    const answer = await bodyOf(port);
    stream?.destroy();
    return { code, message, ms, answer: answer === String(owner.pid) };
  };
  const [one, two, three] = [await heirs(), await heirs(), await heirs()];
  const [stream, hook, drain] = await Promise.all([play(one), play(two, "hang"), play(three, "hang-drain")]);
  const failure = (reason: string) => `the running gateway did not hand over: ${reason}`;
  expect(stream).toMatchObject({
    code: "HANDOVER_FAILED",
    message: failure("not answered yet: GET /stream, after 10 s"),
    answer: true,
  });
  expect(hook).toMatchObject({
    code: "HANDOVER_FAILED",
    message: failure("its onHandover has not resolved within 10 s"),
    answer: true,
  });
  expect(drain).toMatchObject({
    code: "HANDOVER_FAILED",
    message: failure("its onDrain has not resolved after 10 s"),
    answer: true,
  });
  for (const { ms } of [stream, hook, drain]) expect(ms).toBeGreaterThan(9900);
}, 60_000);

it("after ten seconds, also for the program of gateway-lock run, which is started again when it has ended after all", async () => {
  const { stateDir, port } = await heirs();
  const program = [process.execPath, fixturePath("run-server.mjs")];
  const args = [CLI, "run", "--state-dir", stateDir, "--port", String(port), "--handover", "--", ...program];
  const runner = new TestProcess(process.execPath, args);
  const { pid } = await runner.next("serving");
  const successor = startFixture("handover-gateway.mjs", { options: { stateDir, port } });
  expect((await runner.next("signal")).signal).toBe("SIGTERM");
  expect((await successor.next("refused")).message).toBe(
    `the running gateway did not hand over: its onHandover has failed: its program (pid ${pid}) has not ended within 9.5 s of SIGTERM`,
  );
  expect(await bodyOf(port)).toBe("node");
  process.kill(pid, "SIGKILL");
  const { pid: next } = await runner.next("serving");
  expect(runner.stderr).toContain(`the program (pid ${pid}) was told to end, and is started again when it has`);

  // What an operator wants is no handover.
  const second = startFixture("handover-gateway.mjs", { options: { stateDir, port }, stopAt: "successor draining" });
  await runner.next("signal");
  await second.exited;
  runner.child.kill("SIGTERM");
  await runner.next("signal");
  process.kill(next, "SIGKILL");
  expect(await runner.exited).toEqual({ code: null, signal: "SIGKILL" });
}, 60_000);

it("after ten seconds, where an owner says nothing and keeps its lock: nobody asks for ever", async () => {
  const { stateDir, port } = await heirs();
  const owner = await impostor(stateDir);
  const successor = startFixture("handover-gateway.mjs", { options: { stateDir, port } });
  await owner.next("said");
  owner.send("close");
  const { code, message, ms } = await successor.next("refused");
  expect(code).toBe("HANDOVER_FAILED");
  expect(message).toBe("the running gateway did not hand over: it ends without a word, and somebody has its lock");
  expect(ms).toBeLessThan(12_000);
}, 60_000);

it("after 25 s, where an owner has nothing to say but that it is busy", async () => {
  const { stateDir, port } = await heirs();
  const owner = await impostor(stateDir);
  const refusal = refusalOf({ stateDir, port, handover: true });
  await owner.next("said");
  const talk = setInterval(() => owner.send('say {"type":"progress","requests":1}'), 500);
  onTestFinished(() => clearInterval(talk));
  expect((await refusal).message).toBe("the running gateway did not hand over: it has given nothing after 25 s");
}, 60_000);
