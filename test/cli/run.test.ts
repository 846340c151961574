// `gateway-lock run`: any program can hold a gateway's claim, and go on holding it when the command itself is killed.

import { type SpawnOptions, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { readOwner } from "../../lib/lock/record.ts";
import { canUnshareUser, hasIPv6, hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { CLI } from "../support/commands.ts";
import { expectNothingLeft, isPortFree, lockFilesIn, refusalOf } from "../support/gateways.ts";
import { flockCommandGets } from "../support/locks.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";
import { locksOf, until } from "../support/waits.ts";

const itRunsPython = itWhere(hasPython && isLinux, "needs Python on Linux");

interface Claim {
  readonly stateDir: string;
  readonly port: number;
  readonly reserve?: readonly number[];
}

async function aClaim(): Promise<Claim> {
  return { stateDir: temporaryDirectory(), port: await freePort() };
}

function argumentsFor(
  { stateDir, port, reserve = [] }: Claim,
  command: readonly string[],
  options: readonly string[] = [],
) {
  const reserved = reserve.length === 0 ? [] : ["--reserve", reserve.join(",")];
  return [CLI, "run", "--state-dir", stateDir, "--port", String(port), ...reserved, ...options, "--", ...command];
}

function run(
  claim: Claim,
  command: readonly string[],
  options: readonly string[] = [],
  spawnOptions: SpawnOptions = {},
): TestProcess {
  const wrapper = new TestProcess(process.execPath, argumentsFor(claim, command, options), spawnOptions);
  // Its program outlives it: that is what all this is about.
  onTestFinished(() => endHolders(claim));
  return wrapper;
}

function endHolders(claim: Claim): void {
  for (const path of [claim.stateDir, stateLock(claim)]) {
    for (const pid of readOwner(path).holders) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It was just ending.
      }
    }
  }
}

const python = (code = 0): string[] => ["python3", fixturePath("run-server.py"), String(code)];
const node = (...code: string[]): string[] => [process.execPath, fixturePath("run-server.mjs"), ...code];
const adopter = (claim: Claim, others: readonly object[] = []): string[] => [
  process.execPath,
  fixturePath("run-adopter.mjs"),
  JSON.stringify({ options: claim, others }),
];

const stateLock = ({ stateDir }: Claim): string => join(stateDir, "locks", "gateway.state.lock");
const ownerOf = (claim: Claim) => readOwner(stateLock(claim));

async function bodyFrom(port: number): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${port}`, { headers: { connection: "close" } })).text();
}

describe("a program that knows nothing of gateways", () => {
  itRunsPython("serves in Python by LISTEN_FDS, and owns the claim", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, python());
    const { pid } = await wrapper.next("serving");
    expect(await bodyFrom(claim.port)).toBe("python");
    await until(() => ownerOf(claim).record?.pid === pid);
    const { record, holders } = ownerOf(claim);
    expect(record).toMatchObject({ pid, phase: "ready", port: claim.port, runtime: null });
    expect([...holders].sort()).toEqual([pid, wrapper.pid].sort());
    expect(await refusalOf(claim)).toMatchObject({ code: "ALREADY_LISTENING", owner: { pid }, listener: { pid } });
  });

  it("serves in Node by listen({ fd: 3 })", async () => {
    const claim = await aClaim();
    const { pid } = await run(claim, node()).next("serving");
    expect(await bodyFrom(claim.port)).toBe("node");
    await until(() => ownerOf(claim).record?.pid === pid);
  });

  itWhere(hasIPv6, "needs IPv6")("is guarded on the other loopback family too", async () => {
    const claim = await aClaim();
    await run(claim, node()).next("serving");
    expect(await isPortFree(claim.port, "::1")).toBe("EADDRINUSE");
  });

  it("gets the variables that a shell would drop, and none of the words meant for it are left in this process", async () => {
    const env = { ...process.env, "odd.name": "a b", PLAIN: "it's" };
    const claim = await aClaim();
    const print =
      "console.log(JSON.stringify({ event: 'env', odd: process.env['odd.name'], plain: process.env.PLAIN, pid: process.pid, listen: process.env.LISTEN_PID }))";
    const event = await run(claim, [process.execPath, "-e", print], [], { env }).next("env");
    expect(event).toMatchObject({ odd: "a b", plain: "it's", listen: String(event.pid) });
  });

  it("leaves nothing behind when it ends", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, [process.execPath, "-e", "process.exit(7)"]);
    expect(await wrapper.exited).toEqual({ code: 7, signal: null });
    expectNothingLeft(claim.stateDir);
    expect(await isPortFree(claim.port)).toBe("free");
  });
});

describe("how it ends", () => {
  it.each([0, 1, 42, 255])("with the program's exit code %i", async (code) => {
    const wrapper = run(await aClaim(), ["sh", "-c", `exit ${code}`]);
    expect((await wrapper.exited).code).toBe(code);
  });

  it.each(["SIGTERM", "SIGKILL", "SIGHUP"] as const)("by the signal that ended the program: %s", async (signal) => {
    const claim = await aClaim();
    const wrapper = run(claim, ["sh", "-c", `kill -${signal.slice(3)} $$`]);
    expect(await wrapper.exited).toEqual({ code: null, signal });
    expectNothingLeft(claim.stateDir);
  });

  it("with 128 and the number of a signal that leaves a core: one is enough", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, ["sh", "-c", "ulimit -c 0; kill -ABRT $$"]);
    expect(await wrapper.exited).toEqual({ code: 134, signal: null });
    expectNothingLeft(claim.stateDir);
  });

  itWhere(canUnshareUser, "no pid namespaces")(
    "with 128 and the number of the signal, as the first process of a container",
    async () => {
      const claim = await aClaim();
      const container = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
      const command = argumentsFor(claim, ["sh", "-c", "kill -TERM $$"]);
      const wrapper = new TestProcess("unshare", [...container, process.execPath, ...command]);
      expect(await wrapper.exited).toEqual({ code: 143, signal: null });
      expectNothingLeft(claim.stateDir);
    },
  );

  it("with 127 and the name of a program that is not there", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, ["no-such-program-here"]);
    expect((await wrapper.exited).code).toBe(127);
    expect(wrapper.stderr).toContain("no-such-program-here");
    expectNothingLeft(claim.stateDir);
  });

  it("with 75 for a duplicate, whose program is not started, and 78 under systemd", async () => {
    const claim = await aClaim();
    await run(claim, node()).next("serving");
    const never = ["sh", "-c", 'echo \'{"event":"started"}\''];
    const duplicate = run(claim, never);
    expect((await duplicate.exited).code).toBe(75);
    expect(duplicate.stderr).toContain(`another gateway instance is already listening on ws://127.0.0.1:${claim.port}`);
    const env = { ...process.env, GATEWAY_LOCK_SUPERVISOR: "systemd" };
    expect((await run(claim, never, [], { env }).exited).code).toBe(78);
  });

  it("takes over as a standby when the first program is gone", async () => {
    const claim = await aClaim();
    const first = run(claim, node("0"));
    await first.next("serving");
    const standby = run(claim, node(), ["--timeout", "Infinity"]);
    await until(() => standby.stderr.includes("waiting"));
    await first.kill("SIGTERM");
    await standby.next("serving");
    expect(await bodyFrom(claim.port)).toBe("node");
  });

  it("ends at once by a signal while it waits", async () => {
    const claim = await aClaim();
    await run(claim, node()).next("serving");
    const standby = run(claim, node(), ["--timeout", "Infinity"]);
    await until(() => standby.stderr.includes("waiting"));
    standby.child.kill("SIGTERM");
    expect(await standby.exited).toEqual({ code: null, signal: "SIGTERM" });
  });
});

describe("signals", () => {
  it.each(["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"] as const)(
    "%s that is sent to it reaches the program once",
    async (signal) => {
      const wrapper = run(await aClaim(), node());
      const { pid } = await wrapper.next("serving");
      wrapper.child.kill(signal);
      expect((await wrapper.next("signal")).signal).toBe(signal);
      process.kill(pid, "SIGKILL");
      const { signal: end } = await wrapper.exited;
      expect(end).toBe("SIGKILL");
    },
  );

  itRunsPython("of the terminal arrive once: Ctrl-C", async () => {
    const claim = await aClaim();
    const terminal = new TestProcess("python3", [
      fixturePath("terminal.py"),
      process.execPath,
      ...argumentsFor(claim, node()),
    ]);
    onTestFinished(() => endHolders(claim));
    const { pid: wrapper } = await terminal.next("terminal");
    const { pid } = await terminal.next("serving");
    terminal.send("type 03");
    expect((await terminal.next("signal")).signal).toBe("SIGINT");
    // What comes next shows that nothing came in between: signals to one process of this kind keep their order here.
    terminal.send(`kill 15`);
    expect((await terminal.next("signal")).signal).toBe("SIGTERM");
    expect(wrapper).not.toBe(pid);
    process.kill(pid, "SIGKILL");
    expect(await terminal.next("ended")).toMatchObject({ signal: 9 });
  });
});

describe("SIGKILL of the command", () => {
  it("frees neither lock nor port while the program lives, and both when that dies", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, node());
    const { pid } = await wrapper.next("serving");
    await until(() => ownerOf(claim).record?.pid === pid);
    wrapper.child.kill("SIGKILL");
    await once(wrapper.child, "exit");
    expect(flockCommandGets(claim.stateDir)).toBe("refused");
    expect(await bodyFrom(claim.port)).toBe("node");
    expect(await refusalOf(claim)).toMatchObject({ code: "ALREADY_LISTENING", owner: { pid } });
    expect(await isPortFree(claim.port, "::1")).not.toBe("free");
    process.kill(pid, "SIGKILL");
    await until(() => flockCommandGets(claim.stateDir) === "granted");
    const next = run(claim, node());
    await next.next("serving");
  });

  it("leaves a process that the program has left behind in control, and says so", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, ["sh", "-c", 'sleep 60 >/dev/null 2>&1 & echo "{\\"event\\":\\"left\\",\\"pid\\":$!}"']);
    const { pid } = await wrapper.next("left");
    onTestFinished(() => {
      process.kill(pid, "SIGKILL");
    });
    expect((await wrapper.exited).code).toBe(0);
    expect(wrapper.stderr).toContain("the next one, or a process that the program has left behind");
    expect(ownerOf(claim).holders).toEqual([pid]);
    expect(await refusalOf(claim)).toMatchObject({ code: "ALREADY_RUNNING", exitCode: 75, retryable: true });
  });
});

describe("a program that uses this package", () => {
  it("adopts the claim, and its close() frees it although the command is still there", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, adopter(claim));
    const { pid, owner, addresses, words } = await wrapper.next("acquired");
    expect(owner).toMatchObject({ pid, phase: "listening", runtime: `node ${process.versions.node}` });
    expect(addresses[0]).toMatchObject({ address: "127.0.0.1", port: claim.port, role: "listen" });
    expect(words).toEqual([]);
    await wrapper.next("serving");
    expect(await bodyFrom(claim.port)).toBe(`adopter ${pid}`);
    await until(() => locksOf(wrapper.pid).length === 0);
    expect(ownerOf(claim)).toMatchObject({ record: { pid }, holders: [pid] });
    wrapper.send("ready");
    await until(() => ownerOf(claim).record?.phase === "ready");

    wrapper.send("close");
    await wrapper.next("closed");
    expectNothingLeft(claim.stateDir);
    expect(await isPortFree(claim.port)).toBe("free");
    wrapper.send("exit");
    expect((await wrapper.exited).code).toBe(0);
    expectNothingLeft(claim.stateDir);
  });

  it("can have other gateways beside it, and tries that fail cost it nothing", async () => {
    const claim = await aClaim();
    const stranger = await freePort();
    const blocker = createServer().listen({ port: stranger, host: "127.0.0.1", exclusive: true });
    await once(blocker, "listening");
    onTestFinished(() => {
      blocker.close();
    });
    const others = [
      { ...claim, port: stranger },
      { stateDir: temporaryDirectory(), port: stranger },
    ];
    const wrapper = run(claim, adopter(claim, others));
    expect(await wrapper.next("refused")).toMatchObject({ code: "ALREADY_LISTENING" });
    expect(await wrapper.next("refused")).toMatchObject({ code: "ALREADY_LISTENING" });
    const { pid } = await wrapper.next("acquired");
    expect(lockFilesIn(claim.stateDir).length).toBe(2);
    await wrapper.next("serving");
    await until(() => locksOf(wrapper.pid).length === 0);
    expect(ownerOf(claim).holders).toEqual([pid]);
    expect(pid).toBeGreaterThan(0);
  });

  it("is refused where it is not the process that the claim was left to", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, [process.execPath, fixturePath("run-grandparent.mjs"), ...adopter(claim)]);
    const refusal = await wrapper.next("failed");
    expect(refusal.text).toMatch(/already (listening|running)/);
    expect(refusal.text).toMatch(/gateway-lock run has left its claim to pid \d+, and this is pid \d+/);
  });

  it("survives SIGKILL of the command, before and after it has adopted", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, adopter(claim));
    const { pid } = await wrapper.next("serving");
    const owner = ownerOf(claim).record?.pid;
    wrapper.child.kill("SIGKILL");
    await once(wrapper.child, "exit");
    expect(ownerOf(claim)).toMatchObject({ record: { pid: owner }, holders: [owner] });
    expect(await bodyFrom(claim.port)).toBe(`adopter ${owner}`);
    expect(pid).toBeUndefined();
    process.kill(owner ?? 0, "SIGKILL");
  });
});

describe("reserved ports", () => {
  it("are kept for a program that knows nothing of them, until it has ended", async () => {
    const reserved = await freePort();
    const claim = { ...(await aClaim()), reserve: [reserved] };
    const wrapper = run(claim, node());
    const { pid } = await wrapper.next("serving");
    expect(await isPortFree(reserved)).toBe("EADDRINUSE");
    await expect(bodyFrom(reserved)).rejects.toMatchObject({ cause: { code: "ECONNREFUSED" } });
    // Whoever is left of the two holds them.
    wrapper.child.kill("SIGKILL");
    await once(wrapper.child, "exit");
    expect(await refusalOf({ stateDir: temporaryDirectory(), port: reserved })).toMatchObject({ listener: { pid } });
    process.kill(pid, "SIGKILL");
    await wrapper.exited;
    expect(await isPortFree(reserved)).toBe("free");
  });

  it("go to a program that takes the claim over and serves them", async () => {
    const reserved = await freePort();
    const claim = { ...(await aClaim()), reserve: [reserved] };
    const wrapper = run(claim, adopter(claim));
    const { pid, addresses } = await wrapper.next("acquired");
    expect(addresses).toContainEqual({ address: "127.0.0.1", family: "IPv4", port: reserved, role: "reserved" });
    await wrapper.next("serving");
    expect([await bodyFrom(claim.port), await bodyFrom(reserved)]).toEqual([`adopter ${pid}`, `reserved ${pid}`]);
    wrapper.send("close");
    await wrapper.next("closed");
    await until(() => locksOf(wrapper.pid).length === 0);
    expect(await isPortFree(reserved)).toBe("free");
  });

  it("are given back where the program that takes the claim over does not ask for them", async () => {
    const [one, other] = [await freePort(), await freePort()];
    const claim = { ...(await aClaim()), reserve: [one, other] };
    const wrapper = run(claim, adopter({ ...claim, reserve: [one] }));
    await wrapper.next("serving");
    await until(() =>
      wrapper.stderr.includes(`gateway-lock run has kept 127.0.0.1 port ${other} and ::1 port ${other}`),
    );
    await until(() => locksOf(wrapper.pid).length === 0);
    expect([await isPortFree(one), await isPortFree(other)]).toEqual(["EADDRINUSE", "free"]);
  });
});

describe("a program that has done something to its descriptors", () => {
  const throughShell = (script: string, claim: Claim) => ["sh", "-c", `${script}; exec "$@"`, "sh", ...adopter(claim)];

  it("keeps what it has put in the place of one, and adopts the rest", async () => {
    const claim = await aClaim();
    const log = join(temporaryDirectory(), "log");
    const wrapper = run(claim, throughShell(`exec 3>>'${log}'`, claim));
    const { pid, owner } = await wrapper.next("acquired");
    await wrapper.next("serving");
    expect(readlinkSync(`/proc/${pid}/fd/3`)).toBe(log);
    await until(() => locksOf(wrapper.pid).length === 0);
    expect(ownerOf(claim)).toMatchObject({ record: { ownerId: owner.ownerId }, holders: [pid] });
    expect(flockCommandGets(claim.stateDir)).toBe("refused");
  });

  it("does without a channel to the command, which then lets go at its end", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, throughShell('eval "exec $GATEWAY_LOCK_CHANNEL_FD>&-"', claim));
    const { pid } = await wrapper.next("serving").then(() => ownerOf(claim).record ?? { pid: 0 });
    expect(await bodyFrom(claim.port)).toBe(`adopter ${pid}`);
    wrapper.send("exit");
    expect((await wrapper.exited).code).toBe(0);
    expectNothingLeft(claim.stateDir);
  });

  it("is not believed about descriptors that it does not have", async () => {
    const claim = await aClaim();
    const wrapper = run(claim, throughShell("export LISTEN_FDS=4 GATEWAY_LOCK_FDS=$GATEWAY_LOCK_FDS,998,999", claim));
    const { pid } = await wrapper.next("acquired");
    await wrapper.next("serving");
    await until(() => locksOf(wrapper.pid).length === 0);
    expect(ownerOf(claim).holders).toEqual([pid]);
  });
});

it("leaves the lock files to its program if it fails itself", async () => {
  const claim = await aClaim();
  const trigger = join(temporaryDirectory(), "now");
  const fault = join(temporaryDirectory(), "fault.cjs");
  writeFileSync(
    fault,
    `setInterval(() => { if (require("node:fs").existsSync(${JSON.stringify(trigger)})) throw new Error("fault"); }, 5);`,
  );
  const env = { ...process.env, NODE_OPTIONS: `--require ${fault}` };
  const program = ["sh", "-c", `echo '{"event":"started"}'; exec sleep 60`];
  const wrapper = run(claim, program, [], { env });
  await wrapper.next("started");
  await until(() => ownerOf(claim).record?.phase === "ready");
  const files = lockFilesIn(claim.stateDir);
  writeFileSync(trigger, "");
  await once(wrapper.child, "exit");
  expect(files).toHaveLength(2);
  expect(lockFilesIn(claim.stateDir)).toEqual(files);
  const { record, holders } = ownerOf(claim);
  expect(holders).toEqual([record?.pid]);
});

describe("a lock that is lost", () => {
  it("restores lock files that are wiped under a program that does not know of them", async () => {
    const claim = await aClaim();
    const { pid } = await run(claim, node()).next("serving");
    spawnSync("rm", ["-r", join(claim.stateDir, "locks")]);
    await until(() => readdirSync(claim.stateDir).includes("locks") && lockFilesIn(claim.stateDir).length === 2);
    await until(() => ownerOf(claim).record?.pid === pid);
    expect(JSON.parse(readFileSync(stateLock(claim), "utf8"))).toMatchObject({ phase: "ready" });
  });
});

it("keeps clients waiting between two programs of a shell that takes their turns", async () => {
  const claim = await aClaim();
  const serveOnce = `require('http').createServer((_, r) => r.end(process.argv[1], () => process.exit())).listen({ fd: 3 })`;
  const turns = `${process.execPath} -e "${serveOnce}" first; ${process.execPath} -e "${serveOnce}" second`;
  const wrapper = run(claim, ["sh", "-c", turns]);
  await until(() => flockCommandGets(claim.stateDir) === "refused" && ownerOf(claim).record?.phase === "ready");
  expect([await askOnce(claim.port), await askOnce(claim.port)]).toEqual(["first", "second"]);
  expect((await wrapper.exited).code).toBe(0);
});

function askOnce(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let text = "";
    socket.setEncoding("utf8").on("data", (data) => {
      text += data;
    });
    socket.once("error", reject).once("close", () => resolve(text.split("\r\n\r\n")[1] ?? ""));
    socket.write("GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
  });
}
