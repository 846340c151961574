// Proves that waiting threads leave with their worker or process, disturb nobody else in it, and that their lack is said.

import { execFileSync, type SpawnOptions } from "node:child_process";
import { chownSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "vitest";
import { tryLockFile } from "../../lib/lock/file-lock.ts";
import { hasFlockCommand, hasStrace, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import { asOtherUser, canRunAsOtherUser, flockCommandGets, OTHER_UID } from "../support/locks.ts";
import { showTimes } from "../support/measures.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { temporaryDirectory } from "../support/temporary.ts";
import { aFile, hasPrlimit, lock, startAlone, threadsOf, until, untilWaiters, waitersOn } from "../support/waits.ts";

const it = itWhere(isLinux && hasFlockCommand, "needs procfs and flock(1)");
const itWithLimits = itWhere(isLinux && hasPrlimit, "needs procfs and prlimit(1)");
// Root may start as many threads as it likes.
const itWithThreadLimit = itWhere(
  isLinux && hasPrlimit && (!isRoot || canRunAsOtherUser),
  "needs procfs, prlimit(1) and an ordinary user who may read this checkout",
);

const WAITS = 64;
const TERMINATIONS = 15;
const SIGNALS_OF_EACH_KIND = 200;
const SAMPLES = 100;
// A thread that does not leave is waited for this long, and then left behind.
const AT_ONCE = 1000; // ms

async function ask(process: TestProcess, command: string): Promise<unknown> {
  process.send(command);
  return (await process.next(command.split(" ")[0] ?? "")).result;
}

for (const how of ["terminate", "exit", "throw", "end"]) {
  it(`leaves with its worker, 64 times, when that one is told to ${how}, and everybody else goes on`, async () => {
    const path = aFile();
    const held = lock(path);
    const threads = startFixture("wait-worker.mjs", { path });
    await threads.next("ready");
    await ask(threads, "start 0");
    await ask(threads, "terminate");
    const before = threadsOf(threads.pid);

    await ask(threads, `start ${WAITS}`);
    await untilWaiters(path, WAITS);
    const started = performance.now();
    const code = await ask(threads, how);
    expect(performance.now() - started).toBeLessThan(AT_ONCE);
    expect(code).toBe({ terminate: 1, exit: 5, throw: 1, end: 0 }[how]);
    expect(waitersOn(path)).toBe(0);
    await until(() => threadsOf(threads.pid) === before);

    expect(await ask(threads, "main")).toBe("held");
    held.release();
    expect(await ask(threads, "main")).toBe("locked");
    await ask(threads, "main-release");
    await ask(threads, "start 1");
    await threads.next("granted");
    expect(tryLockFile(path), "a second worker").toBeNull();
    await ask(threads, "terminate");
    expect(flockCommandGets(path)).toBe("granted");
  });
}

for (const [command, moment] of [
  ["race", "at the moment of the grant"],
  ["churn", "while waits come and go in it"],
]) {
  it(`leaves the lock free when its worker is terminated ${moment}`, async () => {
    const path = aFile();
    const threads = startFixture("wait-worker.mjs", { path });
    await threads.next("ready");
    expect(await ask(threads, `${command} ${TERMINATIONS}`)).toEqual(Array(TERMINATIONS + 1).fill("locked"));
    expect(flockCommandGets(path)).toBe("granted");
  });
}

for (const [how, end] of [
  ["exit", { code: 7, signal: null }],
  ["throw", { code: 1, signal: null }],
  ["reject", { code: 1, signal: null }],
  ["signal", { code: null, signal: "SIGTERM" }],
] as const) {
  it(`ends at once with its process, 64 times, and with the right code: ${how}`, async () => {
    const path = aFile();
    const held = lock(path);
    const host = startAlone("wait-exit.mjs", { path, waits: WAITS, how });
    await untilWaiters(path, WAITS);
    const told = performance.now();
    host.child.kill(how === "signal" ? "SIGTERM" : "SIGUSR2");
    expect(await host.exited).toEqual(end);
    showTimes(`${how}: ${(performance.now() - told).toFixed(1)} ms`);
    expect(performance.now() - told).toBeLessThan(AT_ONCE);
    expect(waitersOn(path)).toBe(0);
    held.release();
    expect(flockCommandGets(path)).toBe("granted");
  });
}

for (const [how, results] of [
  ["cancel", { rejected: WAITS }],
  ["timeout", { rejected: WAITS }],
  ["grant", { fulfilled: WAITS }],
] as const) {
  it(`keeps its process alive until it has ended, which then ends by itself: ${how}`, async () => {
    const path = aFile();
    const held = lock(path);
    const host = startAlone("wait-exit.mjs", { path, waits: WAITS, how });
    await host.next("waiting");
    if (how !== "timeout") await untilWaiters(path, WAITS);
    if (how === "cancel") host.child.kill("SIGUSR2");
    if (how === "grant") held.release();
    expect(await host.next("ended")).toMatchObject({ results });
    expect(await host.exited).toEqual({ code: 0, signal: null });
    held.release();
  });
}

it("takes no signal from the host, whose children and profiler notice nothing", async () => {
  const host = startFixture("wait-host.mjs", { path: aFile(), rounds: SIGNALS_OF_EACH_KIND });
  const { signals, children, profiled, waits } = await host.next("done");
  showTimes(`${waits} waits came and went; ${profiled} samples`);
  for (const [name, count] of Object.entries(signals as Record<string, number>)) {
    // Each child that ends is a SIGCHLD, too.
    if (name === "SIGCHLD") expect(count).toBeGreaterThanOrEqual(SIGNALS_OF_EACH_KIND);
    else expect(count, name).toBe(SIGNALS_OF_EACH_KIND);
  }
  const [first] = children as string[];
  expect(first).toMatch(/^0 null 0+ /);
  expect(new Set(children), "the same as before the first wait").toEqual(new Set([first]));
  expect(profiled).toBeGreaterThan(SAMPLES);
  expect(await host.exited).toEqual({ code: 0, signal: null });
});

/** Takes away what a running process may still start or open, and gives it back. */
async function withLimit(
  { pid, as }: { pid: number; as: SpawnOptions },
  resource: "nproc" | "nofile" | "sigpending",
  soft: number,
  use: () => Promise<void>,
): Promise<void> {
  const name = { nproc: "Max processes", nofile: "Max open files", sigpending: "Max pending signals" }[resource];
  const before = new RegExp(`^${name} +(\\w+)`, "m").exec(readFileSync(`/proc/${pid}/limits`, "utf8"))?.[1];
  const set = (value: unknown) =>
    execFileSync("prlimit", ["--pid", String(pid), `--${resource}=${value}:`], as as object);
  set(soft);
  await use();
  set(before);
}

function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

for (const [what, resource, message] of [
  [
    "thread",
    "nproc",
    /^failed to acquire gateway lock at \S+: EAGAIN: resource temporarily unavailable, pthread_create/,
  ],
  ["descriptor", "nofile", /^failed to acquire gateway lock at \S+: EMFILE: too many open files, open /],
] as const) {
  const itWithLimit = resource === "nproc" ? itWithThreadLimit : itWithLimits;
  itWithLimit(
    `says that there is no ${what} left, leaves nothing behind, and waits when there is one again`,
    async () => {
      const path = aFile();
      const as = isRoot && resource === "nproc" ? asOtherUser : {};
      if (as === asOtherUser) chownSync(dirname(path), OTHER_UID, OTHER_UID);
      const holder = startFixture("lock-holder.mjs", { path }, as);
      await holder.next("locked");
      const host = startFixture("wait-poor.mjs", { path }, as);
      await host.next("ready");
      const before = { threads: threadsOf(host.pid), descriptors: descriptorsOf(host.pid) };
      const leaver = startFixture("wait-poor.mjs", { path }, as);
      await leaver.next("ready");
      await withLimit({ pid: leaver.pid, as }, resource, 1, async () => {
        leaver.send("wait");
        await leaver.next("failed");
      });
      // Whoever could not wait is not kept alive by it.
      leaver.send("leave");
      expect(await leaver.exited).toEqual({ code: 0, signal: null });
      await withLimit({ pid: host.pid, as }, resource, 1, async () => {
        for (let attempt = 0; attempt < 3; attempt++) {
          host.send("wait");
          expect(await host.next("failed", "locked")).toMatchObject({
            name: "GatewayLockError",
            code: "LOCK_FAILED",
            message: expect.stringMatching(message),
            cause: resource === "nproc" ? "EAGAIN" : "EMFILE",
          });
          expect(waitersOn(path)).toBe(0);
          expect({ threads: threadsOf(host.pid), descriptors: descriptorsOf(host.pid) }).toEqual(before);
        }
      });
      host.send("wait");
      await untilWaiters(path, 1);
      holder.send("release");
      await host.next("locked");
      expect(flockCommandGets(path)).toBe("refused");
      host.send("release");
      await host.next("released");
      expect(flockCommandGets(path)).toBe("granted");
    },
  );
}

itWhere(isLinux && hasPrlimit && hasStrace, "needs procfs, prlimit(1) and strace")(
  "is cancelled as soon as the kernel has room for one more pending signal, and not before",
  async () => {
    const WAITS = 4;
    const [path, log] = [aFile(), join(temporaryDirectory(), "log")];
    const held = lock(path);
    const argument = JSON.stringify({ path, waits: WAITS, how: "cancel" });
    const strace = ["-D", "-f", "-qq", "-o", log, "-e", "trace=tgkill", "-e", "signal=none"];
    const host = new TestProcess("strace", [...strace, process.execPath, fixturePath("wait-exit.mjs"), argument]);
    await untilWaiters(path, WAITS);
    const sent = (how: RegExp) => readFileSync(log, "utf8").match(how)?.length ?? 0;
    await withLimit({ pid: host.pid, as: {} }, "sigpending", 0, async () => {
      host.child.kill("SIGUSR2");
      await until(() => sent(/= -1 EAGAIN/g) > WAITS);
      expect(waitersOn(path)).toBe(WAITS);
    });
    expect(await host.next("ended")).toMatchObject({ results: { rejected: WAITS } });
    expect(sent(/= 0$/gm)).toBe(WAITS);
    held.release();
    expect(flockCommandGets(path)).toBe("granted");
  },
);
