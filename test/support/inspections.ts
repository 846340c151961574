// What tests of inspection share: parts of gateways in processes of their own, and what a look leaves behind.

import type { SpawnOptions } from "node:child_process";
import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import type { GatewayReport } from "../../lib/inspect/report.ts";
import { inspectGateway } from "../../lib/inspect/status.ts";
import type { InspectOptions } from "../../lib/options.ts";
import { type FixtureEvent, fixturePath, startGateway, TestProcess } from "./processes.ts";

/** A process of test/fixtures/inspect-owner.mjs. */
export class PartialOwner {
  readonly process: TestProcess;

  constructor(options: unknown, prefix: readonly string[] = []) {
    const [command = "", ...args] = [...prefix, process.execPath, fixturePath("inspect-owner.mjs")];
    this.process = new TestProcess(command, [...args, JSON.stringify({ options })]);
  }

  get pid(): number {
    return this.process.pid;
  }

  async do(command: string, fields: object = {}): Promise<FixtureEvent> {
    this.process.send(JSON.stringify({ command, ...fields }));
    return await this.process.next("done");
  }
}

/** A process that has taken the locks and no more. */
export async function startHolder(options: unknown): Promise<PartialOwner> {
  const owner = new PartialOwner(options);
  await owner.do("lock");
  return owner;
}

/** The same in another network namespace. */
export async function startElsewhere(options: unknown): Promise<PartialOwner> {
  const owner = new PartialOwner(options, ["unshare", "--user", "--map-root-user", "--net"]);
  await owner.do("lock");
  return owner;
}

/** A gateway in a process of its own, that serves /healthz and says that it is ready. */
export async function startReady(options: unknown): Promise<TestProcess & { readonly port: number }> {
  const gateway = startGateway(options);
  const { event, port, message } = await gateway.next("acquired", "refused");
  if (event === "refused") throw new Error(`refused: ${message}`);
  await gateway.next("serving");
  gateway.send("ready");
  await gateway.next("done");
  return Object.assign(gateway, { port: port as number });
}

/** A python process that listens, and says nothing to its clients. */
export async function startStranger(
  port: number,
  { host = "127.0.0.1", argument = "", ...spawnOptions }: SpawnOptions & { host?: string; argument?: string } = {},
): Promise<TestProcess> {
  const stranger = new TestProcess(
    "python3",
    [fixturePath("inspect-stranger.py"), host, String(port), argument],
    spawnOptions,
  );
  await stranger.next("text");
  return stranger;
}

/** All that lies in a directory, and when it was changed. */
export function traceOf(directory: string): string[] {
  return [".", ...readdirSync(directory, { recursive: true, encoding: "utf8" })].sort().map((name) => {
    const { mtimeNs, ctimeNs, size, ino } = lstatSync(join(directory, name), { bigint: true });
    return `${name} ${mtimeNs} ${ctimeNs} ${size} ${ino}`;
  });
}

/** A look that must leave everything as it was. */
export async function inspect(options: InspectOptions): Promise<GatewayReport> {
  const before = traceIfThere(options.stateDir);
  const report = await inspectGateway(options);
  expect(traceIfThere(options.stateDir)).toEqual(before);
  expect(report.next).toMatch(/^[^\p{Cc}\n]+$/u);
  return report;
}

function traceIfThere(directory: string): string[] {
  try {
    return traceOf(directory);
  } catch {
    return [];
  }
}

/** Ends a process that the test has not started itself, when the test ends. */
export function reap(pid: number): void {
  onTestFinished(() => {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It is gone, as it should be.
    }
  });
}
