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

import net, { type BlockList, createServer, type Server, type Socket } from "node:net";
import { getSystemErrorName } from "node:util";
import { handOffFailed, reasonOf, systemError } from "../errors.ts";
import { type BoundSocket, isFailure, native } from "../native.ts";
import { canonical } from "./addresses.ts";

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

/** What Node's TCP handles and this file know of each other (src/tcp_wrap.cc). */
interface TcpHandle {
  /** Takes a descriptor, or on Windows a SOCKET; 0, or a negative error of libuv's. */
  open(fd: number): number;
  /** Closes the descriptor; again is nothing. */
  close(callback?: () => void): void;
  ref(): void;
  unref(): void;
  /** Set by a server that listens. */
  onconnection?: (status: number, client?: TcpHandle) => void;
}

/** One server on one claim, from the hand-off until its last connection that came in by this claim has ended. */
export class Serving {
  readonly server: Server;
  /** Resolves when the server has stopped listening here, and nobody who came in meanwhile is connected any more. */
  readonly ended: Promise<void>;
  readonly #onStop: () => void;
  readonly #feeders: Server[] = [];
  readonly #connections = new Set<Socket>();
  #handle: TcpHandle | null = null;
  #serves = false;
  #stopped = false;
  #end: () => void = () => {};

  /** `onStop` is called once, when the server is closed after it has begun to serve. */
  constructor(server: Server, onStop: () => void) {
    this.server = server;
    this.#onStop = onStop;
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
    server.on("connection", this.#enter);
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
    if (this.#serves) this.#onStop();
  };

  readonly #enter = (socket: Socket): void => {
    this.#connections.add(socket);
    socket.once("close", () => {
      this.#connections.delete(socket);
      this.#endIfEmpty();
    });
  };

  #endIfEmpty(): void {
    if (this.#stopped && this.#connections.size === 0) this.#end();
  }
}

const CLOSED_MEANWHILE = "the server was closed meanwhile";

/**
 * A handle to a duplicate of `socket`, for a server to own. `onClose` is called once, when anybody closes it.
 *
 * Not `listen({ fd })`: in a cluster worker that sends the bare number to the primary, where it means another file, and
 * `exclusive` is not looked at (Server#listen of lib/net.js, Node 20 to 26). A handle stays in this process.
 */
function handleTo(socket: BoundSocket, onClose: () => void): TcpHandle {
  const threshold = thresholdOf(socket);
  const handle = threshold.parked ?? openHandle(socket);
  threshold.parked = null;
  handle.ref();
  const close = Object.getPrototypeOf(handle).close.bind(handle) as TcpHandle["close"];
  let isClosed = false;
  handle.close = (callback) => {
    if (isClosed) return;
    isClosed = true;
    const isListening = typeof handle.onconnection === "function";
    if (ACCEPTS_IN_ADVANCE && isListening && !threshold.closed) park(handle, threshold);
    else close(callback);
    onClose();
  };
  return handle;
}

function openHandle(socket: BoundSocket): TcpHandle {
  const subject = `${socket.address}:${socket.port}`;
  const duplicate = native().duplicate(socket.fd);
  if (isFailure(duplicate)) {
    const cause = systemError(duplicate, subject);
    throw handOffFailed(cause.message, { cause });
  }
  try {
    const handle = new (classOfTcpHandles())(SERVER);
    const error = handle.open(duplicate);
    if (error !== 0) throw new Error(`open: ${getSystemErrorName(error)}`);
    native().adoptDuplicate(duplicate);
    return handle;
  } catch (cause) {
    native().closeDuplicate(duplicate);
    throw handOffFailed(`this runtime takes no bound socket: ${reasonOf(cause)}`, { cause });
  }
}

/**
 * Windows: who came for a server that was closed before it could be told, or for none.
 *
 * libuv asks for 32 connections in advance (AcceptEx). When the handle is closed, it resets those who have just been accepted, and
 * leaves the other requests to the socket, where they would swallow the next ones (uv__tcp_close, src/win/tcp.c). So a handle that has
 * listened stays open until the socket is closed; it keeps the clients who come in between, and the next server gets both.
 */
interface Threshold {
  /** Listens, for no server. */
  parked: TcpHandle | null;
  readonly clients: TcpHandle[];
  closed: boolean;
}
const thresholds = new WeakMap<BoundSocket, Threshold>();
const ACCEPTS_IN_ADVANCE: boolean = process.platform === "win32";
/** As many as wait in the queue of a socket that nobody accepts on, by default; more are reset. */
const MAX_CLIENTS = 511;

function thresholdOf(socket: BoundSocket): Threshold {
  let threshold = thresholds.get(socket);
  if (threshold === undefined) {
    threshold = { parked: null, clients: [], closed: false };
    thresholds.set(socket, threshold);
  }
  return threshold;
}

function park(handle: TcpHandle, threshold: Threshold): void {
  threshold.parked = handle;
  handle.unref();
  handle.onconnection = (_status, client) => {
    if (client === undefined) return;
    if (threshold.clients.length < MAX_CLIENTS) threshold.clients.push(client);
    else client.close();
  };
}

/** For a handle that has begun to listen. */
function receive(handle: TcpHandle, socket: BoundSocket): void {
  for (const client of thresholdOf(socket).clients.splice(0)) handle.onconnection?.(0, client);
}

/** Before the socket is closed. */
export function leaveThreshold(socket: BoundSocket): void {
  const threshold = thresholdOf(socket);
  threshold.closed = true;
  const { parked } = threshold;
  threshold.parked = null;
  if (parked !== null) (Object.getPrototypeOf(parked) as TcpHandle).close.call(parked);
  for (const client of threshold.clients.splice(0)) client.close();
}

/** What `new` takes for a handle that listens (TCPWrap::SocketType, src/tcp_wrap.h). */
const SERVER = 1;
type TcpHandleClass = new (type: typeof SERVER) => TcpHandle;
let tcpHandleClass: TcpHandleClass | undefined;

/** The class of Node's TCP handles, which nothing public gives away: asked of one that was bound to any port, for a moment. */
function classOfTcpHandles(): TcpHandleClass {
  if (tcpHandleClass !== undefined) return tcpHandleClass;
  const { _createServerHandle: create } = net as unknown as {
    _createServerHandle(address: string, port: number, family: 4): TcpHandle | number;
  };
  const probe = create("0.0.0.0", 0, 4);
  if (typeof probe === "number") throw new Error(`bind: ${getSystemErrorName(probe)}`);
  probe.close();
  tcpHandleClass = probe.constructor as TcpHandleClass;
  return tcpHandleClass;
}

/**
 * Resets every connection that comes in by `socket`: for systems where a socket listens until it is closed. It does not keep the
 * process alive.
 */
export function turnAway(socket: BoundSocket, backlog: number): Server {
  const server = createServer((connection) => connection.resetAndDestroy()).on("error", () => {});
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
      // A server that is closed in the same tick never says that it listens.
      handle.close = (callback) => {
        handle.close = close;
        handle.close(callback);
        settle(new Error(CLOSED_MEANWHILE));
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
  const bound = server.address();
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

function withoutZone(address: string): string | undefined {
  return canonical(address).split("%")[0];
}

/** Accepts on `socket` for `server`. The feeder itself never keeps the process alive: the server does, or does not. */
async function feed(server: Server, socket: BoundSocket, backlog: number): Promise<Server> {
  const books = booksOf(server);
  const feeder = createServer({
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
