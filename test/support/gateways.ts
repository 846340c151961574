// What tests of whole gateways share: strangers with a lock or a port, records by other programs, and what is left behind.

import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import { GatewayLockError } from "../../lib/errors.ts";
import type { Gateway } from "../../lib/gateway.ts";
import { encodeRecord, type OwnerFields } from "../../lib/lock/record.ts";
import { native } from "../../lib/native.ts";
import type { GatewayOptions } from "../../lib/options.ts";
import { flockCommandGets } from "./locks.ts";
import { TestProcess } from "./processes.ts";

/** A gateway in this process, closed when the test ends. */
export async function acquire(options: GatewayOptions): Promise<Gateway> {
  const gateway = await acquireGateway(options);
  onTestFinished(() => gateway.close({ force: true }));
  return gateway;
}

/** The error of a gateway that must not be had. */
export async function refusalOf(options: GatewayOptions): Promise<GatewayLockError> {
  const gateway = await acquireGateway(options).catch((error: unknown) => {
    if (error instanceof GatewayLockError) return error;
    throw error;
  });
  if (gateway instanceof GatewayLockError) return gateway;
  await gateway.close({ force: true });
  throw new Error("it was not refused");
}

/** flock(1) with the lock on `path`: one process, which ends when it is killed or its standard input ends. */
export async function holdWithFlock(path: string): Promise<TestProcess> {
  const holder = new TestProcess("flock", ["-n", "-F", path, "sh", "-c", "echo held; exec cat"]);
  await holder.next("text");
  return holder;
}

export async function listenOn(port: number, host = "127.0.0.1"): Promise<Server> {
  const server = createServer((socket) => socket.on("error", () => {}));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen({ port, host, exclusive: true }, resolve);
  });
  onTestFinished(() => {
    server.close();
  });
  return server;
}

export async function isPortFree(port: number, host = "127.0.0.1"): Promise<"free" | string> {
  const server = createServer();
  return await new Promise((resolve) => {
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? String(error)));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve("free")));
  });
}

/** Field 22 of proc_pid_stat(5). */
export function startTimeOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
}

/** The fields of a record by a process here and now; the test says what is wrong with it. */
export function ownerFields(fields: Partial<OwnerFields> & { pid: number }): OwnerFields {
  const port = fields.port ?? 1;
  return {
    startTime: null,
    ownerId: "7a3b0f0e-0000-4000-8000-000000000000",
    createdAt: "2026-01-01T00:00:00.000Z",
    configPath: "/somewhere/gateway.json",
    stateDir: "/somewhere",
    port,
    host: "127.0.0.1",
    url: `ws://127.0.0.1:${port}`,
    phase: "ready",
    hostname: "here",
    ...native().identifyHost(),
    supervisor: null,
    runtime: "node 20.0.0",
    version: "0.1.0",
    configLock: "exclusive",
    metadata: {},
    ...fields,
  };
}

/** A record as a gateway-lock writes it. */
export function recordOf(fields: Partial<OwnerFields> & { pid: number }): Buffer {
  return encodeRecord(ownerFields(fields)).bytes;
}

/** A pid that nobody has. */
export async function deadPid(): Promise<number> {
  const process = new TestProcess("true", []);
  await process.exited;
  return process.pid;
}

export function lockFilesIn(directory: string): string[] {
  try {
    return readdirSync(join(directory, "locks"));
  } catch {
    return [];
  }
}

/** Nothing of a refused contender is left: no lock on the state directory, no lock file but `files`. */
export function expectNothingLeft(stateDir: string, files: readonly string[] = []): void {
  expect(lockFilesIn(stateDir)).toEqual(files);
  expect(flockCommandGets(stateDir)).toBe("granted");
}
