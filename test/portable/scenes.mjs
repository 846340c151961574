// A scenario's stage: directories, ports, actors and gateways that are gone when it ends, whatever came of it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { get } from "node:http";
import { connect, createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { acquireGateway, GatewayLockError } from "gateway-lock";
import { RUNTIME } from "./runtime.mjs";

/** Only reached when something is wrong: emulated and foreign systems are slow. ms */
const DEADLINE = 60_000;
const SCENARIO_DEADLINE = 3 * DEADLINE;

export const isWindows = process.platform === "win32";
const { deno, bun } = process.versions;
const isEmulated = process.platform === "linux" && RUNTIME[0].includes("qemu");
/** The only place where everything that the kernel tells can be expected. */
export const isPlainLinux = process.platform === "linux" && !isEmulated && deno === undefined && bun === undefined;
/** Reasons for a skip, or false. */
export const NO_HAND_OFF = bun === undefined ? false : "Bun takes no bound socket";
export const NO_CLEAN_UP = bun === undefined ? false : "Bun ends without the clean-up of addons";
export const hasIPv6 = Object.values(networkInterfaces()).some((list) =>
  list?.some(({ address }) => address === "::1"),
);
export const canLink = inTemporary((directory) => {
  const link = join(directory, "link");
  symlinkSync(directory, link);
  return lstatSync(link).isSymbolicLink();
});
/** Wine's GetFinalPathNameByHandle does not take them. */
export const canResolveLongPaths = inTemporary((directory) => {
  const long = longPathIn(directory);
  mkdirSync(long, { recursive: true });
  return realpathSync.native(long).length > 260;
});

function inTemporary(succeeds) {
  const directory = mkdtempSync(join(tmpdir(), "gateway-lock-can-"));
  try {
    return succeeds(directory);
  } catch {
    return false;
  } finally {
    remove(directory);
  }
}

function remove(path) {
  rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
}

/** Longer than MAX_PATH of Windows. */
export function longPathIn(directory) {
  return join(directory, ...Array.from({ length: 5 }, (_, index) => `${index}${"long".repeat(15)}`));
}

/** A test in words. `skip` is the reason why it can't be played here, or false. */
export function scenario(name, { skip = false } = {}, play) {
  const title = skip ? `${name} [skipped: ${skip}]` : name;
  test(title, { timeout: SCENARIO_DEADLINE, skip }, async () => {
    const scene = new Scene();
    try {
      await play(scene);
    } finally {
      await scene.end();
    }
  });
}

class Scene {
  #cleanups = [];

  /** Called when the scenario ends, the last one first. */
  defer(cleanup) {
    this.#cleanups.push(cleanup);
  }

  async end() {
    for (const cleanup of this.#cleanups.splice(0).reverse()) await cleanup();
  }

  directory(name = "gateway-lock-") {
    const directory = realpathSync(mkdtempSync(join(tmpdir(), name)));
    this.defer(() => remove(directory));
    return directory;
  }

  file(name = "the.lock") {
    return join(this.directory(), name);
  }

  /** A gateway in this process. */
  async acquire(options) {
    const gateway = await acquireGateway(options);
    this.defer(() => gateway.close({ force: true }));
    return gateway;
  }

  /** A process of its own, with actor.mjs in it. */
  async actor() {
    const actor = new Actor();
    this.defer(() => actor.kill());
    await actor.started;
    return actor;
  }

  async actors(count) {
    const actors = Array.from({ length: count }, () => new Actor());
    for (const actor of actors) this.defer(() => actor.kill());
    await Promise.all(actors.map(({ started }) => started));
    return actors;
  }

  /** A server that is no gateway's. */
  async listen(server, options) {
    server.on("connection", (socket) => {
      this.defer(() => socket.destroy());
      socket.on("error", () => {});
    });
    this.defer(() => server.close());
    server.listen(options);
    await once(server, "listening");
    return server.address().port;
  }

  /** A connection that stays. */
  async client(port, host = "127.0.0.1", limit = DEADLINE) {
    const socket = connect({ port, host });
    this.defer(() => socket.destroy());
    await within(once(socket, "connect"), `a connection to port ${port}`, undefined, limit);
    socket.on("error", () => {});
    return socket;
  }
}

/** A child process that does what it is told, one command after the other or many at once; see actor.mjs. */
class Actor {
  /** What has come of it: { code, signal }. */
  ended;
  started;
  #child;
  #stderr = "";
  #isGone = false;
  #asked = 0;
  #answers = new Map();
  #events = [];
  #listeners = new Set();

  constructor() {
    const [command, ...args] = [...RUNTIME, fixture("actor.mjs")];
    this.#child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] });
    this.#child.on("error", (error) => {
      this.#stderr += `${error}\n`;
    });
    this.#child.stdin.on("error", () => {});
    this.#child.stderr.setEncoding("utf8").on("data", (text) => {
      this.#stderr += text;
    });
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#hear(line));
    this.ended = new Promise((resolve) => {
      this.#child.once("close", (code, signal) => {
        this.#isGone = true;
        for (const { reject } of this.#answers.values()) reject(new Error(`the actor has ended: ${this.#stderr}`));
        resolve({ code, signal });
      });
    });
    this.started = this.event("started");
  }

  get pid() {
    return this.#child.pid;
  }

  /** The answer to a command; rejects with the error that came of it. */
  ask(command, fields = {}) {
    const id = ++this.#asked;
    const answer = new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
    this.#child.stdin.write(`${JSON.stringify({ id, command, ...fields })}\n`);
    return within(answer, `an answer to '${command}' from pid ${this.pid}`, () => this.#stderr);
  }

  /** As `ask`, for a refusal: resolves with its error. */
  async refusal(command, fields) {
    const answer = await this.ask(command, fields).catch((error) => error);
    assert.ok(answer instanceof Error, `${command} was not refused`);
    return answer;
  }

  /** Resolves when the actor has said that, or has said it already. */
  event(name) {
    const heard = new Promise((resolve, reject) => {
      const look = () => {
        if (this.#events.includes(name)) resolve();
        else if (this.#isGone) reject(new Error(`the actor has ended: ${this.#stderr}`));
        else return;
        this.#listeners.delete(look);
      };
      this.#listeners.add(look);
      this.#child.once("close", look);
      look();
    });
    return within(heard, `'${name}' from pid ${this.pid}`, () => this.#stderr);
  }

  /** SIGKILL; on Windows TerminateProcess. Resolves when it is gone. */
  async kill() {
    if (!this.#isGone) this.#child.kill("SIGKILL");
    return await within(this.ended, `the end of pid ${this.pid}`);
  }

  #hear(line) {
    const { id, event, value, error } = JSON.parse(line);
    if (event !== undefined) {
      this.#events.push(event);
      for (const look of this.#listeners) look();
      return;
    }
    const { resolve, reject } = this.#answers.get(id);
    this.#answers.delete(id);
    if (error === undefined) resolve(value);
    else reject(Object.assign(new Error(error.message), error));
  }
}

export function fixture(name) {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** Rejects when it takes unreasonably long. */
export async function within(promise, what, details = () => "", limit = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${limit} ms: ${what} ${details()}`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when `test` says so: for what tells nobody that it has happened. */
export async function until(test) {
  const deadline = performance.now() + DEADLINE;
  while (!(await test())) {
    if (performance.now() > deadline) throw new Error(`not within ${DEADLINE} ms: ${test}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/**
 * Somebody else owns the gateway, and listens. qemu-user invents the start time of its own process, and shows that of others as it
 * is: an owner in another process then looks at times as if it were gone, and its lock is held by somebody unknown.
 */
export function assertDuplicate(error) {
  assert.match(`${error.code}`, isEmulated ? /^ALREADY_(LISTENING|RUNNING)$/ : /^ALREADY_LISTENING$/, error.message);
  assert.equal(error.exitCode, 75);
}

/** The GatewayLockError of what must not succeed. */
export async function refusalOf(attempt) {
  try {
    await attempt();
  } catch (error) {
    assert.ok(error instanceof GatewayLockError, `${error?.stack}`);
    return error;
  }
  assert.fail("it was not refused");
}

const [FIRST_PORT, LAST_PORT] = (process.env.GATEWAY_LOCK_TEST_PORTS ?? "21000-28999").split("-").map(Number);

/** A port that is free now on both loopbacks, outside the range of ports that systems give out by themselves. */
export async function freePort() {
  for (;;) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));
    if ((await bindingError(port, "127.0.0.1")) !== null) continue;
    if (!hasIPv6 || (await bindingError(port, "::1")) === null) return port;
  }
}

/** What a plain server is told that wants the port: null if it gets it. */
export async function bindingError(port, host = "127.0.0.1") {
  const server = createServer();
  try {
    server.listen({ port, host, exclusive: true });
    await once(server, "listening");
    await new Promise((resolve) => server.close(resolve));
    return null;
  } catch (error) {
    return error.code;
  }
}

/** One request on a connection of its own, or on the agent's. */
export async function ask(port, { host = "127.0.0.1", agent = false, path = "/" } = {}) {
  const answer = new Promise((resolve, reject) => {
    const request = get({ port, host, agent, path }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (text) => {
        body += text;
      });
      response.on("end", () => resolve(body));
      response.on("error", reject);
    });
    request.on("error", reject);
  });
  return await within(answer, `an answer from port ${port}`);
}

export async function closed(server) {
  await within(new Promise((resolve) => server.close(resolve)), "the end of a server");
}

export function lockFilesOf(stateDir) {
  const directory = join(stateDir, "locks");
  return existsSync(directory) ? readdirSync(directory) : [];
}

export function writeFile(path, text) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
