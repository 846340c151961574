// Node's TCP handles to bound sockets: how they are made, and what is kept of them between two servers.

import { getSystemErrorName } from "node:util";
import { net } from "../builtins.ts";
import { handOffFailed, reasonOf, systemError } from "../errors.ts";
import { type BoundSocket, isFailure, native } from "../native.ts";

/** What we know of Node's TCP handles (src/tcp_wrap.cc). */
export interface TcpHandle {
  /** Takes a descriptor, or on Windows a SOCKET; 0, or a negative error of libuv's. */
  open(fd: number): number;
  /** Closes the descriptor; again is nothing. */
  close(callback?: () => void): void;
  ref(): void;
  unref(): void;
  /** Set by a server that listens. */
  onconnection?: (status: number, client?: TcpHandle) => void;
}

/**
 * A handle to a duplicate of `socket`, for a server to own. `onClose` is called once, when anybody closes it.
 *
 * Not `listen({ fd })`: in a cluster worker that sends the bare number to the primary, where it means another file, and
 * `exclusive` is not looked at (Server#listen of lib/net.js, Node 20 to 26). A handle stays in this process.
 */
export function handleTo(socket: BoundSocket, onClose: () => void): TcpHandle {
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

/** Has the next handle made beforehand: one that was just closed may be the last that could be had. */
export function keepHandle(socket: BoundSocket): void {
  const threshold = thresholdOf(socket);
  try {
    threshold.parked ??= openHandle(socket);
  } catch {
    // Whoever wants it will be told.
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
  /** For the next server. Where handles accept in advance, it listens. */
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
export function receive(handle: TcpHandle, socket: BoundSocket): void {
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

/** Finds out beforehand what the first hand-off will need. Whether that can be had, it will say. */
export function prepareHandles(): void {
  try {
    classOfTcpHandles();
  } catch {
    // This runtime takes none.
  }
}

/** What `new` takes for a handle that listens (TCPWrap::SocketType, src/tcp_wrap.h). */
const SERVER = 1;
type TcpHandleClass = new (type: typeof SERVER) => TcpHandle;
let tcpHandleClass: TcpHandleClass | undefined;

/** The class of Node's TCP handles, which nothing public gives away: asked of one that was bound to any port, for a moment. */
function classOfTcpHandles(): TcpHandleClass {
  if (tcpHandleClass !== undefined) return tcpHandleClass;
  const { _createServerHandle: create } = net() as unknown as {
    _createServerHandle(address: string, port: number, family: 4): TcpHandle | number;
  };
  const probe = create("0.0.0.0", 0, 4);
  if (typeof probe === "number") throw new Error(`bind: ${getSystemErrorName(probe)}`);
  probe.close();
  tcpHandleClass = probe.constructor as TcpHandleClass;
  return tcpHandleClass;
}
