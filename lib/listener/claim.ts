// Taking ports: exclusively, all or none, and if not, who has them.

import { alreadyListening, bindFailed, type GatewayLockError, systemError } from "../errors.ts";
import { type BoundSocket, isFailure, type NativeFailure, native } from "../native.ts";
import { type Endpoints, type ListenerOptions, resolveListenerOptions } from "../options.ts";
import { type Target, targetsFor } from "./addresses.ts";
import { type Claimed, ExclusiveListener, type SkippedAddress } from "./exclusive-listener.ts";
import { InheritedSockets } from "./inherited-sockets.ts";
import { findPortOwner } from "./port-owner.ts";
import { PortSet } from "./port-set.ts";

/**
 * Binds a port exclusively and listens on it, in one step. Several hosts are one claim: all or none.
 *
 * @throws GatewayLockError `ALREADY_LISTENING` if anybody has the port, `BIND_FAILED` for any other reason; nothing is
 * bound then. TypeError or RangeError for bad options.
 */
export function bindExclusive(options: ListenerOptions = {}): ExclusiveListener {
  const endpoints = resolveListenerOptions(options);
  const none = new InheritedSockets({ listeners: [], guards: [], shared: [] });
  return claimPort(targetsFor(endpoints.hosts, endpoints.loopbackGuard), { ...endpoints, purpose: "" }, none);
}

/**
 * The gateway's port, and those that it reserves on the same hosts. Sockets that the process was started with are used where they fit.
 *
 * @throws GatewayLockError `ALREADY_LISTENING`, `BIND_FAILED`; nothing is bound then
 */
export function claimPorts(endpoints: Endpoints, inherited: InheritedSockets): PortSet {
  const targets = targetsFor(endpoints.hosts, endpoints.loopbackGuard);
  const dormant = targets.map(
    (target): Target => (target.role === "listen" ? { ...target, role: "reserved" } : target),
  );
  const own = { ...endpoints, purpose: "" };
  const claimed: ExclusiveListener[] = [];
  try {
    try {
      // First, because the main one listens as soon as it is bound; and a port of the kernel's choice is to be none of these.
      for (const port of endpoints.reserve)
        claimed.push(claimPort(dormant, { ...endpoints, port, purpose: RESERVED }, inherited));
    } catch (error) {
      // Whoever has them both has the main port above all.
      if (endpoints.port !== 0) claimPort(dormant, own, inherited).close();
      throw error;
    }
    return new PortSet(claimPort(targets, own, inherited), claimed);
  } catch (error) {
    for (const listener of claimed.reverse()) listener.close();
    throw error;
  }
}

/** What is claimed of one port. */
type Wanted = Pick<Endpoints, "port" | "scheme" | "backlog"> & {
  /** Said of the port when it can't be had. */
  readonly purpose: string;
};

const RESERVED = "; it is one of the ports to be reserved (reserve)";

/** How often a kernel-chosen port may turn out to be taken on a further host before that is an error. */
const MAX_PORT_CHOICES = 64;

function claimPort(targets: readonly Target[], wanted: Wanted, inherited: InheritedSockets): ExclusiveListener {
  const { port, backlog, scheme } = wanted;
  const misfit = inherited.findMisfit(targets, port);
  if (misfit !== null)
    throw bindFailed({ scheme, host: misfit.host, port: misfit.port }, misfit.reason + wanted.purpose, undefined);
  for (let choice = 1; ; choice++) {
    const claim = tryClaim(targets, port, backlog, inherited);
    if (claim instanceof ExclusiveListener) return claim;
    const taken = claim.failure.code === "EADDRINUSE";
    if (taken && port === 0 && choice < MAX_PORT_CHOICES) continue;
    throw taken ? portTaken(claim, wanted) : otherFailure(claim, wanted);
  }
}

interface Conflict {
  readonly host: string;
  readonly port: number;
  readonly failure: ReturnType<typeof systemError>;
}

/** All targets on one port, or none. */
function tryClaim(
  targets: readonly Target[],
  port: number,
  backlog: number,
  inherited: InheritedSockets,
): ExclusiveListener | Conflict {
  const claimed: Claimed[] = [];
  const skipped: SkippedAddress[] = [];
  for (const [index, target] of targets.entries()) {
    const at = claimed[0]?.socket.port ?? port;
    const adopted = inherited.adopt(target, at);
    if (adopted !== null && !isFailure(adopted)) {
      claimed.push({ target, ...adopted });
      continue;
    }
    const bound = adopted ?? bind(target, at, backlog);
    if (!isFailure(bound)) {
      claimed.push({ target, socket: bound, isListening: target.role === "listen", shared: false, giveBack: null });
      continue;
    }
    const failure = systemError(bound, `${target.host}:${at}`);
    const missing = failure.code === "EADDRNOTAVAIL" || failure.code === "EAFNOSUPPORT";
    // The last listener must be there, or nobody would ever be served.
    const alone = claimed.length === 0 && !targets.slice(index + 1).some(({ role }) => role !== "guard");
    if (missing && target.optional && !alone) {
      skipped.push({
        address: target.host,
        role: target.role === "guard" ? "guard" : "listen",
        reason: failure.message,
      });
      continue;
    }
    for (const { socket, giveBack } of claimed.reverse()) {
      native().closeSocket(socket.fd);
      giveBack?.();
    }
    return { host: target.host, port: at, failure };
  }
  return new ExclusiveListener(claimed, skipped, backlog);
}

function bind({ host, role, dualStack }: Target, port: number, backlog: number): BoundSocket | NativeFailure {
  return role === "listen"
    ? native().listen(host, port, backlog, dualStack)
    : native().guard(host, port, backlog, dualStack);
}

function portTaken({ host, port, failure }: Conflict, { scheme, purpose }: Wanted): GatewayLockError {
  const { use, listener } = findPortOwner(host, port);
  const who =
    listener.pid === null
      ? "a process that this user may not see, or that is just ending,"
      : `pid ${listener.pid} (${listener.command})`;
  const why =
    use === "connected"
      ? `; ${who} uses the port as the local end of a connection: ${EPHEMERAL_HINTS[process.platform] ?? "take another port"}`
      : use === null
        ? ""
        : `; ${who} has ${use === "listening" ? "it" : "it bound, and does not listen"}`;
  const cause = Object.assign(failure, { message: failure.message + why + purpose });
  return alreadyListening({ scheme, host, port }, { cause, listener });
}

/** How to keep a port from being used for outgoing connections. */
const EPHEMERAL_HINTS: { readonly [platform: string]: string } = {
  linux: "take a port outside net.ipv4.ip_local_port_range, or reserve it in net.ipv4.ip_local_reserved_ports",
  darwin: "take a port outside net.inet.ip.portrange.first to last (sysctl)",
  win32: "take a port outside what `netsh int ipv4 show dynamicport tcp` shows",
};

/** Who is denied a port. */
const DENIED_HINTS: { readonly [platform: string]: string } = {
  linux: "; a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE",
  darwin: "; a port below 1024 on an address other than 0.0.0.0 needs root",
  win32:
    "; the port may lie in a range that Windows keeps for Hyper-V and others: look at `netsh int ipv4 show excludedportrange protocol=tcp`",
};

const BIND_HINTS: Readonly<Record<string, string>> = {
  EACCES: DENIED_HINTS[process.platform] ?? "",
  EADDRNOTAVAIL: "; this host does not have that address",
  EMFILE: "; raise the limit of open files (ulimit -n)",
  EINVAL: "; a link-local address needs its zone, as in fe80::1%eth0",
  EAFNOSUPPORT: "; this host does not have that address family",
};

function otherFailure({ host, port, failure }: Conflict, { scheme, purpose }: Wanted): GatewayLockError {
  return bindFailed({ scheme, host, port }, `${failure.message}${BIND_HINTS[failure.code] ?? ""}${purpose}`, failure);
}
