// Claims, rivals and clients for the tests of ports: each is closed or reaped when its test ends.

import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { get as httpGet } from "node:http";
import { connect, createServer, type Server, type Socket, type TcpNetConnectOpts } from "node:net";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { GatewayLockError } from "../../lib/errors.ts";
import type { Gateway } from "../../lib/gateway.ts";
import { bindExclusive } from "../../lib/listener/claim.ts";
import type { ExclusiveListener } from "../../lib/listener/exclusive-listener.ts";
import type { GatewayOptions, ListenerOptions } from "../../lib/options.ts";
import { hasIPv6 } from "./capabilities.ts";
import { fixturePath, TestProcess } from "./processes.ts";
import { temporaryDirectory } from "./temporary.ts";

export const hasOpenssl: boolean = spawnSync("openssl", ["version"], { stdio: "ignore" }).status === 0;

let certificate: { key: string; cert: string } | undefined;

/** A self-signed certificate for this run. */
export function selfSigned(): { key: string; cert: string } {
  if (certificate !== undefined) return certificate;
  const directory = temporaryDirectory();
  const [keyFile, certFile] = [join(directory, "key.pem"), join(directory, "cert.pem")];
  execFileSync(
    "openssl",
    // biome-ignore format: one option a word
    ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
      "-subj", "/CN=localhost", "-keyout", keyFile, "-out", certFile],
    { stdio: "ignore" },
  );
  certificate = { key: readFileSync(keyFile, "utf8"), cert: readFileSync(certFile, "utf8") };
  return certificate;
}

/** A network namespace of our own in which IPv6 is off: what is started with it has 127.0.0.1 and nothing else. */
export const WITHOUT_IPV6: readonly string[] = [
  "unshare",
  "--user",
  "--map-root-user",
  "--net",
  "sh",
  "-c",
  'ip link set lo up && sysctl -qw net.ipv6.conf.all.disable_ipv6=1 && exec "$@"',
  "sh",
];
export const canTurnIPv6Off: boolean =
  spawnSync(WITHOUT_IPV6[0] ?? "", [...WITHOUT_IPV6.slice(1), "true"], { stdio: "ignore" }).status === 0;

/** A gateway in this process, on a state directory of its own; closed when the test ends. */
export async function claim(options: Partial<GatewayOptions>): Promise<Gateway> {
  const gateway = await acquireGateway({ stateDir: temporaryDirectory(), ...options });
  onTestFinished(() => gateway.close({ force: true }));
  return gateway;
}

/** A bound port in this process, given back when the test ends. */
export function bound(options: ListenerOptions): ExclusiveListener {
  const listener = bindExclusive(options);
  onTestFinished(() => listener.close());
  return listener;
}

/** What `action` throws or rejects with; anything but a GatewayLockError is thrown on. */
export async function refusalOf(action: () => unknown): Promise<GatewayLockError> {
  try {
    await action();
  } catch (error) {
    if (error instanceof GatewayLockError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

export interface Attempts {
  readonly won: string[];
  readonly errors: string[];
}

/** A python process that tries to get ports; see test/fixtures/listener-rival.py for its commands. */
export class Rival extends TestProcess {
  constructor() {
    super("python3", [fixturePath("listener-rival.py")]);
  }

  /** The answer to one command: its event has the command's name. */
  async ask(command: string): Promise<Record<string, unknown>> {
    this.send(command);
    return await this.next(command.split(" ")[0] ?? "");
  }

  /**
   * A port that has not even a dead connection left on it, so that the strictest bind gets it: those of freePort() are
   * used again within a minute. Outside its range and below the ephemeral one.
   */
  async unusedPort(): Promise<number> {
    for (let tries = 0; tries < 100; tries++) {
      const port = 10_000 + Math.floor(Math.random() * 8_000);
      const { error } = await this.ask(`try ${hasIPv6 ? "::" : "0.0.0.0"} ${port} strict`);
      if (error === null) return port;
    }
    throw new Error("no unused port from 10000 to 18000");
  }

  /** What became of all 24 variants of bind and listen on `port`: two families, specific or not, all flags. */
  async attempt(port: number): Promise<Attempts & { tried: number }> {
    const { tried, won, errors } = await this.ask(`attempt ${port}`);
    return { tried, won, errors } as Attempts & { tried: number };
  }

  async rest(): Promise<Attempts & { rounds: number }> {
    const { rounds, won, errors } = await this.ask("rest");
    return { rounds, won, errors } as Attempts & { rounds: number };
  }
}

/** What a rival gets that is refused every variant. */
export const ALL_REFUSED: Attempts & { tried: number } = {
  tried: 24,
  won: [],
  errors: hasIPv6 ? ["EADDRINUSE"] : ["EADDRINUSE", "EADDRNOTAVAIL"],
};

/** A connection, open; destroyed when the test ends. Its errors are nobody's business unless the test listens. */
export async function connectTo(options: TcpNetConnectOpts): Promise<Socket> {
  const socket = connect(options);
  onTestFinished(() => {
    socket.destroy();
  });
  await once(socket, "connect");
  socket.on("error", () => {});
  return socket;
}

/** Whether somebody accepts on `host`:`port`: null, or the code of the refusal. */
export async function refusalToConnect(port: number, host: string): Promise<string | null> {
  const socket = connect({ port, host });
  try {
    await once(socket, "connect");
    return null;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    socket.destroy();
  }
}

/** The body of one answer, over a connection of its own. */
export async function bodyOf(port: number, host = "127.0.0.1", path = "/"): Promise<string> {
  const request = httpGet({ port, host, path, agent: false, headers: { connection: "close" } });
  const [response] = await once(request, "response");
  let body = "";
  for await (const chunk of response.setEncoding("utf8")) body += chunk;
  return body;
}

/** A client that stays: it has had an answer, and keeps its half of the connection open whatever the server does. */
export async function lingeringClient(port: number, host: string, upgrade: boolean): Promise<Socket> {
  const socket = await connectTo({ port, host, allowHalfOpen: true });
  const request = upgrade
    ? "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    : "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
  socket.write(request);
  await once(socket, "data");
  socket.resume();
  return socket;
}

/** A plain net server on a port of the kernel's choice, closed with its connections when the test ends. */
export async function startSink(): Promise<number> {
  const server = createServer();
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket.on("error", () => {})));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as { port: number }).port;
}

const UNTIL_DEADLINE = 15_000; // ms; only reached when something is wrong

/** Resolves when `test` says so; asks again whenever the event loop comes round. */
export async function until(test: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + UNTIL_DEADLINE;
  while (!(await test())) {
    if (performance.now() > deadline) throw new Error(`not within ${UNTIL_DEADLINE} ms: ${test}`);
    await new Promise(setImmediate);
  }
}

/** Closes `server` and resolves when its last connection has ended. */
export async function stop(server: Server): Promise<void> {
  await new Promise<void>((resolve) => server.close(() => resolve()));
}

export async function connectionsOf(server: Server): Promise<number> {
  return await new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
  );
}

/** The sockets that this process has open, and whether a child process would inherit them. */
export function openSockets(): Map<string, { inherited: boolean }> {
  const sockets = new Map<string, { inherited: boolean }>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      if (!target.startsWith("socket:")) continue;
      const [, flags = "0"] = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8")) ?? [];
      const O_CLOEXEC = 0o2000000;
      sockets.set(`${fd} ${target}`, { inherited: (Number.parseInt(flags, 8) & O_CLOEXEC) === 0 });
    } catch {
      // A descriptor of readdir's own, closed by now.
    }
  }
  return sockets;
}
