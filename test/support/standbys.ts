// What tests of waiting gateways share: processes that wait, and claims that must not overlap.

import { readdirSync, readlinkSync } from "node:fs";
import { type FixtureEvent, startFixture, type TestProcess } from "./processes.ts";

/** Tells a process of test/fixtures/standby-gateway.mjs what to do. */
export function tell(standby: TestProcess, command: string, fields: object = {}): void {
  standby.send(JSON.stringify({ command, ...fields }));
}

export function startStandby(): TestProcess {
  return startFixture("standby-gateway.mjs");
}

/** A process that waits for a claim that somebody else has; without a timeout, for ever. */
export async function startWaiting(options: object): Promise<TestProcess> {
  const standby = startStandby();
  tell(standby, "acquire", { options });
  await standby.next("waiting");
  return standby;
}

/** A process that has its claim, and serves. */
export async function startServing(options: object): Promise<TestProcess> {
  const owner = startStandby();
  tell(owner, "acquire", { options });
  await serves(owner);
  return owner;
}

/** Resolves when it serves; throws when it is refused. */
export async function serves(standby: TestProcess): Promise<FixtureEvent> {
  const answer = await standby.next("serving", "refused");
  if (answer.event === "refused") throw new Error(`refused: ${JSON.stringify(answer)}`);
  return answer;
}

/** By the system's monotonic clock in ms, the same for all processes. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Whether that process has the file open. */
export function hasOpen(pid: number, path: string): boolean {
  return readdirSync(`/proc/${pid}/fd`).some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`) === path;
    } catch {
      return false; // closed meanwhile
    }
  });
}

export function threads(): number {
  return readdirSync("/proc/self/task").length;
}
