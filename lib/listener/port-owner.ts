// Who has a port: first what the kernel's tables say, then a connection where they say nothing.

import { net } from "../builtins.ts";
import { type PortListener, printable } from "../errors.ts";
import { isFailure, native, type PortSocket, type PortUse } from "../native.ts";
import { overlaps, reachable } from "./addresses.ts";

/** The absolute deadline of a probe, in ms. */
const PROBE_DEADLINE = 1000;
const MAX_COMMAND_LENGTH = 200;

/** The sockets on a port that stand in the way of `host`. */
function socketsOn(host: string, port: number, use: PortUse): PortSocket[] {
  const found = native().findPortSockets(port, use);
  return isFailure(found) ? [] : found.filter((socket) => overlaps(host, socket));
}

const NOBODY: PortListener = { pid: null, command: null };

/** What is known of the process that keeps others off `host`:`port`. */
export interface PortOwner {
  /** What its socket does there; `null` where the kernel shows none. */
  readonly use: PortUse | null;
  readonly listener: PortListener;
}

/** The processes in `hints` are looked at first. */
export function findPortOwner(host: string, port: number, hints: readonly number[] = []): PortOwner {
  for (const use of ["listening", "bound", "connected"] as const) {
    const [socket] = socketsOn(host, port, use);
    if (socket === undefined) continue;
    const [listener] = ownersOf([socket], hints);
    return { use, listener: listener ?? NOBODY };
  }
  return { use: null, listener: NOBODY };
}

/** A socket that listens. */
export interface SeenListener extends PortListener {
  readonly address: string;
  readonly port: number;
  /** The socket's own number; another one at the same address is another socket. 0 where it has none. */
  readonly id: number;
}

/** Everybody who listens on `port` and could get what is sent to one of `hosts`. The processes in `hints` are looked at first. */
export async function findListeners(
  hosts: Iterable<string>,
  port: number,
  hints: readonly number[],
): Promise<SeenListener[]> {
  return await findListenersOn(hosts, [port], hints);
}

/** The same for many ports, in one walk through all processes. */
export async function findListenersOn(
  hosts: Iterable<string>,
  ports: readonly number[],
  hints: readonly number[],
): Promise<SeenListener[]> {
  const places: { readonly port: number; readonly socket: PortSocket }[] = [];
  for (const port of ports) {
    const found = native().findPortSockets(port, "listening");
    if (isFailure(found)) return (await Promise.all(ports.map((one) => askForListeners(hosts, one)))).flat();
    for (const socket of found) if ([...hosts].some((host) => overlaps(host, socket))) places.push({ port, socket });
  }
  const owners = ownersOf(
    places.map(({ socket }) => socket),
    hints,
  );
  return places.map(({ port, socket }, index) => ({
    address: socket.address,
    port,
    id: socket.id,
    ...(owners[index] ?? NOBODY),
  }));
}

/** Where the kernel's tables can't be read. */
async function askForListeners(hosts: Iterable<string>, port: number): Promise<SeenListener[]> {
  const listeners: SeenListener[] = [];
  for (const host of hosts)
    if (await answers(reachable(host), port)) listeners.push({ address: host, port, id: 0, ...NOBODY });
  return listeners;
}

function ownersOf(sockets: readonly PortSocket[], hints: readonly number[]): PortListener[] {
  const ids = sockets.map(({ id }) => id);
  return native()
    .findSocketOwners(ids, hints)
    .map((pid) => ({ pid, command: pid === null ? null : commandOf(pid) }));
}

/** The command line, fit for a terminal. */
function commandOf(pid: number): string | null {
  const command = printable(native().describeCommand(pid)).trim().slice(0, MAX_COMMAND_LENGTH);
  return command === "" ? null : command;
}

/**
 * Who listens on `host`:`port`; `null`: nobody. Where the kernel shows a listener, it is not disturbed; else it is asked by connecting: refused
 * is free, no answer within a second is busy. The processes in `hints` are looked at first.
 */
export async function findListener(host: string, port: number, hints: readonly number[]): Promise<PortListener | null> {
  const target = reachable(host);
  const found = native().findListener(target, port);
  const socket = isFailure(found) ? socketsOn(target, port, "listening")[0] : found;
  if (socket !== undefined) return ownersOf([socket], hints)[0] ?? NOBODY;
  return (await answers(target, port)) ? findPortOwner(host, port, hints).listener : null;
}

function answers(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net().connect({ host, port });
    const timer = setTimeout(() => finish(true), PROBE_DEADLINE);
    function finish(busy: boolean): void {
      clearTimeout(timer);
      socket.destroy();
      resolve(busy);
    }
    socket.once("connect", () => {
      // In the ephemeral range a connection can meet itself; then nobody listens (simultaneous open, RFC 9293, 3.5).
      const self = socket.localPort === socket.remotePort && socket.localAddress === socket.remoteAddress;
      finish(!self);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      // Refused: nobody listens. The others: this host has no such address, so nobody here can.
      finish(!["ECONNREFUSED", "EADDRNOTAVAIL", "EAFNOSUPPORT", "ENETUNREACH"].includes(error.code ?? ""));
    });
  });
}
