// Whatever the suite starts either answers or fails the run by name, and ends with it.

import { readFileSync } from "node:fs";
import { expect, it, onTestFinished } from "vitest";
import { Child } from "../../bench/harness/processes.mjs";

function start(script: string): Child {
  const child = new Child("the contender", "sh", ["-c", script]);
  onTestFinished(() => child.end());
  return child;
}

it("an answer comes back as what it says", async () => {
  const child = start(`read line; echo "{\\"heard\\":\\"$line\\"}"; read line`);
  expect(await child.ask("batch 3")).toEqual({ heard: "batch 3" });
});

it("one that dies fails the question with its name, its pid, how it ended and what it last said", async () => {
  const child = start("echo no descriptors left >&2; read line; exit 3");
  await expect(child.ask("batch 1")).rejects.toThrow(
    `the contender (pid ${child.pid}) was expected to answer, but it ended with code 3. no descriptors left`,
  );
  await expect(child.next()).rejects.toThrow("it ended with code 3");
});

it("one that is killed fails the question too", async () => {
  const child = start("read line; kill -9 $$");
  await expect(child.ask("batch 1")).rejects.toThrow("it ended with SIGKILL");
});

it("one that is not there fails by name", async () => {
  const child = new Child("the contender", "/nonexistent/program", []);
  await expect(child.next()).rejects.toThrow("the contender");
  await child.end();
});

it("one that keeps silent fails when its time is over", async () => {
  const child = start("read line; read line");
  await expect(child.ask("batch 1", 50)).rejects.toThrow("has not answered for 0.05 s");
});

it("what a process has started ends with it", async () => {
  const child = start(`sleep 1000 & echo "{\\"pid\\":$!}"; wait`);
  const { pid } = await child.next();
  await child.end();
  // A zombie until its new parent looks.
  await expect.poll(() => stateOf(pid)).toMatch(/^[ZX-]$/);
});

function stateOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.[0] ?? "-";
  } catch {
    return "-";
  }
}
