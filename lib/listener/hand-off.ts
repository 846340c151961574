// Giving bound sockets to a server, and knowing from then on what it serves.
//
// A server gets duplicates, so that its close() ends its own listening and leaves the port bound. It can take only one
// socket itself. Those of further hosts are accepted by a feeder, and every connection is entered in the server's own
// books: Node counts a connection down in `socket._server`, so a socket whose `_server` is the server counts for
// getConnections(), maxConnections and the 'close' event like its own (lib/net.js, onconnection and Socket#_destroy, the
// same from Node 20 to 26). Only emitting 'connection' would serve it, but nobody would wait for it.

import net, { type BlockList, createServer, type Server, type Socket } from "node:net";
import { handOffFailed, reasonOf, systemError } from "../errors.ts";
import { type BoundSocket, isFailure, native } from "../native.ts";
import { canonical } from "./addresses.ts";

/** What of a server's and a socket's inside a feeder has to know (lib/net.js). */
interface ServerBooks extends Omit<Server, "maxConnections"> {
  _connections: number;
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

/** One server on one claim, from the hand-off until it has closed and its last connection has ended. */
export class Serving {
  /** Settles when the server has closed and its last connection has ended. Never rejects. */
  readonly closed: Promise<void>;
  readonly server: Server;
  readonly #connections = new Set<Socket>();
  readonly #feeders: Server[] = [];
  #stopped = false;

  private constructor(server: Server, onStop: () => void) {
    this.server = server;
    server.on("connection", this.#track);
    this.#noticeClose(onStop);
    this.closed = new Promise((resolve) => {
      server.once("close", () => {
        server.off("connection", this.#track);
        resolve();
      });
    });
  }

  /**
   * Resolves when the server serves all `sockets`. `onStop` is called once, when somebody calls the server's close().
   *
   * @throws GatewayLockError `HANDOFF_FAILED`; the sockets are as before, and the server listens nowhere
   */
  static async start(
    server: Server,
    sockets: readonly BoundSocket[],
    backlog: number,
    onStop: () => void,
  ): Promise<Serving> {
    if (server.listening) throw handOffFailed("the server already listens; hand it over before it does");
    const [own, ...further] = sockets;
    if (own === undefined) throw handOffFailed("the listener is closed");
    await listen(server, own, backlog);
    const serving = new Serving(server, onStop);
    try {
      for (const socket of further) serving.#feeders.push(await feed(server, socket, backlog));
      if (serving.stopped) throw handOffFailed("the server was closed meanwhile");
    } catch (error) {
      serving.#stopFeeding();
      if (!serving.stopped) server.close();
      throw error;
    }
    return serving;
  }

  /** Somebody has called the server's close(): it accepts nobody any more, though old connections may go on. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Ends every connection at once, upgraded ones too, which http.Server's closeAllConnections() does not know. */
  destroyConnections(): void {
    for (const socket of this.#connections) socket.destroy();
  }

  readonly #track = (socket: Socket): void => {
    this.#connections.add(socket);
    socket.once("close", () => this.#connections.delete(socket));
  };

  /** Node tells nobody when close() is called, only when the last connection has ended: too late for the feeders. */
  #noticeClose(onStop: () => void): void {
    const { server } = this;
    const { close } = server;
    const hadOwn = Object.hasOwn(server, "close");
    const stop = () => {
      if (this.#stopped) return;
      this.#stopped = true;
      this.#stopFeeding();
      // A framework may have put its own in front of ours meanwhile, and keeps it.
      if (server.close === closeAndStop) {
        if (hadOwn) server.close = close;
        else Reflect.deleteProperty(server, "close");
      }
      onStop();
    };
    const closeAndStop: Server["close"] = (...args) => {
      stop();
      return Reflect.apply(close, server, args);
    };
    server.close = closeAndStop;
    server.once("close", stop);
  }

  #stopFeeding(): void {
    for (const feeder of this.#feeders.splice(0)) feeder.close();
  }
}

/** What both kinds of handle have in common that we use (src/tcp_wrap.cc). */
interface TcpHandle {
  /** Takes the descriptor over, and answers 0, or a negative errno without having taken it. */
  open(fd: number): number;
  /** Closes the descriptor; again is nothing. */
  close(): void;
}
type TcpConstructor = new (type: number) => TcpHandle;

const TCP_SERVER = 1; // TCPConstants.SERVER of src/tcp_wrap.h
let tcp: TcpConstructor | undefined;

/**
 * A handle on a duplicate of `socket`, for a server to own.
 *
 * Not `listen({ fd })`: in a cluster worker that sends the bare number to the primary, where it means another file, and
 * `exclusive` is not looked at (Server#listen of lib/net.js, Node 20 to 26); and Windows has no such descriptors. A handle
 * stays in this process. Node gives its class to nobody, but makes one for whoever asks for a server handle.
 */
function handleTo(socket: BoundSocket): TcpHandle {
  const duplicate = native().duplicate(socket.fd);
  if (isFailure(duplicate)) {
    const cause = systemError(duplicate, `${socket.address}:${socket.port}`);
    throw handOffFailed(cause.message, { cause });
  }
  let error: number;
  let handle: TcpHandle;
  try {
    tcp ??= tcpConstructor();
    handle = new tcp(TCP_SERVER);
    error = handle.open(duplicate);
  } catch (cause) {
    native().closeDuplicate(duplicate);
    throw handOffFailed(`this runtime takes no bound socket: ${reasonOf(cause)}`, { cause });
  }
  if (error === 0) return handle;
  native().closeDuplicate(duplicate);
  handle.close();
  const cause = systemError({ errno: -error, syscall: "open" }, `${socket.address}:${socket.port}`);
  throw handOffFailed(cause.message, { cause });
}

function tcpConstructor(): TcpConstructor {
  const { _createServerHandle: create } = net as unknown as {
    _createServerHandle(address: string, port: number, family: number): TcpHandle;
  };
  const probe = create("127.0.0.1", 0, 4);
  probe.close();
  return probe.constructor as TcpConstructor;
}

/** Lets the server listen on a duplicate of `socket`, and makes sure that this is where it listens. */
async function listen(server: Server, socket: BoundSocket, backlog: number): Promise<void> {
  const handle = handleTo(socket);
  try {
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error) => {
        server.off("error", settle);
        server.off("listening", settle);
        error === undefined ? resolve() : reject(error);
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
    handle.close();
    throw handOffFailed(reasonOf(cause), { cause });
  }
  const bound = server.address();
  const there = typeof bound === "object" && bound !== null ? bound : null;
  // A runtime that takes no descriptors may listen on a port of its own choice, and say nothing (Bun 1.4).
  if (there?.port === socket.port && canonical(there.address) === canonical(socket.address).split("%")[0]) return;
  await new Promise((resolve) => server.close(resolve));
  handle.close();
  const where = there === null ? `${bound ?? "nowhere"}` : `${there.address} port ${there.port}`;
  throw handOffFailed(`this runtime listens on ${where} instead of ${socket.address} port ${socket.port}`);
}

/** Accepts on `socket` for `server`. The feeder itself never keeps the process alive: the server does, or does not. */
async function feed(server: Server, socket: BoundSocket, backlog: number): Promise<Server> {
  const books = server as Server & ServerBooks;
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
  await listen(feeder, socket, backlog);
  feeder.unref();
  return feeder;
}

/** Does for a fed connection what onconnection of lib/net.js does for the server's own. */
function adopt(server: Server, feeder: Server, connection: AcceptedSocket): void {
  const books = server as Server & ServerBooks;
  const { maxConnections } = books;
  if (typeof maxConnections === "number" && books._connections >= maxConnections) {
    const { localAddress, localPort, localFamily, remoteAddress, remotePort, remoteFamily } = connection;
    connection.destroy();
    server.emit("drop", { localAddress, localPort, localFamily, remoteAddress, remotePort, remoteFamily });
    return;
  }
  (feeder as Server & ServerBooks)._connections--;
  books._connections++;
  connection.server = server;
  connection._server = server;
  server.emit("connection", connection);
}
