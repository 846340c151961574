// Giving bound sockets to a server, and knowing from then on what it serves.
//
// A server gets duplicates, so that its close() ends its own listening and leaves the port bound. It can take only one
// socket itself. Those of further hosts are accepted by a feeder, and every connection is entered in the server's own
// books: Node counts a connection down in `socket._server`, so a socket whose `_server` is the server counts for
// getConnections(), maxConnections and the 'close' event like its own (lib/net.js, onconnection and Socket#_destroy, the
// same from Node 20 to 26). Only emitting 'connection' would serve it, but nobody would wait for it.
//
// Node tells nobody when close() is called, only when the last connection has ended: too late for the feeders, and for a
// successor. But close() closes the server's handle at once, whoever calls it and however, and the handle is ours.

import type { BlockList, Server, Socket } from "node:net";
import { net } from "../builtins.ts";
import { handOffFailed, reasonOf } from "../errors.ts";
import type { BoundSocket } from "../native.ts";
import { canonical } from "./addresses.ts";
import { handleTo, receive, type TcpHandle } from "./tcp-handle.ts";
import { Traffic } from "./traffic.ts";

/** What of a server's inside a feeder has to know (lib/net.js). */
interface ServerBooks extends Omit<Server, "maxConnections"> {
  _connections: number;
  _handle: unknown;
  allowHalfOpen?: boolean;
  pauseOnConnect?: boolean;
  noDelay?: boolean;
  keepAlive?: boolean;
  keepAliveInitialDelay?: number;
  highWaterMark?: number;
  blockList?: BlockList;
  maxConnections?: number | null;
}
type AcceptedSocket = Socket & { server: Server; _server: Server };

function booksOf(server: Server): ServerBooks {
  return server as Server & ServerBooks;
}

/** One server on one claim, from the hand-off until its last connection that came in by this claim has ended. */
export class Serving {
  readonly server: Server;
  /** Resolves when the server has stopped listening here, and nobody who came in meanwhile is connected any more. */
  readonly ended: Promise<void>;
  readonly #onStop: () => void;
  /** Of a server that may have to make room for another process. */
  readonly #traffic: Traffic | null;
  readonly #feeders: Server[] = [];
  readonly #connections = new Set<Socket>();
  #handle: TcpHandle | null = null;
  #serves = false;
  #stopped = false;
  /** Stopped for a while, by us: the server itself knows nothing of it. */
  #paused = false;
  #end: () => void = () => {};

  /** `onStop` is called once, when the server is closed after it has begun to serve. */
  constructor(server: Server, onStop: () => void, watchesTraffic: boolean) {
    this.server = server;
    this.#onStop = onStop;
    this.#traffic = watchesTraffic ? new Traffic(server) : null;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** The server accepts nobody here any more, though old connections may go on. It may serve elsewhere by now. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /**
   * Resolves when the server serves all `sockets`.
   *
   * @throws GatewayLockError `HANDOFF_FAILED`; the sockets are as before, and the server listens nowhere
   */
  async start(sockets: readonly BoundSocket[], backlog: number): Promise<void> {
    const { server } = this;
    const [own, ...further] = sockets;
    // A server listens on one handle, so until that is closed, every new connection came in by this claim.
    server.prependListener("connection", this.#enter);
    try {
      if (own === undefined) throw handOffFailed("the listener is closed");
      this.#handle = handleTo(own, this.#onHandleClose);
      await listen(server, this.#handle, own, backlog);
      for (const socket of further) {
        if (this.#stopped) break;
        this.#feeders.push(await feed(server, socket, backlog));
      }
      if (this.#stopped) throw handOffFailed(CLOSED_MEANWHILE);
      this.#serves = true;
    } catch (error) {
      const tookHandle = this.#handle !== null && booksOf(server)._handle === this.#handle;
      this.stop();
      try {
        if (tookHandle) server.close();
      } catch {
        // Why the hand-off failed is told; the server does not listen any more, whatever its close() says.
      }
      throw error;
    }
  }

  /** Stops listening at once, even if the server's own close() takes its time. Idempotent. */
  stop(): void {
    if (this.#stopped) return;
    if (this.#handle === null) this.#onHandleClose();
    else this.#handle.close();
  }

  /**
   * Accepts nobody any more, without a word to the server: clients wait in the kernel's queue, for another process, or until another
   * Serving has the server.
   */
  pause(): void {
    this.#paused = true;
    this.#handle?.close();
  }

  /** After pause(): whether the server can be served again, which nobody has closed meanwhile. It forgets the handle, or would refuse another one. */
  unpause(): boolean {
    const books = booksOf(this.server);
    const isOpen = this.#handle !== null && books._handle === this.#handle;
    if (isOpen) books._handle = null;
    return isOpen;
  }

  get isConnected(): boolean {
    return this.#connections.size > 0;
  }

  /** Requests that were not answered yet. */
  get unanswered(): readonly string[] {
    return this.#traffic?.unanswered ?? [];
  }

  /**
   * Resolves when every request that came in by this claim was answered, and every connection has ended.
   *
   * @throws `signal.reason`
   */
  async quiesce(signal: AbortSignal): Promise<void> {
    await this.#traffic?.drain(signal);
  }

  /** Ends every connection, upgraded ones too, which http.Server's closeAllConnections() does not know. */
  destroyConnections(): void {
    for (const socket of this.#connections) socket.destroy();
  }

  readonly #onHandleClose = (): void => {
    if (this.#stopped) return;
    this.#stopped = true;
    this.server.off("connection", this.#enter);
    for (const feeder of this.#feeders.splice(0)) feeder.close();
    this.#endIfEmpty();
    if (this.#serves && !this.#paused) this.#onStop();
  };

  readonly #enter = (socket: Socket): void => {
    this.#connections.add(socket);
    this.#traffic?.enter(socket);
    socket.once("close", () => {
      this.#connections.delete(socket);
      this.#endIfEmpty();
    });
  };

  #endIfEmpty(): void {
    if (!this.#stopped || this.#connections.size > 0) return;
    this.#traffic?.detach();
    this.#end();
  }
}

const CLOSED_MEANWHILE = "the server was closed meanwhile";

/**
 * Resets every connection that comes in by `socket`: for systems where a socket listens until it is closed. It does not keep the
 * process alive.
 */
export function turnAway(socket: BoundSocket, backlog: number): Server {
  const server = net()
    .createServer((connection) => connection.resetAndDestroy())
    .on("error", () => {});
  const handle = handleTo(socket, () => {});
  server.listen(handle, backlog).unref();
  receive(handle, socket);
  return server;
}

/** Lets the server listen on `handle`, which is to `socket`, and makes sure that this is where it listens. */
async function listen(server: Server, handle: TcpHandle, socket: BoundSocket, backlog: number): Promise<void> {
  // The handle may be another server's by the time that this one has failed.
  const close = handle.close;
  try {
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error) => {
        server.off("error", settle);
        server.off("listening", settle);
        error === undefined ? resolve() : reject(error);
      };
      // A server that is closed in the same tick never says that it listens. Where listen(2) has failed, Node closes the handle too, and says why in the
      // next tick: to a server that nobody heeds any more, that would be the end of the process.
      handle.close = (callback) => {
        handle.close = close;
        handle.close(callback);
        setImmediate(() => settle(new Error(CLOSED_MEANWHILE)));
      };
      server.once("error", settle);
      server.once("listening", settle);
      try {
        server.listen(handle, backlog);
      } catch (error) {
        settle(error as Error);
      }
    });
  } catch (cause) {
    close();
    throw handOffFailed(reasonOf(cause), { cause });
  }
  const bound = addressOf(server);
  const there = typeof bound === "object" && bound !== null ? bound : null;
  // A runtime that takes no handles may listen on a port of its own choice, and say nothing (Bun 1.4).
  if (there?.port === socket.port && withoutZone(there.address) === withoutZone(socket.address)) {
    receive(handle, socket);
    return;
  }
  if (bound === null) throw handOffFailed(CLOSED_MEANWHILE);
  await new Promise((resolve) => server.close(resolve));
  close();
  const where = there === null ? `${bound}` : `${there.address} port ${there.port}`;
  throw handOffFailed(`this runtime listens on ${where} instead of ${socket.address} port ${socket.port}`);
}

/** @throws GatewayLockError `HANDOFF_FAILED` where the system does not say */
function addressOf(server: Server): ReturnType<Server["address"]> {
  try {
    return server.address();
  } catch (cause) {
    throw handOffFailed(reasonOf(cause), { cause });
  }
}

function withoutZone(address: string): string | undefined {
  return canonical(address).split("%")[0];
}

/** Accepts on `socket` for `server`. The feeder itself never keeps the process alive: the server does, or does not. */
async function feed(server: Server, socket: BoundSocket, backlog: number): Promise<Server> {
  const books = booksOf(server);
  const feeder = net().createServer({
    allowHalfOpen: books.allowHalfOpen ?? false,
    pauseOnConnect: books.pauseOnConnect ?? false,
    noDelay: books.noDelay ?? false,
    keepAlive: books.keepAlive ?? false,
    keepAliveInitialDelay: (books.keepAliveInitialDelay ?? 0) * 1000,
    ...(books.highWaterMark === undefined ? {} : { highWaterMark: books.highWaterMark }),
    ...(books.blockList === undefined ? {} : { blockList: books.blockList }),
  });
  feeder.on("connection", (connection) => adopt(server, feeder, connection as AcceptedSocket));
  feeder.on("error", (error) => server.emit("error", error));
  await listen(
    feeder,
    handleTo(socket, () => {}),
    socket,
    backlog,
  );
  feeder.unref();
  return feeder;
}

/** Does for a fed connection what onconnection of lib/net.js does for the server's own. */
function adopt(server: Server, feeder: Server, connection: AcceptedSocket): void {
  const books = booksOf(server);
  if (isFull(books)) {
    const { localAddress, localPort, localFamily, remoteAddress, remotePort, remoteFamily } = connection;
    connection.destroy();
    server.emit("drop", { localAddress, localPort, localFamily, remoteAddress, remotePort, remoteFamily });
    return;
  }
  booksOf(feeder)._connections--;
  books._connections++;
  connection.server = server;
  connection._server = server;
  server.emit("connection", connection);
}

/** 0 is no limit until Node 20 and lets nobody in after that, as the server's own socket has it (lib/net.js, onconnection). */
const ZERO_IS_NO_LIMIT: boolean = Number.parseInt(process.versions.node, 10) <= 20;

function isFull({ maxConnections, _connections }: ServerBooks): boolean {
  if (maxConnections === undefined || maxConnections === null) return false;
  if (!maxConnections && ZERO_IS_NO_LIMIT) return false;
  return _connections >= maxConnections;
}
