// What tests of handovers share: both sides in one process, and the steps that they take.

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { onTestFinished } from "vitest";
import { acquireGateway } from "../../lib/acquire.ts";
import type { Gateway } from "../../lib/gateway.ts";
import { type HandoverStep, STEP_CHANNEL } from "../../lib/handover/steps.ts";
import type { GatewayOptions } from "../../lib/options.ts";
import { freePort, temporaryDirectory } from "./temporary.ts";

/** Options of gateways that hand over to each other. */
export async function heirs(more: Partial<GatewayOptions> = {}): Promise<GatewayOptions & { port: number }> {
  return { stateDir: temporaryDirectory(), handover: true, ...more, port: await freePort() };
}

/** A gateway in this process, closed when the test ends. */
export async function acquire(options: GatewayOptions): Promise<Gateway> {
  const gateway = await acquireGateway(options);
  onTestFinished(() => gateway.close({ force: true }));
  return gateway;
}

/** Resolves when a side has come to a step; `then` is done right there. */
export function reached(role: HandoverStep["role"], step: HandoverStep["step"], then = () => {}): Promise<void> {
  return new Promise((resolve) => {
    const onStep = (told: unknown) => {
      const { role: who, step: where } = told as HandoverStep;
      if (who !== role || where !== step) return;
      unsubscribe(STEP_CHANNEL, onStep);
      then();
      resolve();
    };
    subscribe(STEP_CHANNEL, onStep);
    onTestFinished(() => {
      unsubscribe(STEP_CHANNEL, onStep);
    });
  });
}

/** Resolves when a signal aborts, with its reason's message. */
export function aborted(signal: AbortSignal): Promise<string> {
  return new Promise((resolve) => {
    const tell = () => resolve((signal.reason as Error).message);
    if (signal.aborted) tell();
    else signal.addEventListener("abort", tell, { once: true });
  });
}
