// The doctor finds who else has the port, or may get it, and what is around a gateway.

import { chmodSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { release } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { parseNetsh, parseSysctl } from "../../lib/inspect/checks/ephemeral-range.ts";
import { loopsOn, parseCgroup } from "../../lib/inspect/checks/setting.ts";
import { diagnose } from "../../lib/inspect/doctor.ts";
import { resolveProfile } from "../../lib/profile/profile.ts";
import { canUnshareNet, hasIPv6, hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { diagnoseElsewhere, expectFault, expectFine, faultsIn, findingOf, pick } from "../support/doctor.ts";
import { acquire, listenOn } from "../support/gateways.ts";
import { asOtherUser, canRunAsOtherUser } from "../support/locks.ts";
import { startGateway, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

async function aGateway(): Promise<{ stateDir: string; port: number }> {
  return { stateDir: temporaryDirectory(), port: await freePort() };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

const itOnLinux = itWhere(isLinux, "needs Linux");
const itWithIPv6 = itWhere(isLinux && hasIPv6, "needs Linux and IPv6");

/** A server of a process of its own, which is no gateway. */
async function aStranger(port: number, host: string): Promise<TestProcess> {
  const program = `require("net").createServer().listen({ port: ${port}, host: "${host}", ipv6Only: true }, () => console.log('{"event":"listening"}')); process.stdin.resume().on("end", () => process.exit());`;
  const stranger = new TestProcess(process.execPath, ["-e", program]);
  await stranger.next("listening");
  return stranger;
}

/** A process that has the port bound, and does not listen. */
async function aBinder(port: number, host: string): Promise<TestProcess> {
  const family = host.includes(":") ? "AF_INET6" : "AF_INET";
  const program = `import socket,sys
s=socket.socket(socket.${family})
s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
s.bind(("${host}",${port}))
print('{"event":"bound"}',flush=True)
sys.stdin.read()`;
  const binder = new TestProcess("python3", ["-c", program]);
  await binder.next("bound");
  return binder;
}

describe("port-owner", () => {
  itOnLinux("a stranger on the port, until it leaves", async () => {
    const options = await aGateway();
    const stranger = await aStranger(options.port, "127.0.0.1");
    const finding = await findingOf("port-owner", options);
    expectFault(
      finding,
      `^pid ${stranger.pid} \\(.*node.*\\) listens on 127\\.0\\.0\\.1:${options.port}, and .* nobody holds the lock`,
      /another port/,
    );
    expect(await faultsIn(options)).toEqual(["port-owner"]);
    await stranger.kill();
    expectFine(await findingOf("port-owner", options));
  });

  itOnLinux("a stranger on the port that was asked for, while the gateway has another one", async () => {
    const options = await aGateway();
    const gateway = startGateway(options);
    await gateway.next("serving");
    const port = await freePort();
    const stranger = await aStranger(port, "127.0.0.1");
    expectFault(
      await findingOf("port-owner", { ...options, port }),
      `^pid ${stranger.pid} .* while another process holds the lock`,
      /another port/,
    );
    expectFine(await findingOf("port-owner", options));
    expect(await findingOf("port-owner", { stateDir: options.stateDir })).toMatchObject({
      ok: true,
      evidence: expect.stringMatching(`^pid ${gateway.pid} .* listens on port ${options.port} and holds the lock`),
    });
    expectFine(await findingOf("port-owner", { stateDir: options.stateDir, port: 0 }));
  });

  itOnLinux("a child of the gateway's that has not its lock is a stranger too", async () => {
    const options = await aGateway();
    await acquire(options);
    const port = await freePort();
    const child = await aStranger(port, "127.0.0.1");
    expectFault(await findingOf("port-owner", { ...options, port }), `^pid ${child.pid} `, /another port/);
  });

  itWhere(isLinux && hasPython && kernelIsAtLeast(6, 8), "needs Linux 6.8 and Python")(
    "somebody who has it bound, and does not listen",
    async () => {
      const options = await aGateway();
      const stranger = await aBinder(options.port, "127.0.0.1");
      expectFault(
        await findingOf("port-owner", options),
        `^pid ${stranger.pid} .* has it bound without listening`,
        /another port/,
      );
      await stranger.kill();
      expectFine(await findingOf("port-owner", options));
    },
  );

  itOnLinux("a client whose own end of a connection it is", async () => {
    const options = await aGateway();
    const server = await freePort();
    await listenOn(server);
    const client = connect({ host: "127.0.0.1", port: server, localPort: options.port });
    await new Promise((resolve) => client.once("connect", resolve));
    expectFault(
      await findingOf("port-owner", options),
      `^pid ${process.pid} .* own end of a connection`,
      /another port/,
    );
    client.resetAndDestroy();
    await new Promise((resolve) => client.once("close", resolve));
    expectFine(await findingOf("port-owner", options));
  });

  itWhere(isLinux && canRunAsOtherUser, "needs root, and a checkout that others may read")(
    "says what an ordinary user can't see, and does not guess",
    async () => {
      const options = await aGateway();
      chmodSync(options.stateDir, 0o755);
      await acquire(options);
      expect(pick("port-owner", diagnoseElsewhere(options, asOtherUser))).toMatchObject({
        ok: null,
        evidence: expect.stringContaining("can't see"),
      });
      expectFine(await findingOf("port-owner", options));
    },
  );
});

describe("loopback", () => {
  itWithIPv6("a stranger on ::1 alone, until it leaves", async () => {
    const options = await aGateway();
    const stranger = await aStranger(options.port, "::1");
    expect(await faultsIn(options)).toEqual(["loopback"]);
    expectFault(
      await findingOf("loopback", options),
      `^pid ${stranger.pid} .* \\[::1\\]:${options.port}, the other loopback of 127.0.0.1`,
      /another port/,
    );
    await stranger.kill();
    expect(await faultsIn(options)).toEqual([]);
  });

  itWithIPv6("a stranger on 127.0.0.1, for a gateway on ::1", async () => {
    const options = { ...(await aGateway()), host: "::1" };
    const stranger = await aStranger(options.port, "127.0.0.1");
    expectFault(
      await findingOf("loopback", options),
      `^pid ${stranger.pid} .* the other loopback of ::1`,
      /another port/,
    );
    await stranger.kill();
    expectFine(await findingOf("loopback", options));
  });

  itWhere(hasIPv6 && hasPython && kernelIsAtLeast(6, 8), "needs Linux 6.8, IPv6 and Python")(
    "somebody who has ::1 bound, and does not listen",
    async () => {
      const options = await aGateway();
      const stranger = await aBinder(options.port, "::1");
      expectFault(await findingOf("loopback", options), `^pid ${stranger.pid} .* the other loopback`, /another port/);
      await stranger.kill();
      expectFine(await findingOf("loopback", options));
    },
  );

  itWithIPv6("a gateway's own guard is none, nor is a host that has no other half", async () => {
    const options = await aGateway();
    await acquire(options);
    expectFine(await findingOf("loopback", options));
    expect((await findingOf("loopback", { ...options, host: "localhost" })).evidence).toBe(
      "the hosts leave no loopback open",
    );
  });
});

describe("wildcard", () => {
  itOnLinux.each([["0.0.0.0"], ...(hasIPv6 ? [["::"]] : [])])("a stranger on %s, until it leaves", async (host) => {
    const options = await aGateway();
    const stranger = await aStranger(options.port, host);
    expectFault(await findingOf("wildcard", options), `^pid ${stranger.pid} .* every address`, /another port/);
    await stranger.kill();
    expectFine(await findingOf("wildcard", options));
  });

  itOnLinux("a gateway that the whole network can reach, and one that is about to be", async () => {
    const options = { ...(await aGateway()), host: "0.0.0.0" };
    expectFault(await findingOf("wildcard", options), /the host 0\.0\.0\.0/, /127\.0\.0\.1/);
    const gateway = await acquire(options);
    const asked = { ...options, host: "127.0.0.1" };
    expectFault(await findingOf("wildcard", asked), `^the gateway, pid ${process.pid}`, /127\.0\.0\.1/);
    await gateway.close();
    await acquire(asked);
    expectFine(await findingOf("wildcard", asked));
  });
});

describe("ephemeral-range", () => {
  itOnLinux("a port that clients may get", async () => {
    const { stateDir, port } = await aGateway();
    const [first = 0, last = 0] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8")
      .split(/\s+/)
      .map(Number);
    expectFault(
      await findingOf("ephemeral-range", { stateDir, port: last }),
      `port ${last} is one .*${first}-${last}`,
      `below ${first}`,
    );
    expectFine(await findingOf("ephemeral-range", { stateDir, port: first - 1 }));
    expectFault(
      await findingOf("ephemeral-range", { stateDir, port, reserve: [first] }),
      `port ${first} is one`,
      /ip_local_reserved_ports/,
    );
    expectFine(await findingOf("ephemeral-range", { stateDir, port: 0 }));
  });

  itWhere(canUnshareNet, "needs network namespaces")(
    "a range that the operator has moved, and a port that is kept from it",
    async () => {
      const options = await aGateway();
      const findingWith = (settings: string) => {
        const script = `set -e; cd /proc/sys/net/ipv4; ${settings}; exec "$@"`;
        const prefix = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh"];
        return pick("ephemeral-range", diagnoseElsewhere(options, { prefix }));
      };
      const range = 'echo "20000 32000" > ip_local_port_range';
      expectFine(findingWith('echo "40000 50000" > ip_local_port_range'));
      expectFault(findingWith(range), `port ${options.port} is one .*20000-32000`, /below 20000/);
      expectFine(findingWith(`${range}; echo "1,${options.port - 1}-${options.port + 1}" > ip_local_reserved_ports`));
    },
  );

  it("reads what macOS and Windows print", () => {
    expect(parseSysctl("49152\n65535\n")).toEqual({ first: 49152, last: 65535, reserved: [] });
    const english =
      "\r\nProtocol tcp Dynamic Port Range\r\n---------------------------------\r\nStart Port      : 49152\r\nNumber of Ports : 16384\r\n\r\n";
    expect(parseNetsh(english)).toEqual({ first: 49152, last: 65535, reserved: [] });
    const german =
      "\r\nDynamischer Portbereich für Protokoll tcp\r\nStartport           : 1024\r\nAnzahl von Ports : 100\r\n";
    expect(parseNetsh(german)).toEqual({ first: 1024, last: 1123, reserved: [] });
    expect(parseNetsh("The following command was not found")).toBeNull();
    expect(parseSysctl("")).toBeNull();
  });
});

describe("profiles", () => {
  it("those that overlap, until one gets its own", async () => {
    const options = await aGateway();
    const home = temporaryDirectory();
    const profile = (name: string, more = {}) => resolveProfile({ profile: name, home, env: {}, ...more });
    const main = profile("default");
    const overlapping = profile("rescue", { stateDir: main.stateDir, port: 18_790 });
    const finding = await findingOf("profiles", { ...options, instances: [main, overlapping] });
    expectFault(
      finding,
      /one config: .*one state directory: .*one workspace: .*18790.* are 1 apart/,
      /--state-dir.*--port/,
    );
    expectFine(await findingOf("profiles", { ...options, instances: [main, profile("rescue")] }));
    expectFine(await findingOf("profiles", options));
  });
});

describe("derived-ports", () => {
  itOnLinux("one that a stranger has, until it leaves; one of the gateway's own children is none", async () => {
    const options = await aGateway();
    const gateway = await acquire(options);
    const port = gateway.port + 2;
    const ours = await aStranger(port, "127.0.0.1");
    const evidence = new RegExp(`pid \\d+ .* listens on ports? ${port}\\b.*, derived from ${gateway.port}`);
    expect((await findingOf("derived-ports", options)).evidence).not.toMatch(evidence);
    await gateway.close();
    expectFault(await findingOf("derived-ports", options), evidence, /another port/);
    await ours.kill();
    expect((await findingOf("derived-ports", options)).evidence).not.toMatch(evidence);
  });

  itWhere(isLinux && hasPython && kernelIsAtLeast(6, 8), "needs Linux 6.8 and Python")(
    "one to be reserved that a stranger has bound without listening; the gateway's own reservation is none",
    async () => {
      const reserved = await freePort();
      const options = { ...(await aGateway()), reserve: [reserved] };
      const gateway = await acquire(options);
      const RESERVED = "which the gateway is to reserve";
      expect((await findingOf("derived-ports", options)).evidence).not.toContain(RESERVED);
      await gateway.close();
      const stranger = await aBinder(reserved, "127.0.0.1");
      expectFault(
        await findingOf("derived-ports", options),
        new RegExp(`pid ${stranger.pid} .* has bound, without listening, port ${reserved}, ${RESERVED}`),
        /stop that process/,
      );
    },
  );

  itOnLinux("a port with no room above", async () => {
    const options = { ...(await aGateway()), port: 65_500 };
    expectFault(await findingOf("derived-ports", options), /no room for all derived ports/, /up to 65425/);
  });
});

describe("supervisor", () => {
  const findingWith = (env: NodeJS.ProcessEnv, options: { stateDir: string; port: number }) =>
    pick("supervisor", diagnoseElsewhere(options, { env: { PATH: process.env.PATH, ...env } }));

  it("what was detected, and by what", async () => {
    const options = await aGateway();
    expect(findingWith({ pm_id: "0", PM2_HOME: "/x" }, options)).toMatchObject({
      ok: true,
      evidence: "this process was started by pm2 (set: pm_id)",
    });
    const container = { KUBERNETES_SERVICE_HOST: "10.96.0.1" };
    expect(findingWith(container, options).evidence).toContain(
      "inside a Kubernetes pod, not as pid 1: nothing restarts it (set: KUB",
    );
    const gateway = startGateway(options, { env: { PATH: process.env.PATH, GATEWAY_LOCK_SUPERVISOR: "schtasks" } });
    await gateway.next("serving");
    expect(findingWith({ GATEWAY_LOCK_SUPERVISOR: "none" }, options).evidence).toBe(
      `this process was started by none (set: GATEWAY_LOCK_SUPERVISOR); the gateway of pid ${gateway.pid} by schtasks`,
    );
  });

  it("a supervisor that nobody knows, and a socket of systemd's that is not there", async () => {
    const options = await aGateway();
    expectFault(
      findingWith({ GATEWAY_LOCK_SUPERVISOR: "systemD" }, options),
      /no supervisor that is known/,
      /one of systemd, /,
    );
    const NOTIFY_SOCKET = join(options.stateDir, "notify");
    expectFault(findingWith({ NOTIFY_SOCKET }, options), /no such socket/, /unset it/);
    expectFine(findingWith({ GATEWAY_LOCK_SUPERVISOR: "systemd", NOTIFY_SOCKET: "@abstract" }, options));
  });

  it("knows the service of a process by its cgroup", () => {
    expect(parseCgroup("0::/system.slice/gateway.service\n")).toEqual({ name: "gateway.service", isUser: false });
    expect(parseCgroup("0::/user.slice/user-1000.slice/user@1000.service/app.slice/gateway.service\n")).toEqual({
      name: "gateway.service",
      isUser: true,
    });
    expect(parseCgroup("1:name=systemd:/system.slice/a.service\n0::/\n")).toEqual({ name: "a.service", isUser: false });
    for (const none of ["0::/user.slice/user-0.slice/session-1.scope\n", "0::/\n", ""])
      expect(parseCgroup(none)).toBeNull();
  });

  it.each([
    ["Restart=always\nRestartPreventExitStatus=\n", true],
    ["Restart=on-failure\nRestartPreventExitStatus=1 SIGKILL\n", true],
    ["Restart=always\nRestartPreventExitStatus=78\n", false],
    ["RestartPreventExitStatus=1 75\nRestart=on-failure\n", false],
    ["Restart=no\nRestartPreventExitStatus=\n", false],
    ["Restart=on-abnormal\n", false],
    ["", false],
  ])("a unit that shows %j would start a duplicate for ever: %s", (shown, expected) => {
    expect(loopsOn(shown)).toBe(expected);
  });
});

it("nothing from a record reaches the reader with control characters in it", async () => {
  const options = await aGateway();
  const gateway = startGateway({ ...options, configPath: join(temporaryDirectory(), "a\u001b[31mb.json") });
  await gateway.next("serving");
  onTestFinished(() => gateway.kill());
  for (const { evidence, next } of await diagnose(options)) expect(`${evidence}${next}`).not.toMatch(CONTROL);
});

function kernelIsAtLeast(major: number, minor: number): boolean {
  const [ours = 0, then = 0] = release().split(".").map(Number);
  return ours > major || (ours === major && then >= minor);
}
