// What a server is in the middle of, and how to end it without losing a request: for a server that makes room for a successor.
//
// To close a keep-alive connection is to gamble that its client is not just sending the next request. So no connection is closed that
// has a request in flight; each response from now on says `Connection: close`, which sends the client elsewhere once it has its answer; and only a
// connection that has been silent for a while is closed without having said so. Closing it is a FIN and no more: a client that reads nothing loses nothing.
//
// What is no HTTP any more (a WebSocket) has no end that could be waited for: it is hung up on, and its client comes again.
//
// Everything here hangs on documented events. A listener for 'upgrade' and its like changes what a server does, so ours are there only
// beside somebody else's.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { ServerHttp2Session } from "node:http2";
import type { Server, Socket } from "node:net";

/** How long a connection must have been silent before it is closed between two requests, or in the middle of one that has begun to come. ms */
const QUIET = 500;
const HALF_QUIET = 5000;
const SWEEP_INTERVAL = 10; // ms
/** How long a client may take to read what was written to it. ms */
const HANG_UP = 1000;

/** A connection, or what is laid over it. */
interface Conversation {
  /** Where HTTP is spoken: over TLS it is not the socket that was accepted. */
  socket: Socket;
  readonly unanswered: Set<ServerResponse>;
  session: ServerHttp2Session | null;
  /** Since it was upgraded: what had been written until then. */
  writtenBefore: number | null;
  isHungUp: boolean;
  /** Bytes read when there was no request, when somebody last looked, and since when it has been those. */
  bytesBetween: number;
  bytes: number;
  quietSince: number;
}

// biome-ignore lint/suspicious/noExplicitAny: each event has its own arguments
type Listener = (...args: any[]) => void;

export class Traffic {
  readonly #server: Server;
  readonly #conversations = new Map<string, Conversation>();
  readonly #listeners: ReadonlyMap<string, Listener>;
  /** Ours for these events exist only beside the application's. */
  readonly #followers: ReadonlyMap<string, Listener>;
  readonly #speaksHttp: boolean;
  #isLeaving = false;

  constructor(server: Server) {
    this.#server = server;
    this.#speaksHttp = "setTimeout" in server; // http, https and http2 have it, net and tls have not
    this.#listeners = new Map<string, Listener>([
      ["secureConnection", (socket: Socket) => this.#secure(socket)],
      ["session", (session: ServerHttp2Session) => this.#begin(session)],
      ["request", (request: IncomingMessage, response: ServerResponse) => this.#receive(request, response)],
    ]);
    const receive = (request: IncomingMessage, response: ServerResponse) => this.#receive(request, response);
    const upgrade = ({ socket }: IncomingMessage) => this.#upgrade(socket);
    this.#followers = new Map<string, Listener>([
      ["upgrade", upgrade],
      ["connect", upgrade],
      ["checkContinue", receive],
      ["checkExpectation", receive],
    ]);
    for (const [event, listener] of this.#listeners) server.prependListener(event, listener);
    for (const event of this.#followers.keys()) this.#follow(event);
    server.on("newListener", this.#onNewListener).on("removeListener", this.#onRemoveListener);
  }

  /** For every connection, before anybody else hears of it. */
  enter(socket: Socket): void {
    const key = keyOf(socket);
    const conversation = {
      socket,
      unanswered: new Set<ServerResponse>(),
      session: null,
      writtenBefore: null,
      isHungUp: false,
      bytesBetween: socket.bytesRead,
      bytes: socket.bytesRead,
      quietSince: performance.now(),
    };
    this.#conversations.set(key, conversation);
    // A client may come again by the same port before this end of its last connection is known here.
    socket.once("close", () => {
      if (this.#conversations.get(key) === conversation) this.#conversations.delete(key);
    });
  }

  /** Of no use any more: every connection has ended. */
  detach(): void {
    const server = this.#server;
    server.off("newListener", this.#onNewListener).off("removeListener", this.#onRemoveListener);
    for (const [event, listener] of this.#followers) server.off(event, listener);
    for (const [event, listener] of this.#listeners) server.off(event, listener);
  }

  /** Requests that were not answered yet: "GET /events". */
  get unanswered(): readonly string[] {
    return [...this.#conversations.values()].flatMap(({ unanswered, session }) => [
      ...[...unanswered].map(({ req: { method, url } }) => `${method} ${url}`),
      ...(session === null ? [] : ["those of an HTTP/2 session"]),
    ]);
  }

  /**
   * Resolves when every request was answered and every connection has ended. From the call on, no answer invites another request.
   *
   * @throws `signal.reason`; then it goes on as before, but for what was hung up on
   */
  async drain(signal: AbortSignal): Promise<void> {
    this.#isLeaving = true;
    try {
      for (const conversation of this.#conversations.values()) {
        announceEnd(conversation);
        conversation.session?.close();
      }
      while (this.#conversations.size > 0) {
        // Until after a poll phase: what a client has sent by then has been read, and speaks for itself.
        await new Promise((resolve) => setTimeout(() => setImmediate(resolve), SWEEP_INTERVAL));
        signal.throwIfAborted();
        for (const conversation of this.#conversations.values()) this.#endIfDone(conversation);
      }
      signal.throwIfAborted();
    } finally {
      this.#isLeaving = false;
    }
  }

  #endIfDone(conversation: Conversation): void {
    const { socket, session, unanswered, writtenBefore } = conversation;
    if (unanswered.size > 0 || session !== null || conversation.isHungUp) return;
    const now = performance.now();
    if (socket.bytesRead !== conversation.bytes) {
      conversation.bytes = socket.bytesRead;
      conversation.quietSince = now;
    }
    const isHalf = conversation.bytes !== conversation.bytesBetween && writtenBefore === null;
    const isQuiet = now - conversation.quietSince >= (isHalf ? HALF_QUIET : QUIET);
    // One that is just being upgraded waits for the answer to that.
    const isOther = !this.#speaksHttp || (writtenBefore !== null && socket.bytesWritten > writtenBefore);
    if (isOther || isQuiet) hangUp(conversation);
  }

  #secure(socket: Socket): void {
    const conversation = this.#conversations.get(keyOf(socket));
    if (conversation === undefined) return;
    conversation.socket = socket;
    conversation.bytesBetween = conversation.bytes = socket.bytesRead;
  }

  #begin(session: ServerHttp2Session): void {
    const conversation = this.#conversations.get(keyOf(session.socket));
    if (conversation === undefined) return;
    conversation.session = session;
    session.once("close", () => {
      conversation.session = null;
    });
    if (this.#isLeaving) session.close();
  }

  #receive(request: IncomingMessage, response: ServerResponse): void {
    if (request.httpVersionMajor > 1) return; // its session knows
    const { socket } = request;
    const conversation = this.#conversations.get(keyOf(socket));
    if (conversation === undefined || conversation.unanswered.has(response)) return;
    conversation.unanswered.add(response);
    response.once("close", () => {
      conversation.unanswered.delete(response);
      conversation.bytesBetween = conversation.bytes = socket.bytesRead;
      conversation.quietSince = performance.now();
    });
    if (this.#isLeaving) announceEnd(conversation);
  }

  #upgrade(socket: Socket): void {
    const conversation = this.#conversations.get(keyOf(socket));
    if (conversation !== undefined) conversation.writtenBefore = socket.bytesWritten;
  }

  readonly #onNewListener = (event: string | symbol): void => {
    // It is not there yet.
    if (this.#followers.has(String(event))) queueMicrotask(() => this.#follow(String(event)));
  };

  readonly #onRemoveListener = (event: string | symbol): void => {
    if (this.#followers.has(String(event))) this.#follow(String(event));
  };

  #follow(event: string): void {
    const listener = this.#followers.get(event) as Listener;
    const all = this.#server.listeners(event);
    const isThere = all.includes(listener);
    if (all.length > (isThere ? 1 : 0)) {
      if (!isThere) this.#server.prependListener(event, listener);
    } else if (isThere) this.#server.off(event, listener);
  }
}

/** The same for an accepted socket and for what is laid over it. */
function keyOf({
  remoteAddress,
  remotePort,
  localAddress,
}: Pick<Socket, "remoteAddress" | "remotePort" | "localAddress">): string {
  return `${remoteAddress} ${remotePort} ${localAddress}`;
}

/** Those that say `Connection: close` because we have made them. */
const announced = new WeakSet<ServerResponse>();

/** The last of the answers that are on their way says so: with it the connection ends, and requests that come behind it are not answered. */
function announceEnd({ unanswered }: Conversation): void {
  const last = [...unanswered].at(-1);
  for (const response of unanswered) {
    if (response.headersSent) continue;
    if (response === last) {
      if (!response.hasHeader("Connection")) announced.add(response.setHeader("Connection", "close"));
    } else if (announced.delete(response)) response.removeHeader("Connection");
  }
}

/** Its end comes before anything that closing it may cause: a client that sends something at this moment reads an end, and no error. */
function hangUp(conversation: Conversation): void {
  const { socket } = conversation;
  conversation.isHungUp = true;
  // Whoever writes to it has not heard of the end yet, and may not listen for errors.
  socket.on("error", () => {}).destroySoon();
  const timer = setTimeout(() => socket.destroy(), HANG_UP).unref();
  socket.once("close", () => clearTimeout(timer));
}
