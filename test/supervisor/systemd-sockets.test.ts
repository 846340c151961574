// Gateways that others pass their sockets to: a real systemd that holds the socket, and `gateway-lock run` as a service.

import { existsSync } from "node:fs";
import { expect } from "vitest";
import { itWhere } from "../support/capabilities.ts";
import { bodyOf, connectTo, until } from "../support/listener-tools.ts";
import {
  example,
  firstAnswer,
  install,
  installExample,
  isDown,
  itBooted,
  restartsOf,
  systemd,
  Visitor,
} from "../support/services.ts";
import { NODE, PACKAGE } from "../support/systemd.ts";
import { freePort } from "../support/temporary.ts";

const itWithPython = existsSync("/usr/bin/python3") ? itBooted : itWhere(false, "needs python3");

/** The socket of examples/systemd at `host`, and its service, which asks for 127.0.0.1. */
async function installActivated(name: string, port: number, host = "127.0.0.1"): Promise<void> {
  await installExample([name], port, "\n[Unit]\nStartLimitBurst=3");
  const socket = example("gateway.socket").replace("127.0.0.1:18789", `${host}:${port}`);
  await install({ [`${name}.socket`]: socket });
  await systemd().systemctl("start", `${name}.socket`);
}

itBooted(
  "the example with its socket: the first client starts the gateway, and no client is refused when it is stopped or killed",
  async () => {
    const port = await freePort();
    await installActivated("activated", port);
    expect(await systemd().show("activated.service", "ActiveState")).toEqual({ ActiveState: "inactive" });

    const first = await bodyOf(port);
    await systemd().systemctl("stop", "activated.service");
    const second = await bodyOf(port);
    const visitor = new Visitor(port);
    await until(() => visitor.heard.has(second));
    process.kill(await systemd().mainProcessOf("activated.service"), "SIGKILL");
    await systemd().until(
      "activated.service",
      ["NRestarts", "ActiveState"],
      ({ NRestarts, ActiveState }) => NRestarts === "1" && ActiveState === "active",
    );
    const third = await bodyOf(port);
    const heard = await visitor.stop();

    console.log("heard by a client that never stopped asking:", heard);
    expect(new Set([first, second, third]).size).toBe(3);
    expect(heard).not.toContain("ECONNREFUSED");
    expect(await restartsOf("activated.service")).toMatchObject({ ActiveState: "active" });
    expect(await systemd().show("activated.socket", "Result")).toEqual({ Result: "success" });
  },
);

itBooted("the example with a socket on all addresses: a clear refusal, and no endless loop", async () => {
  const port = await freePort();
  await installActivated("mistaken", port, "0.0.0.0");

  await connectTo({ port });
  await isDown("mistaken.socket");

  expect(await restartsOf("mistaken.service")).toMatchObject({ NRestarts: "0", ActiveState: "failed" });
  // The exit code has no say here: the client who waits at the socket starts it again, until StartLimitBurst= ends that.
  expect(await systemd().show("mistaken.socket", "Result")).toEqual({ Result: "service-start-limit-hit" });
  const said = (await systemd().journal("mistaken.service")).filter((line) => line.startsWith("gateway: "));
  console.log(`started ${said.length} times:`, said[0]);
  expect(said).toHaveLength(3);
  expect(new Set(said).size).toBe(1);
  expect(said[0]).toContain("0.0.0.0");
});

itWithPython(
  "the example of gateway-lock run: a program of another language is alone, hears SIGTERM once, and is back after SIGKILL",
  async () => {
    const port = await freePort();
    const here = `[Service]
ExecStart=
ExecStart=${NODE} ${PACKAGE}/dist/gateway-lock.cjs run --state-dir /var/lib/program --port ${port} -- /usr/bin/python3 ${PACKAGE}/test/fixtures/run-server.py
`;
    for (const name of ["program", "twin"]) {
      await install({ [`${name}.service`]: example("program.service"), [`${name}.service.d/here.conf`]: here });
    }
    await systemd().systemctl("start", "program");
    expect(await bodyOf(port)).toBe("python");

    await systemd().run("systemctl", "start", "twin");
    await isDown("twin.service");
    expect(await restartsOf("twin.service")).toMatchObject({ NRestarts: "0", ExecMainStatus: "78" });

    const killed = performance.now();
    process.kill(await systemd().mainProcessOf("program.service"), "SIGKILL");
    await systemd().until(
      "program.service",
      ["NRestarts", "ActiveState"],
      ({ NRestarts, ActiveState }) => NRestarts === "1" && ActiveState === "active",
    );
    expect(await firstAnswer(port)).toBe("python");
    console.log(`killed with SIGKILL, answers ${Math.round(performance.now() - killed)} ms later`);
    await restartsOf("program.service");

    await systemd().systemctl("stop", "program");
    const heard = (await systemd().journal("program.service")).filter((line) => line.includes('"signal"'));
    expect(heard).toEqual(['{"event": "signal", "name": "SIGTERM"}']);
    expect(await restartsOf("program.service")).toMatchObject({ ExecMainStatus: "0", ActiveState: "inactive" });
  },
);
