// Proves that the sockets on a port are found also where the kernel's socket dump is refused, and which process has each of them.

import { once } from "node:events";
import { connect, createServer } from "node:net";
import { constants } from "node:os";
import { expect, onTestFinished } from "vitest";
import { type BoundSocket, isFailure, native, type PortSocket, type PortUse } from "../../lib/native.ts";
import { type Caller, startCaller } from "../support/calls.ts";
import { hasIPv6, hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { connectTo } from "../support/listener-tools.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort } from "../support/temporary.ts";

const NETLINK = 16; // AF_NETLINK
const { EADDRINUSE } = constants.errno;
const it = itWhere(isLinux, "needs Linux");
const itWithIPv6 = itWhere(isLinux && hasIPv6, "needs IPv6");
const itWithSandbox = itWhere(isLinux && hasPython && hasIPv6, "needs python3 and IPv6");

function listen(host: string, port: number, dualStack = false): BoundSocket {
  const made = native().listen(host, port, 5, dualStack);
  if (isFailure(made)) throw new Error(JSON.stringify(made));
  onTestFinished(() => native().closeSocket(made.fd));
  return made;
}

function inOrder(sockets: readonly PortSocket[]): PortSocket[] {
  const keyOf = ({ family, address, id }: PortSocket) => `${family} ${address} ${id}`;
  return sockets.toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
}

/** What netlink says in this process. */
function find(port: number, use: PortUse): PortSocket[] {
  const found = native().findPortSockets(port, use);
  if (isFailure(found)) throw new Error(JSON.stringify(found));
  return inOrder(found);
}

/** A process that may not ask netlink: what systemd's RestrictAddressFamilies, a seccomp profile and an old kernel answer. */
function startSandboxed(error: string, call: string): Promise<Caller> {
  return startCaller(["python3", fixturePath("refused-call.py"), error, call]);
}

for (const [error, call] of [
  ["EAFNOSUPPORT", `socket:${NETLINK}`],
  ["EPERM", `socket:${NETLINK}`],
  ["EPROTONOSUPPORT", `socket:${NETLINK}`],
  ["EACCES", "sendto"],
  ["ENOENT", "sendto"],
] as const) {
  itWithSandbox(`finds the same sockets where ${call.split(":")[0]}() for netlink says ${error}`, async () => {
    const port = await freePort();
    const sandboxed = await startSandboxed(error, call);
    const see = async (use: PortUse) => inOrder(await sandboxed.call("findPortSockets", port, use));
    expect(await see("listening")).toEqual([]);

    listen("127.0.0.1", port);
    listen("127.0.0.2", port);
    listen("::1", port);
    const listening = find(port, "listening");
    expect(listening.map(({ address, family }) => `${family} ${address}`)).toEqual([
      "IPv4 127.0.0.1",
      "IPv4 127.0.0.2",
      "IPv6 ::1",
    ]);
    // The files do not say it; then it may take IPv4.
    expect(await see("listening")).toEqual(listening.map((socket) => ({ ...socket, v6only: false })));

    const client = await connectTo({ host: "::1", port });
    const from = client.localPort ?? 0;
    expect(await sandboxed.call("findPortSockets", from, "connected")).toEqual(
      find(from, "connected").map((socket) => ({ ...socket, v6only: false })),
    );
    expect(await sandboxed.call("findPortSockets", from, "listening")).toEqual([]);
  });
}

itWithSandbox("takes a wildcard for one of both families where the files do not say", async () => {
  const [both, alone] = [await freePort(), await freePort()];
  listen("::", both, true);
  listen("::", alone, false);
  const sandboxed = await startSandboxed("EAFNOSUPPORT", `socket:${NETLINK}`);
  for (const port of [both, alone]) {
    const [netlink] = find(port, "listening");
    expect(netlink).toMatchObject({ address: "::", v6only: port === alone });
    expect(await sandboxed.call("findPortSockets", port, "listening")).toEqual([{ ...netlink, v6only: false }]);
  }
});

itWithSandbox("spells every address as netlink does", async () => {
  const sandboxed = await startSandboxed("EPERM", `socket:${NETLINK}`);
  for (const host of ["127.1.2.3", "0.0.0.0", "::1", "::"]) {
    const port = await freePort();
    listen(host, port);
    const [{ address }] = await sandboxed.call("findPortSockets", port, "listening");
    expect(address).toBe(find(port, "listening")[0]?.address);
    expect(address).toBe(host);
  }
});

itWithSandbox("refuses a port as well there as anywhere, and says who has it", async () => {
  const port = await freePort();
  listen("127.0.0.1", port);
  const script = `
    import { bindExclusive } from ${JSON.stringify(fixturePath("../../dist/index.js"))};
    try { bindExclusive({ host: "127.0.0.1", port: ${port} }); }
    catch ({ code, cause, listener }) { console.log(JSON.stringify({ event: "refused", code, errno: cause.errno, listener })); }
  `;
  const refusing = [fixturePath("refused-call.py"), "EAFNOSUPPORT", `socket:${NETLINK}`];
  const contender = new TestProcess("python3", [...refusing, process.execPath, "--input-type=module", "-e", script]);
  expect(await contender.next("refused")).toMatchObject({
    code: "ALREADY_LISTENING",
    errno: -EADDRINUSE,
    listener: { pid: process.pid },
  });
});

itWithIPv6("names the owners of many sockets in one walk, in their order, and nobody for what nobody has", async () => {
  const other = await startCaller();
  const port = await freePort();
  listen("127.0.0.1", port);
  const theirs = await other.call("listen", "::1", port, 5, false);
  expect(theirs).toMatchObject({ port });
  const ids = find(port, "listening").map(({ id }) => id);
  const NOBODY = 2 ** 40;
  expect(native().findSocketOwners([...ids, 0, NOBODY, ...ids], [])).toEqual([
    ...[process.pid, other.pid, null, null],
    ...[process.pid, other.pid],
  ]);
  expect(native().findSocketOwners([], [])).toEqual([]);
  expect(native().findSocketOwners(ids, [other.pid, process.pid, 1])).toEqual([process.pid, other.pid]);
});

it("has no owner for a connection that waits in the queue, and one once it is accepted", async () => {
  const server = createServer({ pauseOnConnect: true });
  const { fd, port } = listen("127.0.0.1", 0);
  const client = connect({ port, host: "127.0.0.1" });
  onTestFinished(() => void client.destroy());
  await once(client, "connect");
  const queued = find(port, "connected");
  expect(queued).toMatchObject([{ address: "127.0.0.1", id: 0 }]);
  expect(native().findSocketOwners([queued[0]?.id ?? -1], [])).toEqual([null]);
  const accepted = once(server, "connection");
  server.listen({ fd });
  const [socket] = await accepted;
  onTestFinished(() => void socket.destroy());
  onTestFinished(() => void server.close());
  const [served] = find(port, "connected");
  expect(native().findSocketOwners([served?.id ?? 0], [])).toEqual([process.pid]);
});

itWithIPv6("finds the one socket that a client would reach", async () => {
  const reach = (address: string, port: number) => {
    const found = native().findListener(address, port);
    return isFailure(found) ? found.errno : found;
  };
  const { ENOENT, ENOTSUP } = constants.errno;
  const port = await freePort();
  expect([reach("127.0.0.1", port), reach("::1", port)]).toEqual([ENOENT, ENOENT]);

  const everywhere = listen("::", port, true);
  const [both] = find(port, "listening");
  expect(reach("127.0.0.1", port)).toEqual(both);
  expect(reach("::1", port)).toEqual(both);

  // Somebody who is connected there, by that port as his own, does not listen.
  const client = await connectTo({ host: "127.0.0.1", port });
  expect(reach("127.0.0.1", client.localPort ?? 0)).toBe(ENOENT);
  client.destroy();
  native().closeSocket(everywhere.fd);

  const other = await freePort();
  listen("127.0.0.1", other);
  listen("127.0.0.2", other);
  expect(reach("127.0.0.2", other)).toMatchObject({ address: "127.0.0.2" });
  expect([reach("127.0.0.3", other), reach("::1", other)]).toEqual([ENOENT, ENOENT]);
  expect(reach("fe80::1%eth0", other), "what is no plain address").toBe(ENOTSUP);
});
