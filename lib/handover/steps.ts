// How far a handover has come, told on both sides to whoever listens: for progress, and for tests that stop one side at each step.

import { type Channel, channel } from "node:diagnostics_channel";

/**
 * Of the owner: `asked` (by a successor that it accepts), `drained` (every request is answered), `written` (`onHandover` has resolved), `sent`
 * (the last descriptor), `confirmed` (the successor owns), `released`; `resumed` if it was broken off.
 *
 * Of the successor: `connected`, `draining` (the owner has begun), `waiting` (it answers requests), `received` (the last descriptor), `checked` (locks and
 * sockets are those of this claim), `taken` (the baton: it owns), `published` (its record), `confirmed`, `released` (the predecessor has let go).
 */
export type HandoverStep =
  | { readonly role: "owner"; readonly step: OwnerStep; readonly peer: number }
  | { readonly role: "successor"; readonly step: SuccessorStep; readonly peer: number; readonly requests?: number };

type OwnerStep = "asked" | "drained" | "written" | "sent" | "confirmed" | "released" | "resumed";
type SuccessorStep =
  | "connected"
  | "draining"
  | "waiting"
  | "received"
  | "checked"
  | "taken"
  | "published"
  | "confirmed"
  | "released";

export const STEP_CHANNEL = "gateway-lock:handover-step";
const steps: Channel = channel(STEP_CHANNEL);

export function tellStep(step: HandoverStep): void {
  if (steps.hasSubscribers) steps.publish(step);
}
