// The doctor's checks of the port: who has it, on which addresses, and whether the kernel may give it away.

import { readFileSync } from "node:fs";
import { rangesOf } from "../../errors.ts";
import { targetsFor } from "../../listener/addresses.ts";
import { findListeners, findListenersOn, findPortOwner, type SeenListener } from "../../listener/port-owner.ts";
import { isFailure, native } from "../../native.ts";
import { DEFAULT_PORT } from "../../options.ts";
import { derivedFrom, derivedPorts, LAST_PORT } from "../../profile/profile.ts";
import type { Picture } from "../look.ts";
import { readEphemeralRange } from "./ephemeral-range.ts";
import { type Answer, answer, type Problem, type Scene, unchecked } from "./scene.ts";

const NO_PORT: Answer = answer(["the kernel chooses the port at the start"]);
const WILDCARDS: readonly string[] = ["0.0.0.0", "::"];
const LOOK = "look as root, or as the gateway's user";
const SETTLE = "give the gateway another port, or stop that process";
const NAME_OR_SETTLE = `if it is a gateway of another state directory, name that (--state-dir); otherwise ${SETTLE}`;

/** The port in question; `null` while the kernel has not chosen it. */
function portOf(options: Scene["options"], owner: Picture["owner"]): number | null {
  return options.port || owner?.port || (options.port === 0 ? null : DEFAULT_PORT);
}

interface Place {
  readonly port: number;
  readonly picture: Picture;
  /** Whether a listener is one of those who hold the lock. `null` where that can't be seen. */
  readonly isOwner: (listener: { readonly pid: number | null }) => boolean | null;
  /** Or descends from one: a gateway's browser has ports of its own. */
  readonly isOfOwner: Place["isOwner"];
}

async function placeOf({ options, picture }: Scene): Promise<Place | null> {
  const seen = await picture();
  const port = portOf(options, seen.owner);
  if (port === null) return null;
  const isHeld = seen.locked !== false;
  const isHidden = isHeld && seen.holders.length === 0;
  // A socket whose process is hidden belongs to none that is seen.
  const isShown = !isFailure(native().findPortSockets(port, "listening"));
  const judge =
    (belongs: (pid: number) => boolean): Place["isOwner"] =>
    ({ pid }) => {
      if (pid === null) return isHeld && (isHidden || !isShown) ? null : false;
      // On Linux a socket's process is known by its descriptors, and so every lock that it has is seen too.
      return belongs(pid) || (isHidden && process.platform !== "linux" ? null : false);
    };
  return {
    port,
    picture: seen,
    isOwner: judge((pid) => seen.holders.includes(pid)),
    isOfOwner: judge((pid) => descendsFrom(pid, seen.holders)),
  };
}

function descendsFrom(pid: number, ancestors: readonly number[]): boolean {
  const seen = new Set<number>();
  for (let current = pid; current > 0 && !seen.has(current); current = parentOf(current)) {
    if (ancestors.includes(current)) return true;
    seen.add(current);
  }
  return false;
}

/** Field 4 of proc_pid_stat(5); 0 where it can't be told. */
function parentOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return 0;
  }
}

function describe({ pid, command }: Pick<SeenListener, "pid" | "command">): string {
  if (pid === null) return "a process that this user can't see";
  return command === null ? `pid ${pid}` : `pid ${pid} (${command})`;
}

function at(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Whether the port is the gateway's, or free. */
export async function checkPortOwner(scene: Scene): Promise<Answer> {
  const place = await placeOf(scene);
  if (place === null) return NO_PORT;
  const { port, isOwner, picture } = place;
  const hosts = targetsFor(scene.options.hosts, false).map(({ host }) => host);
  const listeners = await findListeners(hosts, port, picture.holders);
  const strangers = listeners.filter((listener) => isOwner(listener) === false);
  if (strangers.length > 0)
    return answer(
      [],
      strangers.map((stranger) => heldBy(stranger, picture.locked)),
    );
  const hidden = listeners.find((listener) => isOwner(listener) === null);
  if (hidden !== undefined) {
    return unchecked(
      `${describe(hidden)} listens on ${at(hidden.address, port)}; who holds the lock can't be seen`,
      LOOK,
    );
  }
  const [listener] = listeners;
  if (listener !== undefined) return answer([`${describe(listener)} listens on port ${port} and holds the lock`]);
  for (const host of hosts) {
    const { use, listener: other } = findPortOwner(host, port, picture.holders);
    if (use === null || isOwner(other) !== false) continue;
    const how = use === "bound" ? "has it bound without listening" : "uses it as its own end of a connection";
    return answer([], [{ evidence: `${describe(other)} ${how}: ${at(host, port)}`, next: SETTLE }]);
  }
  return answer([`nobody listens on port ${port}`]);
}

function heldBy(stranger: SeenListener, isLocked: boolean | null): Problem {
  const lock =
    isLocked === null
      ? "and whether another process holds the lock can't be seen from here"
      : isLocked
        ? "while another process holds the lock"
        : "and is no gateway of ours: nobody holds the lock";
  return {
    evidence: `${describe(stranger)} listens on ${at(stranger.address, stranger.port)}, ${lock}`,
    next: isLocked ? SETTLE : NAME_OR_SETTLE,
  };
}

/** Whether a stranger has the port on the other loopback family, where clients that connect to "localhost" may end. */
export async function checkLoopback(scene: Scene): Promise<Answer> {
  const place = await placeOf(scene);
  if (place === null) return NO_PORT;
  const { port, isOwner, picture } = place;
  const targets = targetsFor(scene.options.hosts, true);
  const guards = targets.filter(({ role }) => role === "guard").map(({ host }) => host);
  if (guards.length === 0) return answer(["the hosts leave no loopback open"]);
  const main = targets.find(({ role }) => role === "listen")?.host ?? "";
  const problems: Problem[] = [];
  let hidden: string | null = null;
  for (const host of guards) {
    const listeners: Pick<SeenListener, "pid" | "command">[] = await findListeners([host], port, picture.holders);
    const other = findPortOwner(host, port, picture.holders);
    if (listeners.length === 0 && other.use === "bound") listeners.push(other.listener);
    if (listeners.some((listener) => isOwner(listener) === null)) hidden = at(host, port);
    for (const stranger of listeners.filter((listener) => isOwner(listener) === false)) {
      problems.push({
        evidence: `${describe(stranger)} has ${at(host, port)}, the other loopback of ${main}: who connects to "localhost" may meet it`,
        next: SETTLE,
      });
    }
  }
  if (problems.length === 0 && hidden !== null)
    return unchecked(`whether the one who has ${hidden} is the gateway can't be seen by this user`, LOOK);
  const unguarded = scene.options.loopbackGuard ? "" : "; loopbackGuard is off: anybody may take it";
  return answer([`no stranger has port ${port} on ${guards.join(", ")}${unguarded}`], problems);
}

/** Whether anybody listens for the whole network on the port. */
export async function checkWildcard(scene: Scene): Promise<Answer> {
  const place = await placeOf(scene);
  if (place === null) return NO_PORT;
  const { port, isOwner, picture } = place;
  const open = (await findListeners(WILDCARDS, port, picture.holders)).filter(({ address }) =>
    WILDCARDS.includes(address),
  );
  const problems = open.map((listener): Problem => {
    const who = isOwner(listener) ? `the gateway, ${describe(listener)},` : describe(listener);
    return {
      evidence: `${who} listens on every address of this host (${at(listener.address, port)})`,
      next: isOwner(listener) ? "choose the host 127.0.0.1 or localhost, unless the network is to reach it" : SETTLE,
    };
  });
  const asked = scene.options.hosts.find((host) => WILDCARDS.includes(host));
  if (problems.length === 0 && asked !== undefined) {
    problems.push({
      evidence: `the host ${asked} makes the gateway listen on every address of this host`,
      next: "choose the host 127.0.0.1 or localhost, unless the network is to reach it",
    });
  }
  return answer([`nobody listens on every address with port ${port}`], problems);
}

/** Whether the kernel may give the port to some client's connection before the gateway gets it. */
export async function checkEphemeralRange({ options, readings, reserve }: Scene): Promise<Answer> {
  const owner = readings.find(({ record }) => record !== null)?.record ?? null;
  const port = portOf(options, owner);
  const range = await readEphemeralRange();
  if (range === null) return unchecked("the system does not say which ports it gives to clients", null);
  const { first, last, reserved } = range;
  const name = `${first}-${last}`;
  const inside = [port ?? 0, ...reserve].filter(
    (one) => one >= first && one <= last && !reserved.some(([from, to]) => one >= from && one <= to),
  );
  return answer(
    [`${port === null ? "the kernel chooses the port" : `port ${port} is never given to clients`} (those get ${name})`],
    inside.map((one) => ({
      evidence: `port ${one} is one that the kernel gives to clients' connections (${name}): it can be taken when the gateway starts`,
      next:
        process.platform === "linux"
          ? `choose a port below ${first}, or run sysctl -w net.ipv4.ip_local_reserved_ports=${one}`
          : `choose a port below ${first}`,
    })),
  );
}

/** Whether somebody has a port that follows from the gateway's, or that it is to reserve. */
export async function checkDerivedPorts(scene: Scene): Promise<Answer> {
  const place = await placeOf(scene);
  if (place === null) return NO_PORT;
  const { port, isOfOwner, picture } = place;
  const derived = derivedFrom(port);
  const hosts = targetsFor(scene.options.hosts, true).map(({ host }) => host);
  const problems: Problem[] = [];
  const hidden: number[] = [];
  const strangers = new Map<string, number[]>();
  const judge = (who: Pick<SeenListener, "pid" | "command">, at: number, does: string) => {
    const isOurs = isOfOwner(who);
    if (isOurs === null) hidden.push(at);
    if (isOurs !== false) return;
    const words = `${describe(who)} ${does}`;
    strangers.set(words, [...(strangers.get(words) ?? []), at]);
  };
  const ports = new Set([...derivedPorts(derived), ...scene.reserve]);
  for (const listener of await findListenersOn(hosts, [...ports], picture.holders))
    judge(listener, listener.port, "listens on");
  // Only a port that is to be bound is taken by somebody who does not listen.
  const listenedOn = new Set([...strangers.values()].flat());
  for (const reserved of scene.reserve) {
    if (listenedOn.has(reserved)) continue;
    for (const host of hosts) {
      const { use, listener } = findPortOwner(host, reserved, picture.holders);
      if (use === "bound") judge(listener, reserved, "has bound, without listening,");
    }
  }
  for (const [words, taken] of strangers) {
    const isReserved = taken.some((one) => scene.reserve.includes(one));
    problems.push({
      evidence: `${words} ${rangesOf(taken)}, ${isReserved ? "which the gateway is to reserve" : `derived from ${port}`}`,
      next: isReserved
        ? "stop that process, or give the gateway another port, or other ports to reserve"
        : "stop that process, or give the gateway another port; leave it if nothing of yours uses derived ports",
    });
  }
  if (problems.length === 0 && hidden.length > 0)
    return unchecked(
      `whether those who have them belong to the gateway can't be seen by this user: ${rangesOf(hidden)}`,
      LOOK,
    );
  if (derived.cdp[1] > LAST_PORT)
    problems.push({
      evidence: `port ${port} leaves no room for all derived ports: they end at ${derived.cdp[1]}`,
      next: `choose a port up to ${LAST_PORT - 110}`,
    });
  const others = scene.reserve.filter((one) => !derivedPorts(derived).includes(one));
  const more = others.length === 0 ? "" : `, nor on ${rangesOf(others)}`;
  return answer([`nobody else listens on ${derived.browserControl} or ${derived.cdp.join("-")}${more}`], problems);
}
