// Proves that exclusion holds among racing processes and threads, and that the kernel frees a lock with its holder.

import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { tryLockFile } from "../../lib/lock/file-lock.ts";
import { isLinux, itWhere } from "../support/capabilities.ts";
import { canInjectFaults } from "../support/locks.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const it = itWhere(isLinux, "needs Linux");
const itWithFaults = itWhere(canInjectFaults, "needs strace with fault injection");

const RACERS = 6;
const ROUNDS = 250;
const LONGEST_HOLD = 60_000; // ns, for each quarter of the rounds a third of it more

it("grants no two of many processes that lock, delete and make the same file anew a lock at the same time", async () => {
  const directory = temporaryDirectory();
  const [path, log] = [join(directory, "a.lock"), join(temporaryDirectory(), "intervals")];
  const racers = Array.from({ length: RACERS }, () =>
    startFixture("lock-race.mjs", { path, log, rounds: ROUNDS, spin: LONGEST_HOLD / 3 }),
  );
  for (const racer of racers) await racer.next("ready");
  for (const racer of racers) racer.send("go");
  let denials = 0;
  for (const racer of racers) denials += (await racer.next("done")).denials;

  const intervals = readFileSync(log, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => line.split(" ").map(BigInt) as [start: bigint, end: bigint])
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const overlaps = intervals.filter(([start], index) => index > 0 && start < (intervals[index - 1]?.[1] ?? 0n));
  expect(overlaps).toEqual([]);
  expect(intervals).toHaveLength(RACERS * ROUNDS);
  expect(denials, "they must have met").toBeGreaterThan(0);
  expect(readdirSync(directory)).toEqual([]);
});

it("is freed by SIGKILL, and the file that stays behind is no hindrance", async () => {
  const path = join(temporaryDirectory(), "a.lock");
  const holder = startFixture("lock-holder.mjs", { path, remove: true });
  await holder.next("locked");
  await holder.kill();
  expect(readdirSync(join(path, ".."))).toEqual([basename(path)]);
  const lock = tryLockFile(path);
  expect(lock?.held).toEqual(true);
  lock?.release();
});

it("is not kept by a child process that outlives its holder", async () => {
  const path = join(temporaryDirectory(), "a.lock");
  const holder = startFixture("lock-holder.mjs", { path });
  await holder.next("locked");
  holder.send("child");
  const { pid } = await holder.next("child");
  onTestFinished(() => void process.kill(pid, "SIGKILL"));
  await holder.kill();
  const lock = tryLockFile(path);
  expect(lock?.held).toEqual(true);
  lock?.release();
  expect(process.kill(pid, 0), "the child must still be there").toEqual(true);
});

it("is not released by garbage collection", async () => {
  const path = join(temporaryDirectory(), "a.lock");
  const fixture = [fixturePath("lock-unreachable.mjs"), JSON.stringify({ path })];
  const holder = new TestProcess(process.execPath, ["--expose-gc", ...fixture]);
  await holder.next("collected");
  expect(tryLockFile(path)).toBeNull();
  await holder.kill();
  tryLockFile(path)?.release();
});

async function ask(threads: TestProcess, command: string): Promise<unknown> {
  threads.send(command);
  return (await threads.next(command)).result;
}

it("works in other threads after the worker that loaded the addon first has ended", async () => {
  const path = join(temporaryDirectory(), "a.lock");
  const threads = startFixture("lock-threads.mjs", { path });
  expect(await ask(threads, "start")).toBe("locked");
  await ask(threads, "finish");
  // A thread that has not left yet, or a handler of a signal, would be in code that is gone.
  expect(readFileSync(`/proc/${threads.pid}/maps`, "utf8")).toMatch(/\.node$/m);
  expect(await ask(threads, "start"), "a second worker").toBe("locked");
  await ask(threads, "terminate");
  expect(await ask(threads, "main"), "the main thread").toBe("locked");
  expect(tryLockFile(path)).toBeNull();
  expect(await ask(threads, "start"), "a third worker, against the main thread").toBe("held");
});

it("is held by a worker against the main thread, and freed when the worker is terminated", async () => {
  const path = join(temporaryDirectory(), "a.lock");
  const threads = startFixture("lock-threads.mjs", { path });
  expect(await ask(threads, "start")).toBe("locked");
  expect(await ask(threads, "main")).toBe("held");
  expect(tryLockFile(path), "and against other processes").toBeNull();
  await ask(threads, "terminate");
  expect(await ask(threads, "main")).toBe("locked");
});

/** A fixture for which flock(2) returns what `result` says. */
function startWithFlock(result: string, fixture: string, argument: unknown): TestProcess {
  const strace = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", `inject=flock:${result}`];
  return new TestProcess("strace", [...strace, process.execPath, fixturePath(fixture), JSON.stringify(argument)]);
}

itWithFaults("names directory and filesystem where flock has no locks left, and leaves no file", async () => {
  for (const errno of ["EOPNOTSUPP", "ENOSYS", "EINVAL", "ENOLCK"]) {
    const directory = temporaryDirectory();
    const path = join(directory, "a.lock");
    const holder = startWithFlock(`error=${errno}`, "lock-holder.mjs", { path });
    expect(await holder.next("failed"), errno).toMatchObject({
      name: "GatewayLockError",
      code: "LOCK_UNSUPPORTED",
      message: expect.stringMatching(/^the filesystem at \S+ \(\w+\) cannot hold a lock: /),
      cause: { code: errno === "EOPNOTSUPP" ? expect.stringMatching(/^(EOPNOTSUPP|ENOTSUP)$/) : errno },
    });
    holder.send("exit");
    await holder.exited;
    expect(readdirSync(directory)).toEqual([]);
  }
});

itWithFaults("repeats a lock attempt that a signal interrupts", async () => {
  const path = join(temporaryDirectory(), "a.lock");
  const holder = startWithFlock("error=EINTR:when=1..3", "lock-holder.mjs", { path });
  await holder.next("locked");
  expect(tryLockFile(path)).toBeNull();
});

itWithFaults("finds out a filesystem without locks before it acquires a gateway, and leaves nothing", async () => {
  const stateDir = temporaryDirectory();
  const gateway = startWithFlock("error=ENOLCK", "gateway.mjs", { stateDir, port: await freePort() });
  expect(await gateway.next("refused", "acquired")).toMatchObject({
    event: "refused",
    code: "LOCK_UNSUPPORTED",
    message: expect.stringContaining(`the filesystem at ${stateDir} (`),
    retryable: false,
    exitCode: 1,
  });
  await gateway.exited;
  expect(filesIn(stateDir)).toEqual([]);
});

itWithFaults(
  "finds out a filesystem that grants every lock when it acquires a gateway, and leaves nothing",
  async () => {
    const stateDir = temporaryDirectory();
    const gateway = startWithFlock("retval=0", "gateway.mjs", { stateDir, port: await freePort() });
    expect(await gateway.next("refused", "acquired")).toMatchObject({
      event: "refused",
      code: "LOCK_UNSUPPORTED",
      message: expect.stringContaining("it granted one lock twice"),
    });
    await gateway.exited;
    expect(filesIn(stateDir)).toEqual([]);
  },
);

/** Directories may stay: removing them would race with a rival that is just opening them. */
function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name);
}
