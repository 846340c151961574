// Reserved ports are claimed with the gateway's own, all or none, and are as exclusive; each can be served later, here or by a child process.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttpServer, type Server } from "node:http";
import { connect, createServer as createNetServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Gateway } from "../lib/gateway.ts";
import { canUnshareNet, hasIPv6, hasPython, isLinux, itWhere } from "./support/capabilities.ts";
import { expectNothingLeft, isPortFree, listenOn, refusalOf } from "./support/gateways.ts";
import {
  ALL_REFUSED,
  bodyOf,
  claim,
  connectTo,
  refusalOf as errorOf,
  lingeringClient,
  openSockets,
  Rival,
  refusalToConnect,
  stop,
} from "./support/listener-tools.ts";
import { fixturePath, startFixture, TestProcess } from "./support/processes.ts";
import { freePort, openDescriptors, temporaryDirectory } from "./support/temporary.ts";
import { hasCompiler } from "./support/waits.ts";

const itWithRivals = itWhere(hasPython, "no python3");
const itOnBoth = itWhere(hasIPv6, "no IPv6");
const itGives = itWhere(hasPython && isLinux, "needs Python on Linux");

const serving = (body: string): Server => createHttpServer((_, response) => response.end(body));
const rolesOf = ({ addresses }: Gateway) => addresses.map(({ address, port, role }) => `${role} ${address}:${port}`);

async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) ports.add(await freePort());
  return [...ports];
}

/** A contender of test/fixtures/gateway-contender.mjs that has acquired; started by another program where one is given. */
async function startContender(options: object, by: readonly string[] = []): Promise<TestProcess> {
  const [command = "", ...args] = [...by, process.execPath, fixturePath("gateway-contender.mjs")];
  const contender = new TestProcess(command, args);
  await contender.next("loaded");
  contender.send(JSON.stringify({ command: "acquire", options }));
  const { event, message } = await contender.next("acquired", "refused");
  if (event === "refused") throw new Error(message);
  return contender;
}

const tell = (contender: TestProcess, command: string, fields: object = {}) =>
  contender.send(JSON.stringify({ command, ...fields }));

/** How a client is got rid of that is not served: refused, or accepted and reset. */
function fateOf(port: number, host = "127.0.0.1"): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ port, host });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? String(error)));
    socket.once("end", () => resolve("end"));
    onTestFinished(() => {
      socket.destroy();
    });
  });
}

/** Accepts one connection by descriptor 3, says so to whoever has connected, and goes on until it is killed. */
const PYTHON_SERVER = [
  "python3",
  "-c",
  `import signal, socket
listener = socket.socket(fileno=3)
while True:
    client, _ = listener.accept()
    client.sendall(b"child")
    client.close()`,
];

async function hear(port: number, host = "127.0.0.1"): Promise<string> {
  const socket = await connectTo({ port, host });
  let text = "";
  for await (const data of socket.setEncoding("utf8")) text += data;
  return text;
}

describe("a reserved port", () => {
  itOnBoth(
    "is claimed on every host, with its guard, and refuses clients; all of it is free after close()",
    async () => {
      const [port = 0, ...reserve] = await freePorts(3);
      const before = openDescriptors();
      const gateway = await claim({ port, reserve });
      expect(rolesOf(gateway)).toEqual([
        `listen 127.0.0.1:${port}`,
        `guard ::1:${port}`,
        ...reserve.flatMap((one) => [`reserved 127.0.0.1:${one}`, `guard ::1:${one}`]),
      ]);
      for (const one of reserve) {
        for (const host of ["127.0.0.1", "::1"]) expect(await refusalToConnect(one, host)).toBe("ECONNREFUSED");
      }
      expect([...openSockets().values()].filter(({ inherited }) => inherited)).toEqual([]);
      await gateway.close();
      for (const one of reserve) expect(await isPortFree(one)).toBe("free");
      expect(openDescriptors()).toBe(before);
    },
  );

  itOnBoth("is claimed at both halves of localhost, and served on both", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved], host: "localhost" });
    expect(rolesOf(gateway).slice(2)).toEqual([`reserved 127.0.0.1:${reserved}`, `reserved ::1:${reserved}`]);
    await gateway.listen(serving("both"), reserved);
    for (const host of ["127.0.0.1", "::1"]) expect(await bodyOf(reserved, host)).toBe("both");
  });

  it("counts once, however often it is named, and the gateway's own port is not reserved as well", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved, port, reserved], loopbackGuard: false });
    expect(rolesOf(gateway)).toEqual([`listen 127.0.0.1:${port}`, `reserved 127.0.0.1:${reserved}`]);
  });

  itWhere(canUnshareNet, "no network namespaces")("is not what the kernel chooses for port 0", async () => {
    // In a network with two ports to choose from, one of which is reserved.
    const script = 'ip link set lo up; sysctl -qw net.ipv4.ip_local_port_range="40000 40001"; exec "$@"';
    const namespaces = ["--user", "--map-root-user", "--net", "sh", "-ec", script, "sh"];
    for (const [reserved, left] of [
      [40_000, 40_001],
      [40_001, 40_000],
    ] as const) {
      const options = { stateDir: temporaryDirectory(), port: 0, reserve: [reserved] };
      const command = [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
      const gateway = new TestProcess("unshare", [...namespaces, ...command]);
      expect(await gateway.next("acquired", "refused")).toMatchObject({ event: "acquired", port: left });
    }
  });

  itWithRivals("keeps rivals out, whatever their flags: before it is served, meanwhile, and after", async () => {
    const rival = new Rival();
    const [port = 0] = await freePorts(1);
    const reserved = await rival.unusedPort();
    const gateway = await claim({ port, reserve: [reserved] });
    expect(await rival.attempt(reserved)).toEqual(ALL_REFUSED);
    for (let generation = 0; generation < 2; generation++) {
      const server = serving("reserved");
      await gateway.listen(server, reserved);
      expect(await bodyOf(reserved)).toBe("reserved");
      expect(await rival.attempt(reserved)).toEqual(ALL_REFUSED);
      await stop(server);
      expect(await rival.attempt(reserved)).toEqual(ALL_REFUSED);
    }
    await gateway.close();
    expect((await rival.attempt(reserved)).won).not.toEqual([]);
  });

  describe("with a rival that is bound beside it as soon as the kernel lets it, and tries to listen for ever", () => {
    const itWithSquatters = itWhere(hasCompiler && isLinux, "needs a C compiler on Linux");

    function compileSquatter(): string {
      const path = join(temporaryDirectory(), "squatter");
      execFileSync("cc", ["-O2", "-o", path, fixturePath("listener-squatter.c")]);
      return path;
    }

    /** Where dead connections lie, the first hand-off leaves an instant to a rival: docs/design.md, "What falls short". */
    async function unusedPorts(count: number): Promise<readonly number[]> {
      const ports = new Set<number>();
      const rival = new Rival();
      while (ports.size < count) ports.add(await rival.unusedPort());
      return [...ports];
    }

    itWithSquatters("is served for the first time, however short the instant that it takes", async () => {
      const squatter = compileSquatter();
      const [port = 0] = await freePorts(1);
      // To set SO_REUSEADDR before listen(2) loses about one in fifty of them.
      const reserve = await unusedPorts(300);
      const gateway = await claim({ port, reserve, loopbackGuard: false });
      for (const reserved of reserve) {
        const rival = new TestProcess(squatter, [String(reserved)]);
        await rival.next("trying");
        await gateway.listen(serving(""), reserved);
        await rival.kill();
      }
    });

    itWithSquatters("is served by one after the other, and lost when the gateway is closed", async () => {
      const [port = 0] = await freePorts(1);
      const [reserved = 0] = await unusedPorts(1);
      const gateway = await claim({ port, reserve: [reserved], loopbackGuard: false });
      const rival = new TestProcess(compileSquatter(), [String(reserved)]);
      await rival.next("trying");
      for (let generation = 0; generation < 200; generation++) {
        const server = serving(`${generation}`);
        await gateway.listen(server, reserved);
        // Clients leave connections behind, which refuse a strict bind from the second generation on.
        if (generation % 10 === 0) expect(await bodyOf(reserved)).toBe(`${generation}`);
        await stop(server);
      }
      // It has tried all the time, and gets what nobody else has.
      await gateway.close();
      await rival.next("stole");
    });
  });

  itWithRivals("keeps a rival out that hammers it while one server follows the other", async () => {
    const rival = new Rival();
    const [port = 0] = await freePorts(1);
    const reserved = await rival.unusedPort();
    const gateway = await claim({ port, reserve: [reserved] });
    await rival.ask(`hammer ${reserved}`);
    for (let generation = 0; generation < 100; generation++) {
      const server = serving(`${generation}`);
      await gateway.listen(server, reserved);
      expect(await bodyOf(reserved)).toBe(`${generation}`);
      await stop(server);
    }
    const { rounds, won } = await rival.rest();
    expect(rounds).toBeGreaterThan(1);
    expect(won).toEqual([]);
  });
});

describe("a reserved port of a process that may attach no filter to a socket", () => {
  // Level and name: the second and third argument of setsockopt(2). Another level has an option 26 as well.
  const SO_ATTACH_FILTER = "1=1,2=26";

  itGives("is served, keeps rivals out, and shuts no successor out", async () => {
    const sandbox = ["python3", fixturePath("refused-call.py"), "EPERM", `setsockopt:${SO_ATTACH_FILTER}`];
    const rival = new Rival();
    const [port = 0] = await freePorts(1);
    const options = { stateDir: temporaryDirectory(), port, reserve: [await rival.unusedPort()] };
    const [reserved = 0] = options.reserve;
    for (let generation = 0; generation < 2; generation++) {
      const gateway = await startContender(options, sandbox);
      expect(await rival.attempt(reserved)).toEqual(ALL_REFUSED);
      tell(gateway, "serve", { port: reserved });
      await gateway.next("serving");
      expect(await rival.attempt(reserved)).toEqual(ALL_REFUSED);
      const gone = once(await lingeringClient(reserved, "127.0.0.1", false), "end");
      await gateway.kill();
      await gone;
    }
  });
});

describe("what is in the way of a reserved port", () => {
  it("refuses all of it, says which port and who has it, and leaves nothing behind", async () => {
    const stateDir = temporaryDirectory();
    const [port = 0, ...reserve] = await freePorts(4);
    const [first = 0, taken = 0, last = 0] = reserve;
    await listenOn(taken);
    const before = openDescriptors();
    const error = await refusalOf({ stateDir, port, reserve });
    expect(error).toMatchObject({
      code: "ALREADY_LISTENING",
      message: `another gateway instance is already listening on ws://127.0.0.1:${taken}`,
      port: taken,
      url: `ws://127.0.0.1:${taken}`,
      listener: { pid: process.pid },
      cause: { code: "EADDRINUSE" },
    });
    expect((error.cause as Error).message).toMatch(
      new RegExp(
        `^EADDRINUSE: .*127\\.0\\.0\\.1:${taken}; pid ${process.pid} \\(.*\\) has it; it is one of the ports to be reserved`,
      ),
    );
    expect(openDescriptors()).toBe(before);
    expectNothingLeft(stateDir);
    for (const one of [port, first, last]) expect(await isPortFree(one)).toBe("free");
  });

  itOnBoth("is met at the guard too, and at the other gateway's reservation", async () => {
    const [port = 0, other = 0, reserved = 0] = await freePorts(3);
    const rival = await claim({ port: other, reserve: [reserved], host: "::1", loopbackGuard: false });
    const error = await refusalOf({ stateDir: temporaryDirectory(), port, reserve: [reserved] });
    expect(error).toMatchObject({ code: "ALREADY_LISTENING", url: `ws://[::1]:${reserved}` });
    expect((error.cause as Error).message).toContain(`pid ${process.pid}`);
    // The other way round: a port that is somebody's own is another one's derived port.
    const main = await errorOf(() => claim({ port: reserved, host: "::1" }));
    expect(main).toMatchObject({ code: "ALREADY_LISTENING", port: reserved, listener: { pid: process.pid } });
    expect(rival.port).toBe(other);
  });

  it("is not told of before the gateway's own port, where both are taken", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    await listenOn(reserved);
    await listenOn(port);
    expect(await refusalOf({ stateDir: temporaryDirectory(), port, reserve: [reserved] })).toMatchObject({ port });
  });

  itWithRivals("lets no client in on the gateway's own port meanwhile", async () => {
    const [port, [reserved = 0]] = [await new Rival().unusedPort(), await freePorts(1)];
    await listenOn(reserved);
    const program = `const { connect } = require("node:net");
      let tries = 0, connected = 0;
      const again = () => connect(${port}, "127.0.0.1").on("connect", function () { connected++; this.destroy(); })
        .on("error", () => {}).on("close", () => { if (tries++ === 0) console.log('{"event":"begun"}'); setImmediate(again); });
      again();
      process.stdin.once("data", () => { console.log(JSON.stringify({ event: "told", tries, connected })); process.exit(); });`;
    const client = new TestProcess(process.execPath, ["-e", program]);
    await client.next("begun");
    for (let time = 0; time < 200; time++)
      await refusalOf({ stateDir: temporaryDirectory(), port, reserve: [reserved] });
    client.send("tell");
    const { tries, connected } = await client.next("told");
    expect(tries).toBeGreaterThan(10);
    expect(connected).toBe(0);
  });

  it("may be another reason than a rival", async () => {
    const error = await errorOf(() => claim({ port: 0, host: "192.0.2.1", reserve: [20_000] }));
    expect(error).toMatchObject({ code: "BIND_FAILED", port: 20_000, cause: { code: "EADDRNOTAVAIL" } });
    expect(error.message).toContain("one of the ports to be reserved");
  });

  it("is waited for as the port itself is, when a lock was waited for", async () => {
    const [stateDir, [port = 0, reserved = 0]] = [temporaryDirectory(), await freePorts(2)];
    const options = { stateDir, port, reserve: [reserved] };
    const owner = await startContender(options);
    tell(owner, "serve", { port: reserved });
    await owner.next("serving");
    const standby = startFixture("gateway-contender.mjs");
    await standby.next("loaded");
    tell(standby, "acquire", { options: { ...options, timeout: 10_000 } });
    await lingeringClient(reserved, "127.0.0.1", false);
    await owner.kill();
    await standby.next("acquired");
    tell(standby, "serve", { port: reserved });
    await standby.next("serving");
    expect(await bodyOf(reserved)).toBe("served");
  });
});

describe("dead connections on a reserved port", () => {
  itWithRivals(
    "are in nobody's way: the next gateway reserves it at once, refuses clients and rivals, and serves it",
    async () => {
      const rival = new Rival();
      const [port = 0] = await freePorts(1);
      const [stateDir, reserved] = [temporaryDirectory(), await rival.unusedPort()];
      const options = { stateDir, port, reserve: [reserved] };
      for (let generation = 0; generation < 3; generation++) {
        const gateway = await startContender(options);
        // Connections of the generation before are still there: a plain strict bind is refused.
        if (generation > 0) expect((await rival.ask(`try 127.0.0.1 ${reserved} strict`)).error).toBe("EADDRINUSE");
        expect(await rival.attempt(reserved)).toEqual(ALL_REFUSED);
        expect(await refusalToConnect(reserved, "127.0.0.1")).toBe("ECONNREFUSED");
        tell(gateway, "serve", { port: reserved });
        await gateway.next("serving");
        const client = await lingeringClient(reserved, "127.0.0.1", false);
        const gone = once(client, "end");
        await gateway.kill();
        await gone;
      }
    },
  );

  it("let exactly one of many in that start at once with other state directories", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const first = await startContender({ stateDir: temporaryDirectory(), port, reserve: [reserved] });
    tell(first, "serve", { port: reserved });
    await first.next("serving");
    const client = await lingeringClient(reserved, "127.0.0.1", false);
    const contenders = Array.from({ length: 8 }, () => startFixture("gateway-contender.mjs"));
    await Promise.all(contenders.map((contender) => contender.next("loaded")));
    const gone = once(client, "end");
    await first.kill();
    await gone;
    for (let round = 0; round < 10; round++) {
      for (const contender of contenders)
        tell(contender, "acquire", { options: { stateDir: temporaryDirectory(), port: 0, reserve: [reserved] } });
      const ends = await Promise.all(contenders.map((contender) => contender.next("acquired", "refused")));
      expect(ends.filter(({ event }) => event === "acquired")).toHaveLength(1);
      for (const { code, port: taken } of ends.filter(({ event }) => event === "refused"))
        expect({ code, taken }).toEqual({ code: "ALREADY_LISTENING", taken: reserved });
      const winner = contenders[ends.findIndex(({ event }) => event === "acquired")];
      if (winner !== undefined) tell(winner, "close");
      await winner?.next("closed");
    }
  }, 60_000);
});

describe("a server on a reserved port", () => {
  it("serves beside the gateway's own, and one after the other", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved] });
    await gateway.listen(serving("main"));
    gateway.ready();
    for (const body of ["one", "two"]) {
      const server = serving(body);
      await gateway.listen(server, reserved);
      expect(await bodyOf(reserved)).toBe(body);
      expect(await bodyOf(port)).toBe("main");
      await stop(server);
      expect(await fateOf(reserved)).toBe("ECONNRESET");
    }
    // Of the main port alone the record speaks.
    expect(gateway.owner).toMatchObject({ phase: "ready", port });
  });

  it("is refused where there is one already, where none is reserved, and after close(); the claim stays", async () => {
    const [port = 0, reserved = 0, other = 0] = await freePorts(3);
    const gateway = await claim({ port, reserve: [reserved] });
    await gateway.listen(serving("first"), reserved);
    expect(await errorOf(() => gateway.listen(serving("second"), reserved))).toMatchObject({
      code: "HANDOFF_FAILED",
      message: `failed to hand the gateway socket to the server: port ${reserved} is served already; close that server first`,
    });
    expect(await errorOf(() => gateway.listen(serving("third"), other))).toMatchObject({ code: "HANDOFF_FAILED" });
    expect(await bodyOf(reserved)).toBe("first");
    await gateway.close();
    expect(await errorOf(() => gateway.listen(serving("late"), reserved))).toMatchObject({ code: "HANDOFF_FAILED" });
    for (const wrong of ["18791", null, {}, [reserved]]) {
      await expect(gateway.listen(serving("x"), wrong as number)).rejects.toMatchObject({
        code: "ERR_INVALID_ARG_TYPE",
      });
      expect(() => gateway.claim(wrong as number)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARG_TYPE" }));
    }
    for (const wrong of [Number.NaN, 70_000, -1])
      expect(() => gateway.claim(wrong)).toThrow(expect.objectContaining({ code: "ERR_SOCKET_BAD_PORT" }));
    for (const [wrong, code] of [
      [4, "ERR_INVALID_ARG_TYPE"],
      [null, "ERR_INVALID_ARG_TYPE"],
      ["\u001b[31m", "ERR_INVALID_ARG_VALUE"],
    ] as const)
      expect(() => gateway.claim(reserved, wrong as string)).toThrow(expect.objectContaining({ code }));
  });

  it("that does not take the socket leaves a reservation that turns clients away", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved] });
    const busy = createNetServer().listen(0, "127.0.0.1");
    onTestFinished(() => stop(busy as Server));
    await once(busy, "listening");
    const hasty = createHttpServer();
    const handed = gateway.listen(hasty, reserved);
    hasty.close();
    expect(await errorOf(() => handed)).toMatchObject({ code: "HANDOFF_FAILED" });
    expect(await errorOf(() => gateway.listen(busy as Server, reserved))).toMatchObject({ code: "HANDOFF_FAILED" });
    expect(await fateOf(reserved)).toBe("ECONNRESET");
    await gateway.listen(serving("at last"), reserved);
    expect(await bodyOf(reserved)).toBe("at last");
  });

  it("is waited for by close(), and ended by force", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved] });
    await gateway.listen(serving("main"));
    const deaf = createHttpServer(() => {});
    const asked = once(deaf, "request");
    await gateway.listen(deaf, reserved);
    const client = await connectTo({ port: reserved, host: "127.0.0.1" });
    client.write("GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    await asked;
    let closed = false;
    const closing = gateway.close().then(() => {
      closed = true;
    });
    await expect.poll(() => refusalToConnect(reserved, "127.0.0.1")).toBe("ECONNREFUSED");
    expect(closed).toBe(false);
    expect(await isPortFree(reserved)).toBe("EADDRINUSE");
    await Promise.all([closing, gateway.close({ force: true }), once(client, "close")]);
    expect(await isPortFree(reserved)).toBe("free");
  });
});

describe("a child process that is given a reserved port", () => {
  itGives("serves it, one child after the other", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved] });
    const before = openDescriptors();
    for (let generation = 0; generation < 2; generation++) {
      const [command = "", ...args] = PYTHON_SERVER;
      const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit", gateway.claim(reserved)] });
      onTestFinished(() => {
        child.kill("SIGKILL");
      });
      expect(await hear(reserved)).toBe("child");
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
      // Who comes in between waits for the next one.
      const early = generation === 0 ? hear(reserved) : null;
      if (early !== null) {
        const next = spawn(command, args, { stdio: ["ignore", "ignore", "inherit", gateway.claim(reserved)] });
        expect(await early).toBe("child");
        next.kill("SIGKILL");
        await once(next, "exit");
      }
    }
    expect(openDescriptors()).toBe(before);
    await gateway.close();
    expect(await isPortFree(reserved)).toBe("free");
  });

  itGives("in Node, by listen({ fd: 3 })", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved] });
    const program = `require("node:net").createServer((client) => client.end("node")).listen({ fd: 3 })`;
    const child = spawn(process.execPath, ["-e", program], {
      stdio: ["ignore", "ignore", "inherit", gateway.claim(reserved)],
    });
    onTestFinished(() => {
      child.kill("SIGKILL");
    });
    expect(await hear(reserved)).toBe("node");
  });

  itWhere(hasIPv6 && hasPython && isLinux, "needs IPv6, and Python on Linux")(
    "gets the first host's socket, or the one that is named; the other one goes on refusing",
    async () => {
      const [port = 0, reserved = 0] = await freePorts(2);
      const gateway = await claim({ port, reserve: [reserved], host: "localhost" });
      const fd = gateway.claim(reserved, "::1");
      expect(gateway.claim(reserved, "0:0:0:0:0:0:0:1")).toBe(fd);
      const [command = "", ...args] = PYTHON_SERVER;
      const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit", fd] });
      onTestFinished(() => {
        child.kill("SIGKILL");
      });
      expect(await hear(reserved, "::1")).toBe("child");
      expect(await refusalToConnect(reserved, "127.0.0.1")).toBe("ECONNREFUSED");
      expect(gateway.claim(reserved)).not.toBe(fd);
      expect(await errorOf(() => gateway.claim(reserved, "127.0.0.9"))).toMatchObject({ code: "HANDOFF_FAILED" });
    },
  );

  itGives("gets none that is served here, and no other", async () => {
    const [port = 0, ...reserve] = await freePorts(3);
    const [given = 0, served = 0] = reserve;
    const gateway = await claim({ port, reserve });
    gateway.claim(given);
    await gateway.listen(serving("here"), served);
    const messages = [() => gateway.claim(served), () => gateway.claim(port), () => gateway.claim(1)].map(
      async (action) => (await errorOf(action)).message.replace(/^.*?server: /, ""),
    );
    expect(await Promise.all(messages)).toEqual([
      `port ${served} is served already; close that server first`,
      `port ${port} is the gateway's own, and not reserved: serve it by listen()`,
      "port 1 is not part of this claim: name it in `reserve`",
    ]);
    await gateway.close();
    expect(await errorOf(() => gateway.claim(given))).toMatchObject({ code: "HANDOFF_FAILED" });
  });

  itGives("leaves it to a server here when it has ended, whatever it has done to the socket", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved] });
    const give = (program: string) => {
      const child = spawn("python3", ["-c", program], {
        stdio: ["ignore", "ignore", "inherit", gateway.claim(reserved)],
      });
      onTestFinished(() => {
        child.kill("SIGKILL");
      });
      return once(child, "exit");
    };
    await give("import socket; socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)");
    // The next one finds it listening again.
    const accepted = give("import socket; client, _ = socket.socket(fileno=3).accept(); client.sendall(b'next')");
    expect(await hear(reserved)).toBe("next");
    await accepted;
    await give("import socket; socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)");
    const server = serving("here again");
    await gateway.listen(server, reserved);
    expect(await bodyOf(reserved)).toBe("here again");
    await stop(server);
    expect(await fateOf(reserved)).toBe("ECONNRESET");
  });

  itGives(
    "keeps it when the gateway is killed: the next one is told whose it is, and gets it when the child has ended",
    async () => {
      const [port = 0, reserved = 0] = await freePorts(2);
      const options = { stateDir: temporaryDirectory(), port, reserve: [reserved] };
      const gateway = await startContender(options);
      tell(gateway, "claim", { port: reserved, program: PYTHON_SERVER });
      const { pid } = await gateway.next("child");
      onTestFinished(() => {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It is gone, as it should be.
        }
      });
      expect(await hear(reserved)).toBe("child");
      gateway.child.kill("SIGKILL");
      await once(gateway.child, "exit");
      const error = await refusalOf(options);
      expect(error).toMatchObject({ code: "ALREADY_LISTENING", port: reserved, listener: { pid } });
      expect(await hear(reserved)).toBe("child");
      process.kill(pid, "SIGKILL");
      await gateway.exited; // with the last one that has its standard error
      const next = await claim(options);
      await next.listen(serving("next"), reserved);
      expect(await bodyOf(reserved)).toBe("next");
    },
  );

  itGives("goes on serving when the gateway closes in good order", async () => {
    const [port = 0, reserved = 0] = await freePorts(2);
    const gateway = await claim({ port, reserve: [reserved] });
    const [command = "", ...args] = PYTHON_SERVER;
    const child = spawn(command, args, { stdio: ["ignore", "ignore", "inherit", gateway.claim(reserved)] });
    onTestFinished(() => {
      child.kill("SIGKILL");
    });
    expect(await hear(reserved)).toBe("child");
    await gateway.close();
    expect(await hear(reserved)).toBe("child");
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await isPortFree(reserved)).toBe("free");
  });
});
