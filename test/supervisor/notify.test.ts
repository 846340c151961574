// What systemd hears of a gateway, at a real socket: ready, stopping, and that a wait is no hang.

import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { notifySystemd } from "../../lib/supervisor/notify.ts";
import { hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { acquire } from "../support/gateways.ts";
import { fixturePath, startFixture, TestProcess } from "../support/processes.ts";
import { tell } from "../support/standbys.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

const itNotifies = itWhere(isLinux && hasPython, "no Linux or no python3");

/** systemd's end of NOTIFY_SOCKET. */
class Manager extends TestProcess {
  readonly socket: string;

  constructor(socket: string, how: readonly string[]) {
    super("python3", [fixturePath("notify-receiver.py"), socket, ...how]);
    this.socket = socket;
  }

  static async start(socket: string = join(temporaryDirectory(), "notify"), ...how: string[]): Promise<Manager> {
    const manager = new Manager(socket, how);
    await manager.next("bound");
    return manager;
  }

  /** What the next datagram says. */
  async hears(): Promise<{ pid: number; fields: Record<string, string> }> {
    const { pid, text } = await this.next("notified");
    return { pid, fields: fieldsOf(text) };
  }

  /** All that has been said until now: what this process sends itself is the last of it. */
  async hasHeard(): Promise<Record<string, string>[]> {
    const end = randomUUID();
    withSocket(this.socket, () => notifySystemd({ END: end }));
    const heard: Record<string, string>[] = [];
    for (;;) {
      const { fields } = await this.hears();
      if (fields.END === end) return heard;
      heard.push(fields);
    }
  }
}

function fieldsOf(text: string): Record<string, string> {
  return Object.fromEntries(text.split("\n").map((line) => line.split(/=(.*)/s).slice(0, 2)));
}

function withSocket(socket: string, act: () => void): void {
  process.env.NOTIFY_SOCKET = socket;
  try {
    act();
  } finally {
    delete process.env.NOTIFY_SOCKET;
  }
}

function startNotified(socket: string | undefined, env: NodeJS.ProcessEnv = {}): TestProcess {
  const { NOTIFY_SOCKET, ...rest } = process.env;
  return startFixture(
    "notified.mjs",
    {},
    { env: { ...rest, ...env, ...(socket !== undefined && { NOTIFY_SOCKET: socket }) } },
  );
}

async function does(daemon: TestProcess, command: string, fields: object = {}): Promise<void> {
  tell(daemon, command, fields);
  const { event, ...rest } = await daemon.next("done", "failed");
  expect({ event, ...rest }).toEqual({ event: "done", command });
}

async function place(): Promise<{ stateDir: string; port: number; url: string }> {
  const port = await freePort();
  return { stateDir: temporaryDirectory(), port, url: `ws://127.0.0.1:${port}` };
}

describe("a gateway's life", () => {
  itNotifies.each([
    ["a path", () => join(temporaryDirectory(), "notify")],
    ["an abstract address", () => `@gateway-lock-test-${randomUUID()}`],
  ])("is told to %s: ready, and stopping", async (_, socket) => {
    const manager = await Manager.start(socket());
    const { url, ...options } = await place();
    const daemon = startNotified(manager.socket);
    await does(daemon, "acquire", { options });
    await does(daemon, "serve");
    await does(daemon, "ready");
    expect(await manager.hears()).toEqual({ pid: daemon.pid, fields: { READY: "1", STATUS: `ready: ${url}` } });
    await does(daemon, "close");
    expect(await manager.hears()).toEqual({ pid: daemon.pid, fields: { STOPPING: "1", STATUS: `stopping: ${url}` } });
    expect(await manager.hasHeard()).toEqual([]);
  });

  itNotifies("may be ready twice, and is not after it is closed", async () => {
    const manager = await Manager.start();
    const { url, ...options } = await place();
    const daemon = startNotified(manager.socket);
    await does(daemon, "acquire", { options });
    await does(daemon, "ready");
    await does(daemon, "ready");
    await does(daemon, "close");
    const ready = { READY: "1", STATUS: `ready: ${url}` };
    expect(await manager.hasHeard()).toEqual([ready, ready, { STOPPING: "1", STATUS: `stopping: ${url}` }]);
  });

  itNotifies("does not stop the service before its last gateway does", async () => {
    const manager = await Manager.start();
    const daemon = startNotified(manager.socket);
    for (let count = 0; count < 2; count++) {
      const { url, ...options } = await place();
      await does(daemon, "acquire", { options });
    }
    await does(daemon, "close");
    await does(daemon, "close");
    expect((await manager.hasHeard()).map(({ STOPPING }) => STOPPING)).toEqual([undefined, "1"]);
  });

  itNotifies("is told of a worker thread as of the main one, and of a cluster worker but for its end", async () => {
    const manager = await Manager.start();
    const daemon = startNotified(manager.socket);
    const { url, ...options } = await place();
    const STATUS = `stopping: ${url}`;
    await does(daemon, "worker", { options });
    expect(await manager.hears()).toMatchObject({ pid: daemon.pid, fields: { READY: "1" } });
    expect(await manager.hears()).toEqual({ pid: daemon.pid, fields: { STOPPING: "1", STATUS } });
    await does(daemon, "cluster", { options });
    expect((await manager.hears()).fields).toMatchObject({ READY: "1" });
    expect((await manager.hears()).fields).toEqual({ STATUS });
  });

  it("is told to nobody where nobody asks", async () => {
    const daemon = startNotified(undefined);
    const { url, ...options } = await place();
    await does(daemon, "acquire", { options });
    await does(daemon, "ready");
    await does(daemon, "close");
  });

  itNotifies("goes on where systemd can't be told: one warning, and no more", async () => {
    const nowhere = join(temporaryDirectory(), "nobody");
    for (const [socket, problem] of [
      [nowhere, `ENOENT: no such file or directory, sendto ${nowhere}`],
      ["vsock:2:1234", "NOTIFY_SOCKET is 'vsock:2:1234', which is no Unix socket"],
      [`/${"x".repeat(200)}`, /ENAMETOOLONG|EINVAL/],
    ] as const) {
      const daemon = startNotified(socket);
      const { url, ...options } = await place();
      await does(daemon, "acquire", { options });
      tell(daemon, "ready");
      // Node tells of a warning in a tick of its own: before or after the command is done.
      const told = [await daemon.next("warning", "done"), await daemon.next("warning", "done")];
      const message: unknown = told.find(({ event }) => event === "warning")?.message;
      expect(message).toMatch(/^systemd could not be told how the gateway is: /);
      expect(message).toMatch(problem);
      for (const command of ["close", "acquire"]) {
        tell(daemon, command, { options });
        expect((await daemon.next("warning", "done", "failed")).event).toBe("done");
      }
    }
    expect(existsSync(nowhere)).toBe(false);
  });
});

describe("a wait", () => {
  const EXTEND_TIMEOUT_USEC = "30000000";

  itNotifies("of a standby says whom it waits for, and asks for time", async () => {
    const manager = await Manager.start();
    const { url, ...options } = await place();
    const owner = await acquire(options);
    const daemon = startNotified(manager.socket);
    tell(daemon, "acquire", { options: { ...options, timeout: "Infinity" } });
    const STATUS = `standby: pid ${process.pid} owns ${url}`;
    for (let times = 0; times < 2; times++)
      expect((await manager.hears()).fields).toEqual({ STATUS, EXTEND_TIMEOUT_USEC });
    await owner.close();
    await daemon.next("done");
    expect((await manager.hears()).fields).toEqual({ STATUS: `starting: owns ${url}` });
  });

  itNotifies("that is in vain says why", async () => {
    const manager = await Manager.start();
    const { url, ...options } = await place();
    await acquire(options);
    const daemon = startNotified(manager.socket);
    tell(daemon, "acquire", { options: { ...options, timeout: 50 } });
    const { message } = await daemon.next("failed");
    expect((await manager.hears()).fields).toHaveProperty("EXTEND_TIMEOUT_USEC");
    expect((await manager.hears()).fields).toEqual({ STATUS: message });
    expect(await manager.hasHeard()).toEqual([]);
  });

  itNotifies("of a supervised start says what is wrong with the owner, and how it ended", async () => {
    const manager = await Manager.start();
    const { url, ...options } = await place();
    const owner = await acquire(options);
    let status = 503;
    await owner.listen(
      createHttpServer((request, response) => {
        if (status === 200) owner.healthz(request, response);
        else response.writeHead(status).end();
      }),
    );
    const daemon = startNotified(manager.socket, { GATEWAY_LOCK_SUPERVISOR: "systemd" });
    tell(daemon, "supervise", { options: { ...options, retry: { interval: 400, limit: 1000 } } });
    const { message } = await daemon.next("failed");
    const heard = await manager.hasHeard();
    expect(heard[0]).toEqual({
      STATUS: `waiting: another gateway instance is already listening on ${url}; the answer is status 503`,
      EXTEND_TIMEOUT_USEC,
    });
    expect(heard.at(-1)).toEqual({ STATUS: message });
    status = 200;
    await does(daemon, "supervise", { options });
    expect(await manager.hasHeard()).toEqual([{ STATUS: `left in control: pid ${process.pid} owns ${url}` }]);
  });
});

describe("a systemd that is too busy to listen", () => {
  itNotifies("hears all of it later, the last status only", async () => {
    const manager = await Manager.start(undefined, "full");
    const { url, ...options } = await place();
    const daemon = startNotified(manager.socket);
    await does(daemon, "acquire", { options });
    await does(daemon, "ready");
    await does(daemon, "close");
    manager.send("read");
    let heard: Record<string, string>;
    do heard = (await manager.hears()).fields;
    while (heard.FILL === "1");
    expect(heard).toEqual({ READY: "1", STOPPING: "1", STATUS: `stopping: ${url}` });
  });
});

describe("a value", () => {
  itNotifies("has no line breaks that would make it another field, and fits into a datagram", async () => {
    const manager = await Manager.start();
    withSocket(manager.socket, () => notifySystemd({ STATUS: `a\nREADY=1\r\n\u001b[31m${"é".repeat(5000)}` }));
    const { fields } = await manager.hears();
    expect(Object.keys(fields)).toEqual(["STATUS"]);
    expect(fields.STATUS).toMatch(/^a READY=1 {3}\[31mé+$/);
    expect(Buffer.byteLength(fields.STATUS ?? "")).toBeLessThan(4000);
  });
});
