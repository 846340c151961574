// A supervisor that listens itself and passes the socket on: the gateway uses it instead of binding, and leaves it as it was.

import { connect } from "node:net";
import { describe, expect, onTestFinished } from "vitest";
import { hasIPv6, hasPython, isLinux, itWhere } from "./support/capabilities.ts";
import { CLI } from "./support/commands.ts";
import { isPortFree } from "./support/gateways.ts";
import { fixturePath, TestProcess } from "./support/processes.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";
import { until } from "./support/waits.ts";

const itActivates = itWhere(hasPython && isLinux, "needs Python on Linux");

const LIBRARY = new URL("../dist/index.js", import.meta.url).href;
const adopter = (options: object) => [process.execPath, fixturePath("run-adopter.mjs"), JSON.stringify({ options })];

interface Scene {
  readonly port: number;
  readonly reserve?: readonly number[];
  readonly host?: string | string[];
  readonly listen?: readonly (readonly [string, number])[];
  readonly reusePort?: boolean;
  readonly strangers?: boolean;
  readonly stateDir?: string;
  /** `gateway-lock run` with a program that adopts the claim, instead of a gateway. */
  readonly wrapped?: boolean;
  /** In place of a gateway. */
  readonly command?: readonly string[];
}

async function supervisor({ port, reserve, host = "127.0.0.1", listen = [["127.0.0.1", port]], ...rest }: Scene) {
  const { stateDir = temporaryDirectory(), wrapped = false, command: other, ...flags } = rest;
  const options = { stateDir, port, host, reserve };
  const reserved = reserve === undefined ? [] : ["--reserve", reserve.join(",")];
  const command = wrapped
    ? [
        process.execPath,
        CLI,
        "run",
        "--state-dir",
        stateDir,
        "--port",
        String(port),
        ...reserved,
        "--",
        ...adopter(options),
      ]
    : [process.execPath, fixturePath("gateway.mjs"), JSON.stringify(options)];
  const argument = JSON.stringify({ listen, command: other ?? command, ...flags });
  const supervisor = new TestProcess("python3", [fixturePath("activation.py"), argument]);
  await supervisor.next("listening");
  return supervisor;
}

/** Connects, asks at once, and resolves with the answer's body, however long nobody accepts. */
function ask(port: number, host = "127.0.0.1"): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host });
    let text = "";
    socket.setEncoding("utf8").on("data", (data) => {
      text += data;
    });
    socket.once("error", reject).once("close", () => resolve(text.split("\r\n\r\n")[1] ?? ""));
    socket.write("GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    onTestFinished(() => {
      socket.destroy();
    });
  });
}

describe("a socket that the supervisor passes", () => {
  itActivates("is used instead of binding, and whoever connected before is served", async () => {
    const port = await freePort();
    const systemd = await supervisor({ port });
    const early = ask(port);
    systemd.send("start");
    const { pid } = await systemd.next("started");
    const { addresses } = await systemd.next("acquired");
    expect(addresses[0]).toMatchObject({ address: "127.0.0.1", port, role: "listen" });
    expect(await early).toBe(`pid ${pid}`);
    expect(await isPortFree(port)).toBe("EADDRINUSE");
  });

  itActivates("is the port of a gateway that leaves the choice to others", async () => {
    const passed = await freePort();
    const systemd = await supervisor({ port: 0, listen: [["127.0.0.1", passed]] });
    systemd.send("start");
    const { pid } = await systemd.next("started");
    const { addresses } = await systemd.next("acquired", "refused");
    expect(addresses).toContainEqual(expect.objectContaining({ address: "127.0.0.1", port: passed, role: "listen" }));
    expect(await ask(passed)).toBe(`pid ${pid}`);
  });

  itActivates("outlives a gateway that is killed: clients wait for the next one", async () => {
    const port = await freePort();
    const systemd = await supervisor({ port });
    systemd.send("start");
    await systemd.next("serving");
    systemd.send("kill");
    await systemd.next("ended");
    const between = ask(port);
    systemd.send("start");
    const { pid } = await systemd.next("started");
    expect(await between).toBe(`pid ${pid}`);
  });

  itActivates("still listens when a gateway has closed in good order", async () => {
    const port = await freePort();
    const systemd = await supervisor({ port });
    systemd.send("start");
    await systemd.next("serving");
    systemd.send("tell close");
    await systemd.next("done");
    const between = ask(port);
    systemd.send("tell exit");
    await systemd.next("ended");
    systemd.send("start");
    const { pid } = await systemd.next("started");
    expect(await between).toBe(`pid ${pid}`);
  });

  itActivates("is refused where it is for another address than the gateway's", async () => {
    const port = await freePort();
    const systemd = await supervisor({ port, listen: [["0.0.0.0", port]] });
    systemd.send("start");
    const refusal = await systemd.next("refused");
    expect(refusal).toMatchObject({
      code: "BIND_FAILED",
      message: `failed to bind gateway socket on ws://127.0.0.1:${port}: this process was started with a socket for 0.0.0.0 port ${port}; give both the same address (host here, ListenStream= in a systemd.socket)`,
    });
  });

  itActivates("is refused where others may listen beside it", async () => {
    const port = await freePort();
    const systemd = await supervisor({ port, reusePort: true });
    systemd.send("start");
    expect(await systemd.next("refused")).toMatchObject({
      code: "BIND_FAILED",
      message: expect.stringContaining("leave out ReusePort="),
    });
  });

  itActivates("is nobody's where LISTEN_PID names another process", async () => {
    const port = await freePort();
    const systemd = await supervisor({ port, strangers: true });
    systemd.send("start");
    expect(await systemd.next("refused")).toMatchObject({ code: "ALREADY_LISTENING" });
  });

  itActivates("is warned of where it is none of the gateway's", async () => {
    const [port, other] = [await freePort(), await freePort()];
    const systemd = await supervisor({ port, listen: [["127.0.0.1", other]] });
    systemd.send("start");
    await systemd.next("serving");
    await until(() => systemd.stderr.includes(`a socket for 127.0.0.1 port ${other} (LISTEN_FDS)`));
  });

  itActivates("for a reserved port is used as well: its clients wait for whoever serves it", async () => {
    const [port, reserved] = [await freePort(), await freePort()];
    const listen = [
      ["127.0.0.1", reserved],
      ["127.0.0.1", port],
    ] as const;
    const systemd = await supervisor({ port, reserve: [reserved], listen });
    const early = ask(reserved);
    for (let generation = 0; generation < 2; generation++) {
      systemd.send("start");
      const { pid } = await systemd.next("started");
      const { addresses } = await systemd.next("acquired");
      expect(addresses).toContainEqual({ address: "127.0.0.1", family: "IPv4", port: reserved, role: "reserved" });
      await systemd.next("serving");
      systemd.send(`tell serve ${reserved}`);
      await systemd.next("done");
      expect(await ask(reserved)).toBe(`pid ${pid}, reserved`);
      if (generation === 0) expect(await early).toBe(`pid ${pid}, reserved`);
      systemd.send("tell close");
      await systemd.next("done");
      systemd.send("tell exit");
      await systemd.next("ended");
    }
    expect(systemd.stderr).toBe("");
  });

  itActivates("does not make two gateways of one state directory", async () => {
    const [port, stateDir] = [await freePort(), temporaryDirectory()];
    const systemd = await supervisor({ port, stateDir });
    systemd.send("start");
    await systemd.next("serving");
    systemd.send("start");
    expect(await systemd.next("refused")).toMatchObject({ code: "ALREADY_LISTENING" });
  });

  itActivates("is one gateway's, whatever state directory the next one in the same process has", async () => {
    const port = await freePort();
    const program = `
      import { acquireGateway } from ${JSON.stringify(LIBRARY)};
      const say = (event, fields) => console.log(JSON.stringify({ event, ...fields }));
      const [first, second] = process.argv.slice(1).map((stateDir) => ({ stateDir, port: ${port} }));
      const gateway = await acquireGateway(first);
      await acquireGateway(second).catch(({ code }) => say("refused", { code }));
      await gateway.close();
      await acquireGateway(second);
      say("acquired", {});
    `;
    const directories = [temporaryDirectory(), temporaryDirectory()];
    const command = [process.execPath, "--input-type=module", "-e", program, "--", ...directories];
    const systemd = await supervisor({ port, command });
    systemd.send("start");
    expect(await systemd.next("refused", "acquired")).toMatchObject({ code: "ALREADY_LISTENING" });
    await systemd.next("acquired");
  });

  itActivates("goes through `gateway-lock run` to its program, and outlives both", async () => {
    const port = await freePort();
    const systemd = await supervisor({ port, wrapped: true });
    const early = ask(port);
    systemd.send("start");
    const { pid } = await systemd.next("acquired");
    expect(await early).toBe(`adopter ${pid}`);
    systemd.send("tell close");
    await systemd.next("closed");
    const between = ask(port);
    systemd.send("tell exit");
    await systemd.next("ended");
    systemd.send("start");
    const next = await systemd.next("acquired");
    expect(await between).toBe(`adopter ${next.pid}`);
    systemd.send("tell exit");
    await systemd.next("ended");
  });

  itActivates("for a reserved port goes through it as well, and is not silenced by whoever gets it", async () => {
    const [port, reserved] = [await freePort(), await freePort()];
    const listen = [["127.0.0.1", reserved]] as const;
    const systemd = await supervisor({ port, reserve: [reserved], listen, wrapped: true });
    systemd.send("start");
    const { pid } = await systemd.next("acquired");
    await systemd.next("serving");
    expect(await ask(reserved)).toBe(`reserved ${pid}`);
    systemd.send("tell close");
    await systemd.next("closed");
    const between = ask(reserved);
    systemd.send("tell exit");
    await systemd.next("ended");
    systemd.send("start");
    const next = await systemd.next("acquired");
    expect(await between).toBe(`reserved ${next.pid}`);
    systemd.send("tell exit");
    await systemd.next("ended");
  });

  itWhere(hasPython && isLinux && hasIPv6, "needs Python and IPv6")("serves both halves of localhost", async () => {
    const port = await freePort();
    const listen = [
      ["::1", port],
      ["127.0.0.1", port],
    ] as const;
    const systemd = await supervisor({ port, host: "localhost", listen });
    systemd.send("start");
    const { pid } = await systemd.next("started");
    await systemd.next("serving");
    expect([await ask(port), await ask(port, "::1")]).toEqual([`pid ${pid}`, `pid ${pid}`]);
  });
});
