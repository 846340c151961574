// Proves what comes of a disk, a limit, a path or a clock that is really wrong, where test:faults only says so to the process.

import { spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, openSync, readdirSync, statSync, writeSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { readOwner } from "../../lib/lock/record.ts";
import { canUnshareMount, isLinux, itWhere } from "../support/capabilities.ts";
import { isPortFree, refusalOf } from "../support/gateways.ts";
import { flockCommandGets } from "../support/locks.ts";
import { fixturePath, startFixture, startGateway, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory, wipe } from "../support/temporary.ts";

const works = (command: string, ...args: string[]): boolean => spawnSync(command, args).status === 0;
const hasPrlimit = works("prlimit", "--version");
const hasCompiler = works("gcc", "--version");
const DAY = 24 * 3600 * 1000; // ms

/** A gateway in a mount namespace, after `script` has been run there with its directory as $1. */
function startMounted(script: string, options: { readonly stateDir: string; readonly port: number }): TestProcess {
  const command = ["--user", "--map-root-user", "--mount", "sh", "-ec", `${script}; exec "$2" "$3" "$4"`, "sh"];
  const fixture = [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
  return new TestProcess("unshare", [...command, options.stateDir, ...fixture]);
}

function answerOf(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ host: "127.0.0.1", port, agent: false }, (response) => {
      response.setEncoding("utf8").once("data", resolve);
    }).once("error", reject);
  });
}

itWhere(canUnshareMount, "no mount namespaces")(
  "a filesystem that is read only is named, and stays as it is",
  async () => {
    const [stateDir, port] = [temporaryDirectory(), await freePort()];
    const readOnly = startMounted('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', { stateDir, port });
    const refused = await readOnly.next("refused", "acquired");
    expect(refused).toMatchObject({ event: "refused", code: "LOCK_FAILED", exitCode: 1, cause: { code: "EROFS" } });
    expect(refused.message).toContain(stateDir);
    expect(readdirSync(stateDir)).toEqual([]);
    expect(await isPortFree(port)).toBe("free");
  },
);

// The root, locks/, two lock files and a socket need five.
for (const inodes of [1, 2, 3, 4, 5]) {
  itWhere(canUnshareMount, "no mount namespaces")(
    `a filesystem with room for ${inodes} inodes has all of a gateway, or nothing`,
    async () => {
      const [stateDir, port] = [temporaryDirectory(), await freePort()];
      const options = { stateDir, port, handover: true };
      const gateway = startMounted(`mount -t tmpfs -o nr_inodes=${inodes} tmpfs "$1"`, options);
      const end = await gateway.next("refused", "acquired");
      if (inodes === 5) return expect(end.event).toBe("acquired");
      expect(end).toMatchObject({ code: "LOCK_FAILED", exitCode: 1, cause: { code: "ENOSPC" } });
      expect(await isPortFree(port)).toBe("free");
    },
  );
}

itWhere(hasPrlimit, "no prlimit(1)")(
  "with too few descriptors a gateway is refused or complete, at each number of them, and nothing is left",
  async () => {
    const stateDir = temporaryDirectory();
    const subject = new TestProcess("prlimit", [
      "--nofile=80",
      process.execPath,
      fixturePath("few-descriptors.mjs"),
      JSON.stringify({ stateDir, port: await freePort(), most: 14 }),
    ]);
    const { outcomes, left, files } = await subject.next("done");
    expect(left, "descriptors").toEqual([]);
    expect(files).toEqual([]);
    // No descriptor, then one more each time, until there are enough.
    const first = outcomes.indexOf("acquired");
    expect(first).toBeGreaterThan(3);
    for (const outcome of outcomes.slice(0, first)) expect(outcome).toMatch(/^(LOCK_FAILED|BIND_FAILED) EMFILE$/);
    for (const outcome of outcomes.slice(first)) expect(outcome).toBe("acquired");
  },
);

it("a name or path that is too long is named", async () => {
  const stateDir = temporaryDirectory();
  for (const path of [join(stateDir, "x".repeat(256)), join(stateDir, "directory/".repeat(450))]) {
    const error = await refusalOf({ stateDir: path, port: 0 });
    expect(error).toMatchObject({ code: "LOCK_FAILED", cause: { code: "ENAMETOOLONG" } });
    expect(error.message).toMatch(/^failed to acquire gateway lock at .*ENAMETOOLONG/);
  }
  expect(readdirSync(stateDir)).toEqual([]);
});

itWhere(isLinux, "needs Linux")(
  "a standby whose directory is deleted while it waits owns a new one, and nobody else does",
  async () => {
    const [parent, port] = [temporaryDirectory(), await freePort()];
    const stateDir = join(parent, "state");
    const owner = startGateway({ stateDir, port });
    await owner.next("serving");
    const standby = startFixture("waiting-gateway.mjs", { stateDir, port, timeout: 60_000 });
    await standby.next("waiting");

    wipe(stateDir);

    expect(await owner.next("lost")).toMatchObject({ code: "LOCK_LOST" });
    owner.send("close");
    await owner.next("done");
    await standby.next("acquired");
    expect(statSync(stateDir).mode & 0o777).toBe(0o700);
    expect(readOwner(join(stateDir, "locks", "gateway.state.lock"))).toMatchObject({ holders: [standby.pid] });
    expect(flockCommandGets(stateDir)).toBe("refused");
    expect(await refusalOf({ stateDir, port })).toMatchObject({ owner: { pid: standby.pid } });
  },
);

itWhere(isLinux, "no SIGSTOP to rely on")("an owner that is suspended is not taken for dead, and goes on", async () => {
  const [stateDir, port] = [temporaryDirectory(), await freePort()];
  const owner = startGateway({ stateDir, port });
  await owner.next("serving");
  process.kill(owner.pid, "SIGSTOP");
  onTestFinished(() => {
    owner.child.kill("SIGKILL");
  });
  for (const timeout of [0, 300]) {
    const error = await refusalOf({ stateDir, port, timeout });
    expect(error).toMatchObject({ code: "ALREADY_LISTENING", owner: { pid: owner.pid }, listener: { pid: owner.pid } });
  }
  expect(readOwner(join(stateDir, "locks", "gateway.state.lock"))).toMatchObject({
    locked: true,
    holders: [owner.pid],
  });
  process.kill(owner.pid, "SIGCONT");
  expect(await answerOf(port)).toBe(`pid ${owner.pid}`);
});

itWhere(hasCompiler && isLinux, "no compiler")(
  "a wall clock that jumps by a day in either direction disturbs no wait, no owner and no record",
  async () => {
    const [directory, port] = [temporaryDirectory(), await freePort()];
    const [stateDir, offset, library] = [
      join(directory, "state"),
      join(directory, "offset"),
      join(directory, "clock.so"),
    ];
    const compiled = spawnSync("gcc", ["-shared", "-fPIC", "-o", library, fixturePath("jumping-clock.c"), "-ldl"]);
    expect(compiled.stderr.toString()).toBe("");
    const file = openSync(offset, "w");
    onTestFinished(() => closeSync(file));
    ftruncateSync(file, 8);
    const jump = (ms: number) => writeSync(file, new BigInt64Array([BigInt(ms)]), 0, 8, 0);
    const env = { ...process.env, LD_PRELOAD: library, JUMPING_CLOCK: offset };
    const owner = startGateway({ stateDir, port }, { env });
    await owner.next("serving");
    for (const ms of [DAY, -DAY]) {
      const contender = startFixture("waiting-gateway.mjs", { stateDir, port, timeout: 700 }, { env });
      const { now } = await contender.next("waiting");
      jump(ms);
      const refused = await contender.next("refused", "acquired");
      expect(Math.abs(refused.now - now - ms), "the clock has jumped for this process").toBeLessThan(DAY / 2);
      expect(refused).toMatchObject({ event: "refused", code: "ALREADY_LISTENING" });
      expect(refused.ms).toBeGreaterThanOrEqual(690);
      expect(refused.ms).toBeLessThan(5000);
      jump(0);
    }
    owner.send("update {}");
    await owner.next("done");
    // It watches on: within a second, as ever.
    wipe(join(stateDir, "locks"));
    await expect
      .poll(() => readOwner(join(stateDir, "locks", "gateway.state.lock")).record?.pid, { timeout: 5000 })
      .toBe(owner.pid);
  },
);
