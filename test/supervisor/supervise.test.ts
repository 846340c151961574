// A supervised start never loops: a gateway that is well is left in control, one that is not is waited for, and that ends.

import { spawnSync } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { GatewayLockMessage } from "../../lib/diagnostics.ts";
import { GatewayLockError } from "../../lib/errors.ts";
import type { Gateway } from "../../lib/gateway.ts";
import type { HealthTarget } from "../../lib/listener/health.ts";
import type { SuperviseOptions } from "../../lib/options.ts";
import { type Acquired, type LeftInControl, superviseGateway } from "../../lib/supervisor/supervise.ts";
import { hasFlockCommand, isLinux, itWhere } from "../support/capabilities.ts";
import { acquire, deadPid, expectNothingLeft, holdWithFlock, recordOf, startTimeOf } from "../support/gateways.ts";
import { until } from "../support/listener-tools.ts";
import { startFixture, type TestProcess } from "../support/processes.ts";
import { tell } from "../support/standbys.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

/** What a busy machine may add. ms */
const SLACK = 1500;
/** Longer than any test waits. ms */
const LONG = 60_000;
const HEALTH = { timeout: 200 };

beforeEach(() => supervisedBy("systemd"));
afterEach(() => {
  delete process.env.GATEWAY_LOCK_SUPERVISOR;
});

function supervisedBy(supervisor: string): void {
  process.env.GATEWAY_LOCK_SUPERVISOR = supervisor;
}

async function place(): Promise<{ stateDir: string; port: number }> {
  return { stateDir: temporaryDirectory(), port: await freePort() };
}

/** Supervises with a short health timeout; what it acquires is closed when the test ends. */
async function supervise(options: SuperviseOptions): Promise<Acquired | LeftInControl> {
  const result = await superviseGateway({ health: HEALTH, ...options });
  if (result.outcome === "acquired") onTestFinished(() => result.gateway.close({ force: true }));
  return result;
}

async function failure(options: SuperviseOptions): Promise<GatewayLockError> {
  const result = await supervise(options).catch((error: unknown) => error);
  if (result instanceof GatewayLockError) return result;
  throw new Error("it did not fail", { cause: result });
}

/** A gateway in this process that answers as told. */
async function ownerThat(answers: RequestListener, options: SuperviseOptions): Promise<Gateway> {
  const gateway = await acquire(options);
  await gateway.listen(createHttpServer(answers));
  gateway.ready();
  return gateway;
}

async function healthyOwner(options: SuperviseOptions): Promise<Gateway> {
  const gateway: Gateway = await ownerThat((request, response) => gateway.healthz(request, response), options);
  return gateway;
}

/** A gateway in a process of its own, which answers at /healthz. */
async function ownerProcess(options: SuperviseOptions): Promise<TestProcess> {
  const owner = startFixture("gateway-contender.mjs");
  tell(owner, "acquire", { options });
  await owner.next("acquired");
  tell(owner, "serve");
  await owner.next("serving");
  return owner;
}

/** Any program that listens on a port, answering as a gateway would. */
async function stranger(port: number, answers: RequestListener): Promise<() => Promise<void>> {
  const server = createHttpServer(answers);
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  onTestFinished(stop);
  return stop;
}

const wellFor =
  (ownerId: string): RequestListener =>
  (_, response) =>
    response.end(JSON.stringify({ ok: true, ownerId }));

/** What is told on the diagnostics channels until the test ends. */
function story(): { event: string; code: string | undefined; ownerId: string }[] {
  const told: { event: string; code: string | undefined; ownerId: string }[] = [];
  for (const event of ["wait", "takeover", "acquire", "refused"]) {
    const listen = (message: unknown) => {
      const { error, ownerId } = message as GatewayLockMessage;
      told.push({ event, code: (error as { code?: string } | undefined)?.code, ownerId });
    };
    subscribe(`gateway-lock:${event}`, listen);
    onTestFinished(() => {
      unsubscribe(`gateway-lock:${event}`, listen);
    });
  }
  return told;
}

describe("nobody else", () => {
  it("is acquired at once, supervised or not", async () => {
    for (const supervisor of ["systemd", "none"]) {
      supervisedBy(supervisor);
      const result = await supervise(await place());
      expect(result).toMatchObject({ outcome: "acquired", gateway: { owner: { phase: "listening" } } });
    }
  });
});

describe("a gateway that is well", () => {
  it.each([
    ["systemd", 78],
    ["launchd", 0],
    ["schtasks", 0],
    ["pm2", 0],
    ["kubernetes", 0],
    ["docker", 0],
  ])("is left in control under %s, with exit code %i", async (supervisor, exitCode) => {
    supervisedBy(supervisor);
    const options = await place();
    const owner = await healthyOwner(options);
    expect(await supervise(options)).toEqual({ outcome: "left-in-control", exitCode, owner: owner.owner });
  });

  it("stays as it is, and nothing keeps the duplicate's process alive", async () => {
    const options = await place();
    const owner = await ownerProcess(options);
    const duplicate = startFixture("supervised.mjs", { options }, { env: { ...process.env } });
    expect(await duplicate.next("left-in-control")).toMatchObject({ exitCode: 78, owner: { pid: owner.pid } });
    expect(await duplicate.exited).toEqual({ code: 78, signal: null });
    expect(duplicate.stderr).toBe("");
    tell(owner, "descriptors");
    await owner.next("descriptors");
  });

  it("is refused at once where nobody supervises: it is not even asked", async () => {
    supervisedBy("none");
    let asked = 0;
    const options = await place();
    await ownerThat(() => asked++, options);
    const started = performance.now();
    const error = await failure({ ...options, onDuplicate: "standby" });
    expect(error).toMatchObject({ code: "ALREADY_LISTENING", exitCode: 75 });
    expect(performance.now() - started).toBeLessThan(SLACK);
    expect(asked).toBe(0);
  });

  it("may be so by a check of the user's own, which is told whom to ask", async () => {
    const options = await place();
    const owner = await ownerThat(() => {}, options);
    const asked: unknown[] = [];
    const check = ({ url, owner: { ownerId } }: { url: string; owner: { ownerId: string | null } }) => {
      asked.push([url, ownerId]);
      return true;
    };
    const result = await supervise({ ...options, health: { check, path: "/up" } });
    expect(result).toMatchObject({ outcome: "left-in-control", exitCode: 78 });
    expect(asked).toEqual([[`http://127.0.0.1:${options.port}/up`, owner.owner.ownerId]]);
  });

  it("may become so: it is asked again at each interval", async () => {
    const options = await place();
    let asked = 0;
    const owner: Gateway = await ownerThat((request, response) => {
      if (++asked < 3) response.writeHead(503).end();
      else owner.healthz(request, response);
    }, options);
    const result = await supervise({ ...options, retry: { interval: 100, limit: LONG } });
    expect(result.outcome).toBe("left-in-control");
    expect(asked).toBe(3);
  });
});

describe("a gateway that is not well", () => {
  itWhere(isLinux, "no SIGSTOP to rely on")("gets bounded retries, then one clear failure", async () => {
    const options = await place();
    const owner = await ownerProcess(options);
    process.kill(owner.pid, "SIGSTOP");
    const started = performance.now();
    const error = await failure({ ...options, retry: { interval: 300, limit: 1000 } });
    const ms = performance.now() - started;
    expect(error.message).toBe(
      "gateway already running under systemd; existing gateway did not become healthy after 1000ms",
    );
    const url = `ws://127.0.0.1:${options.port}`;
    expect(error).toMatchObject({
      code: "NOT_HEALTHY",
      retryable: false,
      exitCode: 1,
      url,
      owner: { pid: owner.pid },
      listener: { pid: owner.pid },
      health: { ok: false, error: "connected, but no answer within 200ms" },
      cause: { code: "ALREADY_LISTENING", url },
    });
    expect(ms).toBeGreaterThanOrEqual(1000);
    expect(ms).toBeLessThan(1000 + SLACK);
    process.kill(owner.pid, "SIGCONT");
    expect((await supervise(options)).outcome).toBe("left-in-control");
  });

  it("is asked as often as the limit allows, and once at its end", async () => {
    const options = await place();
    let asked = 0;
    await ownerThat((_, response) => {
      asked++;
      response.writeHead(503).end();
    }, options);
    const error = await failure({ ...options, retry: { interval: 400, limit: 1000 } });
    expect(error).toMatchObject({ code: "NOT_HEALTHY", health: { status: 503 } });
    expect(asked).toBeLessThanOrEqual(4); // at 0, 400, 800 and 1000 ms
    expect(asked).toBeGreaterThanOrEqual(2); // on a busy machine an interval may be longer
  });

  it.each([
    ["an interval that is longer than the limit", { interval: LONG, limit: 300 }, 2, 300],
    ["no retries", { limit: 0 }, 1, 0],
  ])("ends in time with %s", async (_, retry, times, limit) => {
    const options = await place();
    let asked = 0;
    await ownerThat((_, response) => {
      asked++;
      response.end('{"ok":false}');
    }, options);
    const started = performance.now();
    const error = await failure({ ...options, retry });
    expect(error.message).toMatch(new RegExp(`did not become healthy after ${limit}ms$`));
    expect(asked).toBe(times);
    expect(performance.now() - started).toBeLessThan(limit + SLACK);
  });

  it("is waited for without an end where there is no limit", async () => {
    const options = await place();
    let asked = 0;
    await ownerThat((_, response) => {
      asked++;
      response.writeHead(500).end();
    }, options);
    const controller = new AbortController();
    const waiting = failure({ ...options, retry: { interval: 10, limit: Infinity }, signal: controller.signal }).catch(
      () => "aborted",
    );
    await until(() => asked === 10);
    controller.abort();
    expect(await waiting).toBe("aborted");
  });

  it("is succeeded at once when it ends, not at the next interval", async () => {
    const options = await place();
    const owner = await ownerProcess(options);
    const told = story();
    const check = () => false;
    const result = supervise({ ...options, health: { check }, retry: { interval: LONG, limit: LONG } });
    await until(() => told.some(({ event }) => event === "wait"));
    const killed = performance.now();
    await owner.kill();
    expect(await result).toMatchObject({ outcome: "acquired", gateway: { port: options.port } });
    expect(performance.now() - killed).toBeLessThan(SLACK);
  });

  it("is succeeded when it dies of being asked", async () => {
    const options = await place();
    const owner = await ownerProcess(options);
    const check = async () => {
      await owner.kill();
      return false;
    };
    const started = performance.now();
    const result = await supervise({ ...options, health: { check, timeout: 10_000 }, retry: { interval: LONG } });
    expect(result.outcome).toBe("acquired");
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  it("is another one after it has restarted: then that one is asked", async () => {
    const options = await place();
    const first = await healthyOwner(options);
    const asked: (string | null)[] = [];
    let second: Gateway | undefined;
    const check = async ({ owner }: HealthTarget) => {
      asked.push(owner.ownerId);
      if (second !== undefined) return true;
      await first.close({ force: true });
      second = await healthyOwner(options);
      return false;
    };
    const result = await supervise({ ...options, health: { check, timeout: LONG }, retry: { interval: 100 } });
    expect(result).toEqual({ outcome: "left-in-control", exitCode: 78, owner: second?.owner });
    expect(asked).toEqual([first.owner.ownerId, second?.owner.ownerId]);
  });

  itWhere(hasFlockCommand, "no flock(1)")("may be a program that only has the lock", async () => {
    const options = await place();
    const holder = await holdWithFlock(options.stateDir);
    const error = await failure({ ...options, retry: { interval: 100, limit: 200 } });
    expect(error).toMatchObject({ code: "NOT_HEALTHY", cause: { code: "ALREADY_RUNNING" } });
    expect(error.owner).toBeUndefined();
    const result = supervise({ ...options, retry: { interval: LONG } });
    await holder.kill();
    expect((await result).outcome).toBe("acquired");
  });

  itWhere(hasFlockCommand, "no flock(1)")("is not asked by the record of one that is gone", async () => {
    const options = await place();
    const lockPath = writeRecord(options, { pid: await deadPid() });
    await holdWithFlock(lockPath);
    let asked = 0;
    const check = () => ++asked > 0;
    const error = await failure({ ...options, health: { check }, retry: { interval: 100, limit: 150 } });
    expect(error).toMatchObject({ code: "NOT_HEALTHY", health: { error: expect.stringMatching(/no owner/) } });
    expect(asked).toBe(0);
  });
});

function writeRecord({ stateDir, port }: { stateDir: string; port: number }, fields: { pid: number }): string {
  const lockPath = join(stateDir, "locks/gateway.state.lock");
  mkdirSync(join(stateDir, "locks"), { mode: 0o700 });
  writeFileSync(lockPath, recordOf({ port, stateDir, ...fields }), { mode: 0o600 });
  return lockPath;
}

describe("a stranger on the port", () => {
  it("is never believed, whatever it answers and whatever a check says", async () => {
    const options = await place();
    let asked = 0;
    await stranger(options.port, (_, response) => {
      asked++;
      response.end('{"ok":true}');
    });
    const check = () => ++asked > 0;
    for (const health of [HEALTH, { check }]) {
      const error = await failure({ ...options, health, retry: { interval: 100, limit: 250 } });
      expect(error).toMatchObject({
        code: "NOT_HEALTHY",
        url: `ws://127.0.0.1:${options.port}`,
        cause: { code: "ALREADY_LISTENING", cause: { code: "EADDRINUSE" } },
        ...(isLinux && { listener: { pid: process.pid } }),
      });
      expect(error.owner).toBeUndefined();
    }
    expect(asked).toBe(0);
    expectNothingLeft(options.stateDir);
  });

  it("that leaves is succeeded at the next interval", async () => {
    const options = await place();
    const stop = await stranger(options.port, () => {});
    const refused = story();
    const result = supervise({ ...options, retry: { interval: 200, limit: LONG } });
    await stop();
    expect((await result).outcome).toBe("acquired");
    expect(refused.map(({ event }) => event)).toEqual(["acquire"]);
  });

  it("that leaves within the last interval is succeeded too", async () => {
    const options = await place();
    const stop = await stranger(options.port, () => {});
    const result = supervise({ ...options, retry: { interval: 500, limit: 500 } });
    await stop();
    expect((await result).outcome).toBe("acquired");
  });
});

const OWNER = "7a3b0f0e-0000-4000-8000-000000000000";
const alive = () => ({ pid: process.pid, startTime: isLinux ? startTimeOf(process.pid) : null });

describe("a gateway that uses no kernel lock", () => {
  it("is believed as the owner of its record, and left in control", async () => {
    const options = await place();
    writeRecord(options, alive());
    await stranger(options.port, wellFor(OWNER));
    expect(await supervise(options)).toMatchObject({
      outcome: "left-in-control",
      exitCode: 78,
      owner: { pid: process.pid, ownerId: OWNER },
    });
  });

  it("is not believed with another ownerId", async () => {
    const options = await place();
    writeRecord(options, alive());
    await stranger(options.port, wellFor("another"));
    const error = await failure({ ...options, retry: { interval: 100, limit: 150 } });
    expect(error).toMatchObject({ code: "NOT_HEALTHY", health: { error: expect.stringMatching(/another ownerId/) } });
  });

  it("has a standby that looks at each interval, and no oftener", async () => {
    const options = await place();
    writeRecord(options, alive());
    let asked = 0;
    const stop = await stranger(options.port, (request, response) => {
      asked++;
      wellFor(OWNER)(request, response);
    });
    const started = performance.now();
    const result = supervise({ ...options, onDuplicate: "standby", retry: { interval: 150, limit: 150 } });
    await until(() => asked === 4);
    expect(performance.now() - started).toBeGreaterThanOrEqual(3 * 150 - 5);
    await stop();
    expect((await result).outcome).toBe("acquired");
  });
});

describe("a standby of a gateway that uses no kernel lock", () => {
  it("puts up with it for the whole limit from when it is not well any more", async () => {
    const options = await place();
    writeRecord(options, alive());
    let asked = 0;
    let unwellSince = 0;
    await stranger(options.port, (request, response) => {
      if (++asked <= 5) wellFor(OWNER)(request, response);
      else {
        unwellSince ||= performance.now();
        response.writeHead(503).end();
      }
    });
    const error = await failure({ ...options, onDuplicate: "standby", retry: { interval: 100, limit: 300 } });
    expect(error.code).toBe("NOT_HEALTHY");
    expect(performance.now() - unwellSince).toBeGreaterThanOrEqual(150);
    expect(asked).toBeGreaterThan(6);
  });
});

describe("a standby", () => {
  it("waits beside a gateway that is well, whatever the limit, and takes over at once", async () => {
    const options = await place();
    const owner = await ownerProcess(options);
    const told = story();
    const result = supervise({ ...options, onDuplicate: "standby", retry: { interval: 50, limit: 0 } });
    await until(() => told.some(({ event }) => event === "wait"));
    const outcome = await Promise.race([result, new Promise((resolve) => setTimeout(resolve, 300, "still waiting"))]);
    expect(outcome).toBe("still waiting");
    const killed = performance.now();
    await owner.kill();
    expect((await result).outcome).toBe("acquired");
    expect(performance.now() - killed).toBeLessThan(SLACK);
    expect(told.map(({ event }) => event)).toEqual(["wait", "takeover", "acquire"]);
  });

  it("is none of a gateway that is not well: that one gets the limit", async () => {
    const options = await place();
    await ownerThat((_, response) => response.writeHead(503).end(), options);
    const error = await failure({ ...options, onDuplicate: "standby", retry: { interval: 100, limit: 200 } });
    expect(error.code).toBe("NOT_HEALTHY");
  });
});

describe("the timeout of acquireGateway", () => {
  it("is waited for first, before anybody is asked", async () => {
    const options = await place();
    const owner = await ownerProcess(options);
    const told = story();
    let asked = 0;
    const check = () => ++asked > 0;
    const result = supervise({ ...options, health: { check }, timeout: LONG });
    await until(() => told.some(({ event }) => event === "wait"));
    await owner.kill();
    expect((await result).outcome).toBe("acquired");
    expect(asked).toBe(0);
  });
});

describe("a signal", () => {
  it.each([
    ["while a gateway that is well is waited for as its standby", "standby", true, "wait"],
    ["while one that is not well is waited for", "leave", false, "wait"],
    ["while it is asked", "leave", new Promise<boolean>(() => {}), "asked"],
  ] as const)("ends it %s", async (_, onDuplicate, well, moment) => {
    const options = await place();
    const owner = await healthyOwner(options);
    const told = story();
    const controller = new AbortController();
    const reason = new Error("told to leave");
    const moments: string[] = [];
    const check = () => {
      moments.push("asked");
      return well;
    };
    const { signal } = controller;
    const health = { check, timeout: LONG };
    const retry = { interval: LONG, limit: moment === "asked" ? 0 : LONG };
    const result = superviseGateway({ ...options, onDuplicate, health, retry, signal });
    await until(() => [...moments, ...told.map(({ event }) => event)].includes(moment));
    controller.abort(reason);
    await expect(result).rejects.toBe(reason);
    expect(told.filter(({ event }) => event === "refused")).toHaveLength(1);
    await owner.close({ force: true });
    expectNothingLeft(options.stateDir);
  });

  it("ends it while a stranger's port is waited for", async () => {
    const options = await place();
    await stranger(options.port, () => {});
    const controller = new AbortController();
    const result = superviseGateway({ ...options, retry: { interval: LONG }, signal: controller.signal });
    setTimeout(() => controller.abort("enough"), 100);
    await expect(result).rejects.toBe("enough");
  });
});

describe("its story", () => {
  it("is one of many attempts: one wait, one end, one ownerId", async () => {
    const options = await place();
    await ownerThat((_, response) => response.writeHead(503).end(), options);
    const told = story();
    await failure({ ...options, retry: { interval: 300, limit: 1000 } });
    expect(told.map(({ event, code }) => [event, code])).toEqual([
      ["wait", undefined],
      ["refused", "NOT_HEALTHY"],
    ]);
    expect(new Set(told.map(({ ownerId }) => ownerId)).size).toBe(1);
  });

  it("ends with a refusal where another one is left in control", async () => {
    const options = await place();
    await healthyOwner(options);
    const told = story();
    await supervise(options);
    expect(told.map(({ event, code }) => [event, code])).toEqual([["refused", "ALREADY_LISTENING"]]);
  });
});

describe("other failures", () => {
  it("are no reason to wait", async () => {
    const error = await failure({ ...(await place()), host: "192.0.2.1" });
    expect(error.code).toBe("BIND_FAILED");
  });

  it.each([
    [{ retyr: {} }, "ERR_INVALID_ARG_VALUE", "did you mean 'retry'"],
    [{ retry: { limt: 1 } }, "ERR_INVALID_ARG_VALUE", "\"retry.limt\" option is unknown; did you mean 'retry.limit'"],
    [{ retry: { interval: 0 } }, "ERR_OUT_OF_RANGE", "retry.interval"],
    [{ retry: { interval: Infinity } }, "ERR_OUT_OF_RANGE", "retry.interval"],
    [{ retry: { limit: -1 } }, "ERR_OUT_OF_RANGE", "retry.limit"],
    [{ retry: 5 }, "ERR_INVALID_ARG_TYPE", "retry"],
    [{ health: { paht: "/" } }, "ERR_INVALID_ARG_VALUE", "did you mean 'health.path'"],
    [{ onDuplicate: "wait" }, "ERR_INVALID_ARG_VALUE", "'leave' or 'standby'"],
    [{ prot: 1 }, "ERR_INVALID_ARG_VALUE", "did you mean 'port'"],
    [{ port: -1 }, "ERR_SOCKET_BAD_PORT", "port"],
  ])("are bad options, by name, before anything is touched: %o", async (options, code, message) => {
    const stateDir = join(temporaryDirectory(), "never-made");
    const result = superviseGateway({ stateDir, ...options } as SuperviseOptions);
    await expect(result).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
    expect(spawnSync("ls", [stateDir]).status).not.toBe(0);
  });
});
