// Proves that what clients have begun is answered before the gateway goes, and that everybody who comes meanwhile is answered by the successor.

import { once } from "node:events";
import { createServer, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { createServer as createHttpsServer, Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { createRequire } from "node:module";
import { createServer as createNetServer, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, onTestFinished } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import type { Gateway } from "../../lib/gateway.ts";
import { isLinux, itWhere } from "../support/capabilities.ts";
import { aborted, acquire, heirs, reached } from "../support/handovers.ts";
import { bodyOf, connectTo, hasOpenssl, selfSigned, until } from "../support/listener-tools.ts";

/** It has no types of its own. */
const express = createRequire(import.meta.url)("express");

const it = itWhere(isLinux, "needs Linux");
const itWithTls = itWhere(isLinux && hasOpenssl, "needs openssl");

/** After that long, a connection is closed between two requests. ms */
const SILENT = 500;

interface Answer {
  readonly body: string;
  readonly connection: string | undefined;
}

async function read(response: IncomingMessage): Promise<Answer> {
  let body = "";
  for await (const part of response.setEncoding("utf8")) body += part;
  return { body, connection: response.headers.connection };
}

/** Sends the headers, and the body when it is told to. */
function ask(port: number, agent: HttpAgent | HttpsAgent, path = "/", isTls = false) {
  const send = isTls ? httpsRequest : httpRequest;
  const request = send({ port, host: "127.0.0.1", path, agent, method: "POST", rejectUnauthorized: false });
  const answer = once(request, "response").then(([response]) => read(response));
  request.flushHeaders();
  return { request, answer };
}

function keepAlive(Agent: typeof HttpAgent | typeof HttpsAgent = HttpAgent): HttpAgent | HttpsAgent {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  return agent;
}

/** A server that answers when it is told to; what is asked for is told. */
function patient(): { server: Server; asked: () => Promise<void>; answer: () => void } {
  const waiting: (() => void)[] = [];
  const server = createServer((request, response) => {
    if (request.url === "/now") response.end("old");
    else {
      waiting.push(() => response.end("old"));
      server.emit("asked");
    }
  });
  return {
    server,
    asked: async () => {
      if (waiting.length === 0) await once(server, "asked");
    },
    answer: () => {
      for (const end of waiting.splice(0)) end();
    },
  };
}

async function succeed(options: Parameters<typeof acquire>[0]): Promise<Gateway> {
  const gateway = await acquire(options);
  await gateway.listen(createServer((_, response) => response.end("new")));
  return gateway;
}

describe("a handover waits", () => {
  it("for a request that is under way, whose answer ends the connection; who comes meanwhile is answered by the successor", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const { server, asked, answer } = patient();
    await old.listen(server);
    const agent = keepAlive();
    const slow = ask(options.port, agent);
    slow.request.end();
    await asked();
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    const late = bodyOf(options.port);
    await delay(2 * SILENT); // the handler takes its time, and nobody says anything
    answer();
    expect(await slow.answer).toEqual({ body: "old", connection: "close" });
    expect(await late).toBe("new");
    await successor;
    const again = ask(options.port, agent);
    again.request.end();
    expect((await again.answer).body).toBe("new");
  });

  it("for one whose body is still coming, and for an answer whose headers were sent before", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const server = createServer(async (request, response) => {
      response.write("old: ");
      for await (const part of request) response.write(part);
      response.end();
    });
    await old.listen(server);
    const upload = ask(options.port, keepAlive());
    await once(server, "request");
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    upload.request.write("the first half, ");
    upload.request.end("and the second");
    expect(await upload.answer).toEqual({ body: "old: the first half, and the second", connection: "keep-alive" });
    await successor;
  });

  it("for the next request of a connection that was just used, and closes one that says nothing", async () => {
    const options = await heirs();
    const old = await acquire(options);
    await old.listen(patient().server);
    const [busy, idle] = [keepAlive(), keepAlive()];
    for (const agent of [busy, idle]) {
      const first = ask(options.port, agent, "/now");
      first.request.end();
      expect(await first.answer).toEqual({ body: "old", connection: "keep-alive" });
    }
    const [socket] = Object.values(idle.freeSockets).flatMap((sockets) => sockets ?? []) as [Socket];
    const end = once(socket, "close");
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    const next = ask(options.port, busy, "/now");
    next.request.end();
    expect(await next.answer).toEqual({ body: "old", connection: "close" });
    expect(await end).toEqual([false]); // no error
    await successor;
  });

  it("for half a request, which is answered when the other half has come", async () => {
    const options = await heirs();
    const old = await acquire(options);
    await old.listen(patient().server);
    const client = await connectTo({ port: options.port });
    client.write("GET /now HTTP/1.1\r\nHost: ");
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    client.write("a\r\n\r\n");
    let text = "";
    for await (const part of client.setEncoding("utf8")) text += part;
    expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n.*Connection: close\r\n.*old$/s);
    await successor;
  });

  it("for a request that was sent while the owner was busy, on a connection that had been silent", async () => {
    const options = await heirs();
    const old = await acquire(options);
    await old.listen(patient().server);
    const client = await connectTo({ port: options.port });
    client.setEncoding("utf8").write("GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
    await once(client, "data");
    await delay(2 * SILENT);
    // The kernel has it, and nobody has read it.
    const began = reached("owner", "asked", () => client.write("GET /now HTTP/1.1\r\nHost: a\r\n\r\n"));
    const successor = succeed(options);
    await began;
    let text = "";
    for await (const part of client) text += part;
    expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n.*Connection: close\r\n.*old$/s);
    await successor;
  });

  it("for all the requests that a client has sent one behind the other, before and meanwhile", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const waiting: (() => void)[] = [];
    await old.listen(createServer((_, response) => waiting.push(() => response.end("old"))));
    const client = await connectTo({ port: options.port });
    const send = async (count: number) => {
      client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(count));
      const all = waiting.length + count;
      await until(() => waiting.length === all);
    };
    client.setEncoding("utf8");
    await send(2);
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    await send(2);
    for (const answer of waiting) answer();
    let text = "";
    for await (const part of client) text += part;
    expect(text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(4);
    expect(text.match(/Connection: close/g)).toHaveLength(1);
    await successor;
  });

  it("for a client that pauses in the middle of a request", async () => {
    const options = await heirs();
    const old = await acquire(options);
    await old.listen(patient().server);
    const client = await connectTo({ port: options.port });
    client.setEncoding("utf8").write("GET /now HTTP/1.1\r\nHo");
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    await delay(2 * SILENT);
    client.write("st: a\r\n\r\n");
    let text = "";
    for await (const part of client) text += part;
    expect(text).toMatch(/^HTTP\/1\.1 200 OK/);
    await successor;
  });

  it("for the answer to an upgrade, also on a connection that was used before", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const server = createServer((_, response) => response.end("old"));
    let upgrade = () => {};
    const asked = new Promise<void>((resolve) => {
      server.on("upgrade", (_, socket) => {
        upgrade = () => void socket.write("HTTP/1.1 101 Upgraded\r\n\r\n");
        resolve();
      });
    });
    await old.listen(server);
    const client = await connectTo({ port: options.port });
    client.setEncoding("utf8").write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    await once(client, "data");
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    await asked;
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    await delay(SILENT / 5);
    upgrade();
    let text = "";
    for await (const part of client) text += part;
    expect(text).toBe("HTTP/1.1 101 Upgraded\r\n\r\n");
    await successor;
  });

  itWithTls("for requests over TLS as for others", async () => {
    const options = await heirs({ scheme: "https" });
    const old = await acquire(options);
    const server = createHttpsServer(selfSigned(), (_, response) => {
      server.once("go", () => response.end("old"));
      server.emit("asked");
    });
    await old.listen(server);
    const agent = keepAlive(HttpsAgent);
    const asked = once(server, "asked");
    const slow = ask(options.port, agent, "/", true);
    slow.request.end();
    await asked;
    const began = reached("owner", "asked");
    const successor = acquire(options);
    await began;
    server.emit("go");
    expect(await slow.answer).toEqual({ body: "old", connection: "close" });
    await aborted(old.handedOver);
    await successor;
  });

  it("for the streams of HTTP/2, whose sessions end without an error", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const server = createHttp2Server((_, response) => {
      server.once("go", () => response.end("old"));
      server.emit("asked");
    });
    await old.listen(server);
    const session = connectHttp2(`http://127.0.0.1:${options.port}`);
    const errors: Error[] = [];
    session.on("error", (error) => errors.push(error));
    const closed = once(session, "close");
    const asked = once(server, "asked");
    const stream = session.request({ ":path": "/" });
    await asked;
    const began = reached("owner", "asked");
    const successor = acquire(options);
    await began;
    server.emit("go");
    let body = "";
    for await (const part of stream.setEncoding("utf8")) body += part;
    expect(body).toBe("old");
    await closed;
    expect(errors).toEqual([]);
    await successor;
  });

  it("for an express application as for a plain server, also on both loopback addresses", async () => {
    const options = await heirs({ host: "localhost" });
    const old = await acquire(options);
    const app = express();
    let finish = () => {};
    const asked = new Promise<void>((resolve) => {
      app.post("/", (_: unknown, response: { send(body: string): void }) => {
        finish = () => response.send("old");
        resolve();
      });
    });
    const server = createServer(app);
    await old.listen(server);
    const slow = httpRequest({ port: options.port, host: "::1", method: "POST", agent: false });
    slow.end();
    const answer = once(slow, "response").then(([response]) => read(response));
    await asked;
    const began = reached("owner", "asked");
    const successor = succeed(options);
    await began;
    const late = [bodyOf(options.port, "127.0.0.1"), bodyOf(options.port, "::1")];
    finish();
    expect((await answer).body).toBe("old");
    expect(await Promise.all(late)).toEqual(["new", "new"]);
    await successor;
  });
});

describe("an application that is asked to make room", () => {
  it("ends what would not end by itself: an event stream, and a WebSocket in its own words", async () => {
    const options = await heirs();
    const ends: (() => void)[] = [];
    const onDrain = async () => {
      await new Promise(setImmediate);
      for (const end of ends) end();
    };
    const old = await acquire({ ...options, handover: { onDrain } });
    const server = createServer((_, response) => {
      response.write("data: first\n\n");
      ends.push(() => response.end("data: last\n\n"));
    });
    new WebSocketServer({ server }).on("connection", (socket) => {
      ends.push(() => socket.close(1012, "restart"));
    });
    await old.listen(server);
    const socket = new WebSocket(`ws://127.0.0.1:${options.port}`);
    await once(socket, "open");
    const stream = bodyOf(options.port);
    await until(() => ends.length === 2);
    const closed = once(socket, "close");
    await acquire(options);
    expect(await stream).toBe("data: first\n\ndata: last\n\n");
    expect(((await closed) as [number, Buffer])[0]).toBe(1012);
  });
});

describe("a handover does not wait", () => {
  it("for a request, when the successor has given up", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const { server, asked, answer } = patient();
    await old.listen(server);
    const slow = ask(options.port, keepAlive());
    slow.request.end();
    await asked();
    const controller = new AbortController();
    const [began, resumed] = [reached("owner", "asked"), reached("owner", "resumed")];
    const successor = acquire({ ...options, signal: controller.signal }).catch((error: Error) => error.message);
    await began;
    controller.abort(new Error("changed my mind"));
    expect(await successor).toBe("changed my mind");
    await resumed;
    answer();
    expect((await slow.answer).body).toBe("old");
    expect(await bodyOf(options.port, "127.0.0.1", "/now")).toBe("old");
  });

  it("for WebSockets, which are closed and find the successor when they come again", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const server = createServer();
    // After the hand-off, as some applications do.
    await old.listen(server);
    new WebSocketServer({ server }).on("connection", (socket) => socket.send("old"));
    const first = new WebSocket(`ws://127.0.0.1:${options.port}`);
    expect(String((await once(first, "message"))[0])).toBe("old");
    const closed = once(first, "close");
    const successor = await acquire(options);
    expect((await closed)[0]).toBe(1006);
    const next = createServer();
    new WebSocketServer({ server: next }).on("connection", (socket) => socket.send("new"));
    await successor.listen(next);
    const second = new WebSocket(`ws://127.0.0.1:${options.port}`);
    expect(String((await once(second, "message"))[0])).toBe("new");
    second.terminate();
  });

  it("for one that is written to while it is closed, which is no reason to crash; nor for a client that reads nothing", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const server = createServer();
    server.on("upgrade", (_, socket) => {
      socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
      const write = () => {
        if (socket.destroyed) return;
        socket.write(Buffer.alloc(100_000));
        setImmediate(write);
      };
      write();
    });
    await old.listen(server);
    const client = await connectTo({ port: options.port });
    client.on("error", () => {}).write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    await once(client, "readable");
    await acquire(options);
    await aborted(old.handedOver);
  });

  it("for more than what it has written to them, which arrives", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const server = createServer();
    const bytes = 20_000_000;
    server.on("upgrade", (_, socket) => {
      socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
      socket.write(Buffer.alloc(bytes, "x"));
    });
    await old.listen(server);
    const client = await connectTo({ port: options.port });
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
    await once(client, "readable");
    const began = reached("owner", "asked");
    const successor = acquire(options);
    await began;
    let text = "";
    for await (const part of client.setEncoding("latin1")) text += part;
    expect(text.length - text.indexOf("x")).toBe(bytes);
    await successor;
  });

  it("for connections of a server that speaks something else", async () => {
    const options = await heirs();
    const old = await acquire(options);
    const server = createNetServer((socket) => socket.pipe(socket));
    await old.listen(server);
    const client = await connectTo({ port: options.port });
    client.write("echo");
    await once(client, "data");
    const ended = once(client, "end");
    await acquire(options);
    await ended;
  });
});

describe("a server that may be handed over", () => {
  it("does with requests to upgrade what it would do without: they are answered, until somebody listens for them", async () => {
    const options = await heirs();
    const gateway = await acquire(options);
    const server = createServer((_, response) => response.end("answered"));
    await gateway.listen(server);
    const upgrade = async () => {
      const client = await connectTo({ port: options.port });
      client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n");
      const [data] = await once(client, "data");
      client.destroy();
      return String(data);
    };
    const answer = (_: IncomingMessage, socket: Socket) => void socket.end("HTTP/1.1 101 Upgraded\r\n\r\n");
    expect(await upgrade()).toMatch(/answered$/);
    server.on("upgrade", answer);
    expect(await upgrade()).toMatch(/^HTTP\/1\.1 101/);
    server.off("upgrade", answer);
    expect(await upgrade()).toMatch(/answered$/);
    expect(server.listenerCount("upgrade")).toBe(0);
  });
});
