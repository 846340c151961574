// A gateway is believed to be well only by a complete answer of its own, in time; everything else has its reason in words.

import { once } from "node:events";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { createServer, type Server, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { describe, expect, it, onTestFinished } from "vitest";
import { examine, type HealthTarget, healthUrl, type Probe, probe } from "../../lib/listener/health.ts";
import { checkHealth } from "../../lib/options.ts";
import { hasIPv6, hasPython, itWhere } from "../support/capabilities.ts";
import { ownerFields } from "../support/gateways.ts";
import { claim, hasOpenssl, openSockets, selfSigned, until } from "../support/listener-tools.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort } from "../support/temporary.ts";

const OWNER = "7a3b0f0e-0000-4000-8000-000000000000";
const TIMEOUT = 300; // ms
/** What a busy machine may add to a deadline. ms */
const SLACK = 250;

/** A server that answers each connection as told, on a port of its own; its URL. */
async function serve(server: Server, host = "127.0.0.1", scheme = "ws"): Promise<string> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket.on("error", () => {})));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const port = await freePort();
  server.listen(port, host);
  await once(server, "listening");
  return `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

const answering = (listener: RequestListener, host?: string) => serve(createHttpServer(listener), host);
const answeringJson = (value: unknown, status = 200) =>
  answering((_, response) => response.writeHead(status).end(JSON.stringify(value)));
/** Says these very bytes, and nothing more. */
const saying = (text: string, end = false) =>
  serve(
    createServer((socket) => {
      socket.once("data", () => (end ? socket.end(text) : socket.write(text)));
    }),
  );
/** Repeats a text as fast as `interval` allows, for ever. */
const repeating = (head: string, text: string, interval: number) =>
  serve(
    createServer((socket) => {
      socket.write(head);
      const timer = setInterval(() => socket.write(text), interval);
      socket.once("close", () => clearInterval(timer));
    }),
  );

/** Those that are not loopbacks. */
const ownAddresses = () =>
  Object.values(networkInterfaces()).flatMap((list = []) =>
    list.filter(({ family, internal }) => family === "IPv4" && !internal).map(({ address }) => address),
  );

const ask = (url: string, ownerId: string | null = OWNER, timeout = TIMEOUT): Promise<Probe> =>
  probe(url, ownerId, { timeout });

const BAD = { ok: false } as const;

describe("a gateway that is well", () => {
  it("is believed by its own ownerId", async () => {
    const url = await answeringJson({ ok: true, ownerId: OWNER });
    const { ms, ...report } = await ask(url);
    expect(report).toEqual({ ok: true, status: 200, error: null, contradicts: false });
    expect(ms).toBeGreaterThanOrEqual(0);
  });

  it("answers by gateway.healthz, on loopback and on any other address of this host", async () => {
    for (const host of ["127.0.0.1", "0.0.0.0", ...ownAddresses()]) {
      const gateway = await claim({ host, port: await freePort() });
      await gateway.listen(createHttpServer(gateway.healthz));
      expect(await probe(gateway.url, gateway.owner.ownerId), host).toMatchObject({ ok: true, error: null });
    }
  });

  it.each(["ws", "http"])("is asked by http for a %s URL, at the path that is given", async (scheme) => {
    const paths: (string | undefined)[] = [];
    const url = await answering((request, response) => {
      paths.push(request.url);
      response.end(JSON.stringify({ ok: true, ownerId: OWNER }));
    });
    const { port } = new URL(url);
    await probe(`${scheme}://127.0.0.1:${port}`, OWNER, { path: "/up?deep=1" });
    await probe(`${scheme}://127.0.0.1:${port}/`, OWNER);
    expect(paths).toEqual(["/up?deep=1", "/healthz"]);
  });

  itWhere(hasOpenssl, "no openssl").each(["wss", "https"])(
    "is asked over TLS for a %s URL, whoever signed the certificate",
    async (scheme) => {
      const server = createHttpsServer(selfSigned(), (_, response) => {
        response.end(JSON.stringify({ ok: true, ownerId: OWNER }));
      });
      const url = await serve(server, "127.0.0.1", scheme);
      expect(await probe(url, OWNER)).toMatchObject({ ok: true, status: 200 });
    },
  );

  itWhere(hasIPv6, "no IPv6")("is asked over IPv6, and at the loopback for a wildcard", async () => {
    const url = await answering((_, response) => response.end(`{"ok":true,"ownerId":"${OWNER}"}`), "::");
    const port = url.split(":").at(-1);
    for (const host of ["[::1]", "[::]", "[0:0::0]", "0.0.0.0", "localhost"])
      expect(await probe(`ws://${host}:${port}`, OWNER), host).toMatchObject({ ok: true });
  });

  it("may be anybody where the identity is not checked", async () => {
    expect(await ask(await answeringJson({ ok: true }), null)).toMatchObject({ ok: true });
    expect(await ask(await answeringJson({ ok: true, ownerId: "another" }), null)).toMatchObject({ ok: true });
  });

  it("may answer in pieces, and without a length", async () => {
    const url = await answering(async (_, response) => {
      for (const piece of ['{"ok":', "true,", `"ownerId":"${OWNER}"}`]) {
        await new Promise((resolve) => response.write(piece, resolve));
      }
      response.end();
    });
    expect(await ask(url, OWNER, 5000)).toMatchObject({ ok: true });
    const old = await saying(`HTTP/1.0 200 OK\r\n\r\n{"ok":true,"ownerId":"${OWNER}"}`, true);
    expect(await ask(old, OWNER, 5000)).toMatchObject({ ok: true });
  });

  it("may answer with 64 KiB, and no more", async () => {
    const body = (bytes: number) => JSON.stringify({ ok: true, ownerId: OWNER }).padEnd(bytes);
    const fits = await answering((_, response) => response.end(body(65536)));
    expect(await ask(fits, OWNER, 5000)).toMatchObject({ ok: true });
    const tooLong = await answering((_, response) => response.end(body(65537)));
    expect(await ask(tooLong, OWNER, 5000)).toMatchObject({ ...BAD, error: "the answer is longer than 64 KiB" });
  });
});

describe("an answer that proves nothing", () => {
  it.each([
    ["another ownerId", { ok: true, ownerId: "another" }, true, /another ownerId/],
    ["no ownerId", { ok: true }, false, /has no ownerId/],
    ["ok: false", { ok: false, ownerId: OWNER }, true, /says that it is not ok/],
    ["ok: 1", { ok: 1, ownerId: OWNER }, false, /does not say ok: true/],
    ["no ok", { status: "live", ownerId: OWNER }, false, /does not say ok: true/],
    ["an array", [{ ok: true, ownerId: OWNER }], false, /not a JSON object/],
    ["null", null, false, /not a JSON object/],
    ["a string", "ok", false, /not a JSON object/],
  ])("is JSON with %s", async (_, value, contradicts, error) => {
    const report = await ask(await answeringJson(value));
    expect(report).toMatchObject({ ...BAD, status: 200, contradicts, error: expect.stringMatching(error) });
  });

  it.each([
    ["301", 301, false, /status 301, a redirect/],
    ["307", 307, false, /status 307, a redirect/],
    ["404", 404, false, /status 404/],
    ["426", 426, false, /status 426/],
    ["500", 500, true, /status 500/],
    ["503", 503, true, /status 503/],
  ])("is status %s, whatever stands in it", async (_, status, contradicts, error) => {
    let asked = 0;
    const url = await answering((request, response) => {
      asked++;
      const location = `http://${request.headers.host}/elsewhere`;
      response.writeHead(status, { location }).end(JSON.stringify({ ok: true, ownerId: OWNER }));
    });
    const report = await ask(url);
    expect(report).toMatchObject({ ...BAD, status, contradicts, error: expect.stringMatching(error) });
    expect(asked).toBe(1);
  });

  it("is the 200 of another program", async () => {
    const url = await answering((_, response) => response.end("<!doctype html><title>Welcome</title>"));
    expect(await ask(url)).toMatchObject({ ...BAD, contradicts: false, error: "the answer is not JSON" });
  });

  it.each([
    ["is not HTTP", "220 smtp.example.com ESMTP\r\n", /not HTTP \(HPE_/],
    ["has headers without end", `HTTP/1.1 200 OK\r\n${"a: b\r\n".repeat(20_000)}`, /not HTTP \(HPE_HEADER_OVERFLOW\)/],
    ["changes the protocol", "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n", /closed/],
  ])("%s", async (_, text, error) => {
    expect(await ask(await saying(text))).toMatchObject({
      ...BAD,
      contradicts: true,
      error: expect.stringMatching(error),
    });
  });

  it.each([
    ["before it begins", "", "the connection was closed: connected, but no answer"],
    ["in the headers", "HTTP/1.1 200 OK\r\n", "the connection was closed: connected, but no answer"],
    [
      "in the body",
      'HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{"ok":true',
      "the connection was closed: no complete answer",
    ],
    [
      "in a chunk",
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n{"ok":true',
      "the connection was closed: no complete answer",
    ],
  ])("is cut off %s", async (_, text, error) => {
    expect(await ask(await saying(text, true))).toMatchObject({ ...BAD, contradicts: true, error });
  });

  itWhere(hasOpenssl, "no openssl")("is TLS where none is expected, and the other way round", async () => {
    const tls = await serve(createHttpsServer(selfSigned()), "127.0.0.1", "ws");
    expect(await ask(tls)).toMatchObject({ ...BAD, error: expect.stringMatching(/not HTTP|closed/) });
    const plain = await serve(createHttpServer(), "127.0.0.1", "wss");
    expect(await ask(plain)).toMatchObject({ ...BAD, error: expect.stringMatching(/TLS/) });
  });

  it("is none, where nobody listens", async () => {
    const report = await ask(`ws://127.0.0.1:${await freePort()}`);
    expect(report).toMatchObject({ ...BAD, status: null, contradicts: true, error: expect.stringMatching(/refused/) });
  });

  it.each([
    "",
    "ws://",
    "ftp://127.0.0.1:1",
    "ws://127.0.0.1:99999",
    "ws://[nonsense]:1",
    "ws://a\x1b[31m:1",
    "ws://h/p",
  ])("is none, where there is no URL to ask: %j", async (url) => {
    const report = await ask(url);
    expect(report).toMatchObject({ ...BAD, contradicts: true, error: expect.stringMatching(/is no gateway's URL$/) });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
    expect(report.error).not.toMatch(/[\x00-\x1f]/);
  });
});

describe("one absolute deadline", () => {
  /** Asks, and sees the deadline kept, and nothing left open. */
  async function late(url: string, error: string): Promise<void> {
    await probe(`ws://127.0.0.1:${await freePort()}`, OWNER); // what is loaded at the first one
    const before = openSockets();
    const started = performance.now();
    const report = await ask(url);
    const ms = performance.now() - started;
    expect(report).toMatchObject({ ...BAD, contradicts: true, error: `${error} within ${TIMEOUT}ms` });
    expect(ms).toBeGreaterThanOrEqual(TIMEOUT - 1);
    expect(ms).toBeLessThan(TIMEOUT + SLACK);
    await until(() => [...openSockets().keys()].every((socket) => before.has(socket)));
  }

  it("ends a half-open connection: accepted, and never answered", async () => {
    await late(await saying(""), "connected, but no answer");
  });

  it("ends a slow drip of headers", async () => {
    await late(await repeating("HTTP/1.1 200 OK\r\n", "a: b\r\n", 20), "connected, but no answer");
  });

  it("ends interim answers without end", async () => {
    await late(await repeating("", "HTTP/1.1 102 Processing\r\n\r\n", 1), "connected, but no answer");
  });

  it("ends a slow drip of the body", async () => {
    await late(await repeating('HTTP/1.1 200 OK\r\n\r\n{"ok":true', " ", 20), "no complete answer");
  });

  it("ends a body that is whole but for its end", async () => {
    const body = `{"ok":true,"ownerId":"${OWNER}"}`;
    await late(
      await saying(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length + 1}\r\n\r\n${body}`),
      "no complete answer",
    );
  });

  it("is not waited for by an endless body that comes quickly", async () => {
    const url = await repeating("HTTP/1.1 200 OK\r\n\r\n", " ".repeat(16_384), 1);
    expect(await ask(url, OWNER, 10_000)).toMatchObject({ ...BAD, error: "the answer is longer than 64 KiB" });
  });

  itWhere(hasPython, "no python3")("ends a connection that nobody accepts: the listen queue is full", async () => {
    const full = new TestProcess("python3", [fixturePath("health-full-backlog.py")]);
    const { port } = await full.next("full");
    await late(`ws://127.0.0.1:${port}`, "no connection");
  });

  itWhere(hasOpenssl, "no openssl")("ends a TLS handshake that is never answered", async () => {
    await late((await saying("")).replace("ws:", "wss:"), "connected, but no answer");
  });

  it("holds for an answer that this process is too busy to read in time", async () => {
    const gateway = new TestProcess(process.execPath, [
      "-e",
      `const { createServer } = require("node:http");
      const server = createServer((_, response) => response.end('{"ok":true,"ownerId":"${OWNER}"}'));
      server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ event: "serving", port: server.address().port })));`,
    ]);
    const { port } = await gateway.next("serving");
    const url = `ws://127.0.0.1:${port}`;
    expect(await ask(url, OWNER, 5000)).toMatchObject({ ok: true });
    const asked = ask(url, OWNER, TIMEOUT);
    setImmediate(() => {
      for (const until = performance.now() + TIMEOUT + 50; performance.now() < until; );
    });
    expect(await asked).toMatchObject({ ...BAD, error: expect.stringMatching(/within 300ms/) });
  });

  it("is kept, and nothing stays, when the caller ends it before", async () => {
    const controller = new AbortController();
    const url = await saying("");
    const asked = probe(url, OWNER, { signal: controller.signal });
    setImmediate(() => controller.abort());
    expect(await asked).toMatchObject({ ...BAD, error: "it was aborted" });
    expect(await probe(url, OWNER, { signal: controller.signal })).toMatchObject({ ...BAD, error: "it was aborted" });
  });
});

describe("a check of the user's own", () => {
  const owner = { ...ownerFields({ pid: process.pid }), check: null };
  const examineBy = (check: (target: HealthTarget) => boolean | Promise<boolean>, signal?: AbortSignal) =>
    examine("wss://[::1]:1", owner, checkHealth({ check, timeout: TIMEOUT, path: "/up" }), signal);

  it("is told whom to ask, and believed", async () => {
    let told: HealthTarget | undefined;
    const report = await examineBy((target) => {
      told = target;
      return true;
    });
    expect(report).toMatchObject({ ok: true, status: null, error: null, contradicts: false });
    expect(told).toMatchObject({ url: "https://[::1]:1/up", owner });
    expect(told?.signal.aborted).toBe(false);
  });

  it.each([
    ["says no", () => false, "the check says no"],
    ["says something else", () => "yes" as unknown as boolean, "the check says no"],
    ["rejects", () => Promise.reject(new Error("no\x1b[31m way")), "the check failed: no [31m way"],
    [
      "throws",
      () => {
        throw new Error("at once");
      },
      "the check failed: at once",
    ],
  ])("is a no where it %s", async (_, check, error) => {
    expect(await examineBy(check)).toMatchObject({ ...BAD, contradicts: true, error });
  });

  it("has the same deadline, and hears of it", async () => {
    let signal: AbortSignal | undefined;
    const started = performance.now();
    const report = await examineBy((target) => {
      signal = target.signal;
      return new Promise(() => {});
    });
    expect(report).toMatchObject({ ...BAD, error: `the check gave no answer within ${TIMEOUT}ms` });
    expect(performance.now() - started).toBeLessThan(TIMEOUT + SLACK);
    expect(signal?.aborted).toBe(true);
  });

  it("is too late with a yes after the deadline", async () => {
    const report = await examineBy(() => {
      for (const until = performance.now() + TIMEOUT + 10; performance.now() < until; );
      return true;
    });
    expect(report).toMatchObject({ ...BAD, error: `the check gave no answer within ${TIMEOUT}ms` });
  });

  it("ends with the caller's signal", async () => {
    const controller = new AbortController();
    const asked = examineBy(() => new Promise(() => {}), controller.signal);
    controller.abort();
    expect(await asked).toMatchObject({ ...BAD, error: "it was aborted" });
  });
});

describe("health options", () => {
  it("have defaults", () => {
    expect(checkHealth(undefined)).toEqual({ path: "/healthz", timeout: 1000, check: null });
  });

  it.each([
    [{ path: "healthz" }, "ERR_INVALID_ARG_VALUE", "health.path"],
    [{ path: "/a b" }, "ERR_INVALID_ARG_VALUE", "health.path"],
    [{ path: "/\r\nx: y" }, "ERR_INVALID_ARG_VALUE", "health.path"],
    [{ path: 1 }, "ERR_INVALID_ARG_TYPE", "health.path"],
    [{ timeout: 0 }, "ERR_OUT_OF_RANGE", "health.timeout"],
    [{ timeout: Infinity }, "ERR_OUT_OF_RANGE", "health.timeout"],
    [{ timeout: Number.NaN }, "ERR_OUT_OF_RANGE", "health.timeout"],
    [{ timeout: "1s" }, "ERR_INVALID_ARG_TYPE", "health.timeout"],
    [{ check: true }, "ERR_INVALID_ARG_TYPE", "health.check"],
    [{ tiemout: 1 }, "ERR_INVALID_ARG_VALUE", "health.tiemout"],
    ["/healthz", "ERR_INVALID_ARG_TYPE", "health"],
  ])("are refused by name: %o", (options, code, name) => {
    expect(() => checkHealth(options as object)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(`"${name}"`) }),
    );
  });

  it("make the URL that is asked", () => {
    expect(healthUrl("ws://127.0.0.1:18789")).toBe("http://127.0.0.1:18789/healthz");
    expect(healthUrl("wss://[::1]:1/", "/up")).toBe("https://[::1]:1/up");
  });
});
