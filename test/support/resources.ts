// What tests of lock placement share: the names that the contract gives, and acquiring with a port of one's own.

import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { expect, onTestFinished } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import type { Gateway } from "../../lib/gateway.ts";
import type { GatewayOptions } from "../../lib/options.ts";
import { freePort, openDescriptors } from "./temporary.ts";

export const STATE_LOCK: string = "gateway.state.lock";

/** As the contract has it: the first 8 hex digits of sha256. */
export function hash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 8);
}

export function hashedLock(text: string): string {
  return `gateway.${hash(text)}.lock`;
}

export async function acquire(options: GatewayOptions): Promise<Gateway> {
  const gateway = await acquireGateway({ port: await freePort(), ...options });
  onTestFinished(() => gateway.close());
  return gateway;
}

/** The refusal of the options, which leaves no descriptor. */
export async function refusal(options: GatewayOptions): Promise<unknown> {
  const port = await freePort();
  const before = openDescriptors();
  const error = await acquireGateway({ port, ...options }).then(
    (gateway) => gateway.close().then(() => "it was acquired"),
    (reason) => reason,
  );
  expect(openDescriptors()).toBe(before);
  return error;
}

export function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name)
    .sort();
}
