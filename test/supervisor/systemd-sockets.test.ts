// Gateways whose socket a real systemd holds: who is answered, and when, and what happens to a service that asks for something else.

import { expect } from "vitest";
import { bodyOf, connectTo, until } from "../support/listener-tools.ts";
import {
  example,
  install,
  installExample,
  isDown,
  itBooted,
  pidOf,
  restartsOf,
  systemd,
  Visitor,
} from "../support/services.ts";
import { freePort } from "../support/temporary.ts";

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
    process.kill(pidOf("activated.service"), "SIGKILL");
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
