// Which sockets a gateway needs for its hosts: where it listens, and what it keeps rivals off.

import { net } from "../builtins.ts";

/** An interface's name (IFNAMSIZ, netdevice(7)) or number. Node takes any text for a zone, escape sequences too. */
const ZONE = /^[\w.:@-]{1,15}$/;

/** An IPv4 address in IPv6's clothes is the same port to the kernel (RFC 4291, 2.5.5.2). */
const MAPPED = "::ffff:";

export function isIPv4(text: string): boolean {
  return net().isIPv4(text);
}

/** One socket to bind. */
export interface Target {
  readonly host: string;
  /** `reserved` listens only while somebody serves it. */
  readonly role: "listen" | "reserved" | "guard";
  /** An IPv6 wildcard that takes the IPv4 port too. */
  readonly dualStack: boolean;
  /** One half of `localhost`, or a guard: a host without that family has no rivals there either. */
  readonly optional: boolean;
}

const LOOPBACK_V4 = "127.0.0.1";
const LOOPBACK_V6 = "::1";
const ANY_V4 = "0.0.0.0";
const ANY_V6 = "::";

/** The sockets for `hosts` (each in its one spelling), in order: listeners first, then guards. An address that another one covers is left out. */
export function targetsFor(hosts: readonly string[], loopbackGuard: boolean): readonly Target[] {
  const wanted = hosts.flatMap((host) =>
    host === "localhost"
      ? [LOOPBACK_V4, LOOPBACK_V6].map((half) => ({ host: half, optional: true }))
      : [{ host, optional: false }],
  );
  const named = new Set(wanted.map(({ host }) => host));
  // The IPv6 wildcard takes the IPv4 port too, as everywhere in Node; only beside the other wildcard there is no need.
  const dualStack = !named.has(ANY_V4);
  const isCovered = (host: string) =>
    host !== ANY_V4 &&
    host !== ANY_V6 &&
    (named.has(isIPv4(host) ? ANY_V4 : ANY_V6) || (dualStack && named.has(ANY_V6)));
  const listeners = [...named]
    .filter((host) => !isCovered(host))
    .map((host): Target => {
      // An address that is named outright must be there, even if `localhost` names it too.
      const optional = wanted.every((one) => one.host !== host || one.optional);
      return { host, role: "listen", dualStack: dualStack && host === ANY_V6, optional };
    });
  const guards = loopbackGuard ? guardsFor(listeners.map(({ host }) => host)) : [];
  return [...listeners, ...guards];
}

/** For a loopback listener the other family's loopback, unless something listens there already. */
function guardsFor(hosts: readonly string[]): Target[] {
  const guard = (host: string): Target => ({ host, role: "guard", dualStack: false, optional: true });
  const guards: Target[] = [];
  if (hosts.some(isLoopbackV4) && !hosts.some((host) => host === LOOPBACK_V6 || host === ANY_V6))
    guards.push(guard(LOOPBACK_V6));
  if (hosts.includes(LOOPBACK_V6) && !hosts.some((host) => host === LOOPBACK_V4 || host === ANY_V4))
    guards.push(guard(LOOPBACK_V4));
  return guards;
}

export function isLoopbackV4(host: string): boolean {
  return isIPv4(host) && host.startsWith("127.");
}

/**
 * One spelling for each address: `0:0:0:0:0:0:0:1` is `::1`. `null` for what is no address.
 *
 * isIPv6 of node:net would do for the latter, but compiling its regular expression takes 5 ms at the first call.
 */
export function parseAddress(host: string): string | null {
  if (isIPv4(host)) return host;
  const [address = host, zone] = host.split(/%(.*)/s);
  if ((zone !== undefined && !ZONE.test(zone)) || !address.includes(":")) return null;
  try {
    const { address: short } = new (net().SocketAddress)({ address, family: "ipv6" });
    if (short.startsWith(MAPPED) && isIPv4(short.slice(MAPPED.length))) return short.slice(MAPPED.length);
    return zone === undefined ? short : `${short}%${zone}`;
  } catch {
    return null;
  }
}

/** The one spelling of what is known to be an address. */
export function canonical(host: string): string {
  return parseAddress(host) ?? host;
}

/** Where a client on this host reaches who listens on `host`: a wildcard at its loopback. */
export function reachable(host: string): string {
  const address = canonical(host);
  return address === ANY_V4 ? LOOPBACK_V4 : address === ANY_V6 ? LOOPBACK_V6 : address;
}

/** Whether a socket bound to `address` can receive what is sent to `host`, or keeps it from being bound. */
export function overlaps(host: string, other: { address: string; family: "IPv4" | "IPv6"; v6only: boolean }): boolean {
  const mine = canonical(host);
  const [theirs = other.address] = canonical(other.address).split("%");
  if (isIPv4(mine)) {
    if (isIPv4(theirs)) return mine === ANY_V4 || theirs === ANY_V4 || theirs === mine;
    return theirs === ANY_V6 && !other.v6only;
  }
  if (mine === ANY_V6) return true;
  return theirs === ANY_V6 || theirs === mine.split("%")[0];
}
