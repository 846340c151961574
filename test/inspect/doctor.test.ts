// The doctor answers every check, finds each fault of the place and the lock, and no longer when it is repaired.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { type CheckName, type DoctorOptions, diagnose, type Finding } from "../../lib/inspect/doctor.ts";
import { hasFlockCommand, isLinux, isRoot, itWhere } from "../support/capabilities.ts";
import {
  diagnoseElsewhere,
  expectFault,
  expectFine,
  faultsAmong,
  faultsIn,
  findingOf,
  pick,
} from "../support/doctor.ts";
import { acquire, deadPid, holdWithFlock, recordOf } from "../support/gateways.ts";
import {
  asOtherUser,
  canInjectFaults,
  canMountFuse,
  canRunAsOtherUser,
  FUSE,
  OTHER_UID,
  seesAllLocks,
} from "../support/locks.ts";
import { fixturePath, startFixture, startGateway, TestProcess } from "../support/processes.ts";
import { hashedLock, STATE_LOCK } from "../support/resources.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";
import { PATIENCE } from "../support/waits.ts";

const CHECKS: readonly CheckName[] = [
  "addon",
  "filesystem",
  "permissions",
  "record",
  "lock-file",
  "port-owner",
  "loopback",
  "wildcard",
  "ephemeral-range",
  "profiles",
  "derived-ports",
  "supervisor",
  "clock",
];

/** A state directory and a port of the test's own. */
async function aGateway(): Promise<{ stateDir: string; port: number }> {
  return { stateDir: temporaryDirectory(), port: await freePort() };
}

function stateLock(stateDir: string): string {
  return join(stateDir, "locks", STATE_LOCK);
}

describe("every check is answered, in one order", () => {
  it("where nothing runs, nothing is wrong, and nothing is left behind", async () => {
    const options = await aGateway();
    const findings = await diagnose(options);
    expect(findings.map(({ check }) => check)).toEqual(CHECKS);
    expect(faultsAmong(findings)).toEqual([]);
    for (const { evidence } of findings) expect(evidence).not.toBe("");
    expect(readdirSync(options.stateDir)).toEqual([]);
  });

  it("of a state directory that does not exist, which is not made", async () => {
    const { stateDir, port } = await aGateway();
    const options = {
      stateDir: join(stateDir, "a/b"),
      configPath: join(stateDir, "c/d.json"),
      lockDir: join(stateDir, "e"),
      port,
    };
    expect((await diagnose(options)).map(({ check }) => check)).toEqual(CHECKS);
    expect(await faultsIn(options)).toEqual([]);
    expect(readdirSync(stateDir)).toEqual([]);
  });

  it("of a gateway that runs well, which keeps everything", async () => {
    const options = await aGateway();
    const gateway = await acquire(options);
    const before = readdirSync(options.stateDir, { recursive: true }).sort();
    const findings = await diagnose(options);
    expect(faultsAmong(findings)).toEqual([]);
    expect(pick("lock-file", findings)).toMatchObject({
      ok: true,
      evidence: expect.stringContaining(`held by pid ${process.pid}`),
    });
    expect(readdirSync(options.stateDir, { recursive: true }).sort()).toEqual(before);
    gateway.assertCurrent();
  });

  it.each<[object, string]>([
    [{}, "ERR_INVALID_ARG_TYPE"],
    [{ stateDir: "x", instance: [] }, "ERR_INVALID_ARG_VALUE"],
    [{ stateDir: "x", port: -1 }, "ERR_SOCKET_BAD_PORT"],
    [{ stateDir: "x", reserve: [0] }, "ERR_SOCKET_BAD_PORT"],
    [{ stateDir: "x", instances: 1 }, "ERR_INVALID_ARG_TYPE"],
    [{ stateDir: "x", instances: [{}] }, "ERR_INVALID_ARG_TYPE"],
  ])("refuses the options %o", async (options, code) => {
    await expect(diagnose(options as DoctorOptions)).rejects.toMatchObject({ code });
  });

  it("no start meets a lock of the doctor's", async () => {
    const options = await aGateway();
    const doctor = startFixture("doctor.mjs", { ...options, repeat: true });
    await doctor.next("diagnosed");
    for (let start = 1; start <= 150; start++) await (await acquire(options)).close();
    await doctor.next("diagnosed");
    await doctor.kill();
  });
});

describe("permissions", () => {
  it.each([
    ["the state directory", "", 0o777, /mode 777/],
    ["the state directory, by its group", "", 0o770, /its group/],
    ["its locks", "locks", 0o722, /mode 722/],
    ["the config's directory", "etc", 0o707, /mode 707/],
  ])("%s that others may write", async (_, name, mode, evidence) => {
    const { stateDir, port } = await aGateway();
    const options = { stateDir, port, configPath: join(stateDir, "etc/my.json") };
    mkdirSync(join(stateDir, "etc"));
    await (await acquire(options)).close();
    mkdirSync(join(stateDir, "locks"), { recursive: true });
    expectFine(await findingOf("permissions", options));
    chmodSync(join(stateDir, name), mode);
    expectFault(await findingOf("permissions", options), evidence, `chmod go-w .*${name}`);
    chmodSync(join(stateDir, name), 0o700);
    expectFine(await findingOf("permissions", options));
  });

  it("a sticky directory is nobody else's to tidy up", async () => {
    const options = await aGateway();
    chmodSync(options.stateDir, 0o1777);
    expectFine(await findingOf("permissions", options));
  });

  it("`locks` that is a symbolic link, or a file", async () => {
    const options = await aGateway();
    const locks = join(options.stateDir, "locks");
    symlinkSync(temporaryDirectory(), locks);
    expectFault(await findingOf("permissions", options), /symbolic link/, /remove it/);
    rmSync(locks);
    writeFileSync(locks, "");
    expectFault(await findingOf("permissions", options), /not a directory/, /remove it/);
    rmSync(locks);
    expectFine(await findingOf("permissions", options));
  });

  it("a file or directory of `locks` that is missing, which a start does not make", async () => {
    const workspace = join(temporaryDirectory(), "workspace");
    const options = { stateDir: temporaryDirectory(), locks: [workspace] };
    expectFault(await findingOf("permissions", options), `${workspace} is missing`, /create it/);
    expect(existsSync(workspace)).toBe(false);
    mkdirSync(workspace, { mode: 0o700 });
    expectFine(await findingOf("permissions", options));
  });

  itWhere(!isRoot || canRunAsOtherUser, "needs a user whom permissions bind")(
    "a directory that this user can't write",
    async () => {
      const { stateDir, port } = await aGateway();
      const etc = join(stateDir, "etc");
      mkdirSync(etc);
      if (isRoot) for (const path of [stateDir, etc]) chownSync(path, OTHER_UID, OTHER_UID);
      const options = { stateDir, port, configPath: join(etc, "my.json") };
      const finding = () => pick("permissions", diagnoseElsewhere(options, isRoot ? asOtherUser : {}));
      expectFine(finding());
      chmodSync(stateDir, 0o500);
      expectFault(finding(), `can't write to ${stateDir}`, /chown/);
      chmodSync(stateDir, 0o700);
      chmodSync(etc, 0o500);
      expectFault(finding(), /not kept from gateways with another state directory/, /move the config/);
      chmodSync(etc, 0o700);
      expectFine(finding());
    },
  );
});

describe("filesystem", () => {
  const itOnFuse = itWhere(canMountFuse, "needs root, FUSE and Python");
  const on = (type: string, stateDir: string) => ["unshare", ...FUSE, stateDir, type];

  itOnFuse("one that other hosts may write too", async () => {
    const options = await aGateway();
    const prefix = on("fuse.sshfs", options.stateDir);
    expectFault(pick("filesystem", diagnoseElsewhere(options, { prefix })), /fuse\.sshfs/, /local disk/);
    expectFine(pick("filesystem", diagnoseElsewhere(options)));
  });

  itOnFuse("one that has no locks, though it is local", async () => {
    const options = await aGateway();
    const prefix = on("fuse.bindfs", options.stateDir);
    const env = { ...process.env, REFUSE_LOCKS: "1" };
    expectFault(
      pick("filesystem", diagnoseElsewhere(options, { prefix, env })),
      /can't be locked \(ENOSYS/,
      /that locks/,
    );
    expectFine(pick("filesystem", diagnoseElsewhere(options)));
  });

  itWhere(canInjectFaults, "needs strace")("one whose locks have run out", async () => {
    const options = await aGateway();
    const prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"];
    const finding = pick("filesystem", diagnoseElsewhere(options, { prefix }));
    expectFault(finding, `^${options.stateDir} can't be locked \\(ENOLCK: no locks available\\)$`, /that locks/);
    expect(readdirSync(options.stateDir)).toEqual([]);
    expectFine(pick("filesystem", diagnoseElsewhere(options)));
  });
});

describe("lock-file", () => {
  const itOnLinux = itWhere(isLinux, "needs Linux");

  itOnLinux("one that a killed gateway left behind: until the next one has come and gone", async () => {
    const options = await aGateway();
    const gateway = startGateway(options);
    await gateway.next("serving");
    expect(await faultsIn(options)).toEqual([]);
    await gateway.kill();
    const findings = await diagnose(options);
    expect(faultsAmong(findings)).toEqual(["record", "lock-file"]);
    expectFault(
      pick("lock-file", findings),
      `left behind by pid ${gateway.pid}, and held by nobody: .*${STATE_LOCK}, `,
      /harmless/,
    );
    expectFault(pick("record", findings), /of a process that is gone/, /writes over it/);
    const next = await acquire(options);
    expect(await faultsIn(options)).toEqual([]);
    await next.close();
    expect(await faultsIn(options)).toEqual([]);
  });

  itOnLinux("one that was wiped under an owner who can't restore it", async () => {
    const options = await aGateway();
    const gateway = startGateway(options);
    await gateway.next("serving");
    gateway.child.kill("SIGSTOP");
    onTestFinished(() => void gateway.child.kill("SIGCONT"));
    const file = stateLock(options.stateDir);
    rmSync(join(options.stateDir, "locks"), { recursive: true });
    expectFault(
      await findingOf("lock-file", options),
      `under pid ${gateway.pid}, who has .* locked: ${file}`,
      /look again/,
    );
    gateway.child.kill("SIGCONT");
    await vi.waitFor(async () => expectFine(await findingOf("lock-file", options)), PATIENCE);
  });

  itOnLinux("one that was replaced by another file, or the config's alone", async () => {
    const options = await aGateway();
    const gateway = startGateway(options);
    await gateway.next("serving");
    gateway.child.kill("SIGSTOP");
    onTestFinished(() => void gateway.child.kill("SIGCONT"));
    const config = join(options.stateDir, "locks", hashedLock("gateway.json"));
    rmSync(config);
    expectFault(
      await findingOf("lock-file", options),
      `under pid ${gateway.pid}, whose record names this config: ${config}`,
      /look again/,
    );
    const file = stateLock(options.stateDir);
    rmSync(file);
    writeFileSync(file, "");
    expectFault(
      await findingOf("lock-file", options),
      `under pid ${gateway.pid}, who has .* locked: ${file}`,
      /look again/,
    );
    gateway.child.kill("SIGCONT");
    await vi.waitFor(async () => expectFine(await findingOf("lock-file", options)), PATIENCE);
  });

  itWhere(canRunAsOtherUser, "needs root, and a checkout that others may read")(
    "one that another user's process holds",
    async () => {
      const options = await aGateway();
      chownSync(options.stateDir, OTHER_UID, OTHER_UID);
      const gateway = startGateway(options, asOtherUser);
      await gateway.next("serving");
      // Root sees a service in a directory of its own.
      const seenByRoot = await findingOf("lock-file", options);
      expectFine(seenByRoot);
      expect(seenByRoot.evidence).toContain(`held by pid ${gateway.pid} of another user (${OTHER_UID})`);
      chownSync(options.stateDir, 0, 0);
      expectFault(
        await findingOf("lock-file", options),
        `held by pid ${gateway.pid} of another user \\(${OTHER_UID}\\)`,
        /as that user/,
      );
      chownSync(options.stateDir, OTHER_UID, OTHER_UID);
      expectFine(pick("lock-file", diagnoseElsewhere(options, asOtherUser)));
      gateway.send("close");
      await gateway.next("done");
      expectFine(await findingOf("lock-file", options));
    },
  );

  itWhere(canRunAsOtherUser && seesAllLocks, "needs root in the initial pid namespace")(
    "one of root's, for an ordinary user",
    async () => {
      const options = await aGateway();
      chmodSync(options.stateDir, 0o755);
      const gateway = await acquire(options);
      chmodSync(join(options.stateDir, "locks"), 0o755);
      const finding = pick("lock-file", diagnoseElsewhere(options, asOtherUser));
      expectFault(finding, /held by a process that this user can't see/, /as root/);
      expect(pick("record", diagnoseElsewhere(options, asOtherUser))).toMatchObject({
        ok: null,
        evidence: expect.stringMatching(/can't be read by this user: .*\(EACCES\)/),
      });
      // What can't be looked for is not missed.
      chmodSync(join(options.stateDir, "locks"), 0o700);
      expect(pick("lock-file", diagnoseElsewhere(options, asOtherUser))).toMatchObject({
        ok: null,
        next: expect.not.stringContaining("ended"),
      });
      chmodSync(join(options.stateDir, "locks"), 0o755);
      await gateway.close();
      expectFine(pick("lock-file", diagnoseElsewhere(options, asOtherUser)));
    },
  );

  itWhere(isRoot && isLinux, "needs root")(
    "one that a process in another pid namespace holds, from both sides",
    async () => {
      const options = await aGateway();
      const argument = JSON.stringify(options);
      const inside = ["--pid", "--fork", "--kill-child", "--mount-proc"];
      const gateway = new TestProcess("unshare", [...inside, process.execPath, fixturePath("gateway.mjs"), argument]);
      await gateway.next("serving");
      expectFault(await findingOf("lock-file", options), /held by pid \d+ in another pid namespace/, /container/);
      const other = pick("lock-file", diagnoseElsewhere(options, { prefix: ["unshare", ...inside] }));
      expectFault(other, /owner in another pid namespace/, /as root on the host/);
      gateway.send("close");
      await gateway.next("done");
      expectFine(await findingOf("lock-file", options));
    },
  );

  itWhere(hasFlockCommand && isLinux, "needs flock(1)")("none, while somebody holds the directory alone", async () => {
    const options = await aGateway();
    const holder = await holdWithFlock(options.stateDir);
    expectFault(await findingOf("lock-file", options), `under pid ${holder.pid}`, /lockDir/);
    await holder.kill();
    expectFine(await findingOf("lock-file", options));
  });

  it("a symbolic link in its place", async () => {
    const options = await aGateway();
    mkdirSync(join(options.stateDir, "locks"));
    symlinkSync("elsewhere", stateLock(options.stateDir));
    expectFault(await findingOf("lock-file", options), /symbolic link/, `remove .*${STATE_LOCK}`);
    rmSync(stateLock(options.stateDir));
    expectFine(await findingOf("lock-file", options));
  });
});

describe("record", () => {
  /** What stands in the lock file, which nobody holds. */
  async function findingWith(content: string | Buffer): Promise<Finding> {
    const options = await aGateway();
    mkdirSync(join(options.stateDir, "locks"));
    writeFileSync(stateLock(options.stateDir), content);
    return await findingOf("record", options);
  }

  it("half a record", async () => {
    expectFault(await findingWith(recordOf({ pid: 1 }).subarray(0, 100)), /is torn/, /writes over it/);
  });

  it("JSON that is none", async () => {
    expectFault(await findingWith('{"name":"x"}'), /no owner record/, /writes over it/);
  });

  it("an empty file is no record at all", async () => {
    expectFine(await findingWith(""));
  });

  it("one of an earlier boot, of another host, of another pid namespace", async () => {
    const pid = process.pid;
    const hostname = (await import("node:os")).hostname();
    expectFault(await findingWith(recordOf({ pid, bootId: "other", hostname })), /of an earlier boot/, /nobody acts/);
    expectFault(
      await findingWith(recordOf({ pid, bootId: "other", hostname: "x\u001b[31my" })),
      /of another host \(x.\[31my\)/,
      /nobody acts/,
    );
    expectFault(await findingWith(recordOf({ pid, pidNamespace: "1" })), /of another pid namespace/, /nobody acts/);
  });

  it("an older program's, in OpenClaw's format: of a process that is gone, and of one that is there and has no lock", async () => {
    const record = (pid: number) =>
      JSON.stringify({
        pid,
        ownerId: "a",
        createdAt: "2026-01-01T00:00:00.000Z",
        configPath: "/x",
        stateDir: "/",
        port: 1,
      });
    expectFault(
      await findingWith(record(await deadPid())),
      /format of an older program\) is of a process that is gone/,
      /nobody acts/,
    );
    expectFault(await findingWith(record(process.pid)), /is there and holds no lock/, /end it/);
  });

  it("of a gateway with another port or config than was asked for", async () => {
    const options = await aGateway();
    const gateway = await acquire(options);
    const asked = {
      stateDir: options.stateDir,
      port: gateway.port + 1,
      configPath: join(options.stateDir, "other.json"),
    };
    expectFault(
      await findingOf("record", asked),
      `has port ${gateway.port}, not ${gateway.port + 1}.*gateway.json, not .*other.json`,
      /start/,
    );
    expectFine(await findingOf("record", options));
  });
});

describe("clock", () => {
  it("a gateway that was started before the clock was set back", async () => {
    const options = await aGateway();
    // The gateway's own clock is an hour ahead, as everybody's was then.
    const ahead = join(temporaryDirectory(), "ahead.mjs");
    writeFileSync(
      ahead,
      "const { Date: Now } = globalThis; globalThis.Date = class extends Now { constructor(...when) { super(...(when.length ? when : [Now.now() + 3_600_000])); } };",
    );
    const env = { ...process.env, NODE_OPTIONS: `--import=${pathToFileURL(ahead)}` };
    const gateway = startGateway(options, { env });
    await gateway.next("serving");
    expectFault(await findingOf("clock", options), /record in .* is dated 60 min in the future/, /timedatectl/);
    gateway.send("close");
    await gateway.next("done");
    expectFine(await findingOf("clock", options));
  });

  it("a file that is dated after now", async () => {
    const options = await aGateway();
    const [now, tomorrow] = [new Date(), new Date(Date.now() + 86_400_000)];
    utimesSync(options.stateDir, tomorrow, tomorrow);
    const finding = await findingOf("clock", options);
    // The doctor's scratch directory has set the date right; it is the one before that counts.
    utimesSync(options.stateDir, now, now);
    expectFault(finding, /was changed 24 h in the future/, /timedatectl/);
    expectFine(await findingOf("clock", options));
  });
});

describe("addon", () => {
  /** What is found in an installed package that has no addon, or has one. */
  function diagnoseWith(addon: "none" | "ours", options: DoctorOptions): Finding[] {
    const root = fileURLToPath(new URL("../..", import.meta.url));
    const directory = temporaryDirectory();
    const installed = join(directory, "node_modules/gateway-lock");
    mkdirSync(installed, { recursive: true });
    for (const part of ["dist", "package.json"]) cpSync(join(root, part), join(installed, part), { recursive: true });
    for (const part of addon === "ours" ? ["build", "prebuilds"] : []) {
      if (existsSync(join(root, part))) symlinkSync(join(root, part), join(installed, part));
    }
    symlinkSync(join(root, "node_modules/node-gyp-build"), join(directory, "node_modules/node-gyp-build"));
    const program =
      'import { diagnose } from "gateway-lock"; console.log(JSON.stringify(await diagnose(JSON.parse(process.argv[2]))));';
    writeFileSync(join(directory, "program.mjs"), program);
    const { stdout, stderr } = spawnSync(process.execPath, ["program.mjs", JSON.stringify(options)], {
      cwd: directory,
      encoding: "utf8",
    });
    if (stdout === "") throw new Error(stderr);
    return JSON.parse(stdout);
  }

  it("missing: it is named with the command that builds it, and the checks that do without it are made", async () => {
    const options = await aGateway();
    chmodSync(options.stateDir, 0o777);
    mkdirSync(join(options.stateDir, "locks"));
    writeFileSync(stateLock(options.stateDir), recordOf({ pid: 1, createdAt: "2999-01-01T00:00:00.000Z" }));
    const findings = diagnoseWith("none", options);
    expect(findings.map(({ check }) => check)).toEqual(CHECKS);
    expectFault(pick("addon", findings), /^gateway-lock has no native addon for/, /^build it with/);
    expect(faultsAmong(findings)).toEqual(["addon", "permissions", "clock"]);
    const unseen = findings.filter(({ ok }) => ok === null);
    expect(unseen.map(({ check }) => check)).toEqual([
      "filesystem",
      "lock-file",
      "port-owner",
      "loopback",
      "wildcard",
      "derived-ports",
    ]);
    for (const { evidence } of unseen) expect(evidence).toMatch(/^it takes the addon/);
    expectFine(pick("addon", diagnoseWith("ours", options)));
  });
});
