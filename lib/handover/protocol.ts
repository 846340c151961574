// How a gateway goes from one process to another without an instant in which nobody has it, or both.
//
// The owner gives its own locks and sockets away, by a Unix socket (SCM_RIGHTS, unix(7)). They are the same open file descriptions afterwards, so
// nothing is freed and taken again, and no rival has an instant. For a while both have all of it; who of them is the owner is then a matter of one
// byte in a pipe, the baton, which exactly one of them can read:
//
//   contender                                   owner
//   hello (protocol, version)          →
//                                      ←        draining | refused        accepts nobody any more, answers what is under way,
//                                      ←        progress …                ends WebSockets, awaits onHandover
//                                      ←        claim (253 descriptors a message; the last one is the baton)
//   received                           →
//   checks locks and sockets, takes the baton, writes its record
//   confirmed                          →                                  lets go, and deletes nothing
//                                      ←        released
//
// Who has taken the baton owns. An owner that is kept waiting takes it back, and goes on; if it is gone, the successor owns, and nobody who has not
// taken it ever does. Only the owner knows one thing more: a successor that owns never closes the channel first. So if it ends before `confirmed`, the
// successor is dead or has given up, and the owner goes on, wherever the baton is.

/** It changes when one side could not understand the other. */
export const PROTOCOL = 1;

/** How often an owner that is still busy says so, and how long its silence is put up with. ms */
export const PROGRESS_INTERVAL = 500;
export const SILENCE = 5000;
/** How long requests may take that are under way, and then the application's own last words. ms */
export const DRAIN_LIMIT = 10_000;
export const HOOK_LIMIT = 10_000;
/** How long a successor listens to an owner that only says that it is busy: longer than one of ours ever is. ms */
export const BUSY_LIMIT: number = SILENCE + DRAIN_LIMIT + HOOK_LIMIT;
/** How long a contender may take to say hello, and a successor to check what it was given. ms */
export const HELLO_LIMIT = 2000;
export const CHECK_LIMIT = 5000;
/** How long a successor waits for its predecessor to let go. It owns already. ms */
export const RELEASE_LIMIT = 1000;
/** How many descriptors fit into a message (SCM_MAX_FD of Linux; macOS takes more). */
export const MAX_DESCRIPTORS = 253;

export interface Hello {
  readonly type: "hello";
  readonly protocol: number;
  readonly version: string;
}

export interface Received {
  readonly type: "received";
}

export interface Confirmed {
  readonly type: "confirmed";
  /** Which of the locks it has no use for, as they were counted in the claim: their files go with the owner. */
  readonly unused: readonly number[];
}

/** One side gives up, and touches nothing any more that it has of the other. */
export interface Broken {
  readonly type: "broken" | "refused";
  readonly reason: string;
  /** Worth asking again: somebody else is being served, or the gateway is about to be free. */
  readonly busy?: boolean;
}

export interface Draining {
  readonly type: "draining";
  readonly protocol: number;
  readonly version: string;
}

export interface Progress {
  readonly type: "progress";
  /** That are not answered yet. */
  readonly requests: number;
}

/** What a descriptor is for. By a shared socket a supervisor listens too. */
export type Kind = "lock" | "listener" | "guard" | "shared-listener" | "shared-guard" | "baton";

export interface Claim {
  readonly type: "claim";
  /** In the order of the descriptors that come with it. */
  readonly kinds: readonly Kind[];
  /** Whether there is another one to come. */
  readonly more: boolean;
}

export interface Released {
  readonly type: "released";
}

export type Message = Hello | Received | Confirmed | Broken | Draining | Progress | Claim | Released;

/** Beside the lock file of the state directory, which it goes with. */
export function socketPathOf(stateLockPath: string): string {
  return stateLockPath.replace(/\.lock$/, ".sock");
}

/** Why there is nothing to be had from the owner. */
export class NoOffer extends Error {
  override readonly name: string = "NoOffer";
  /** Worth asking again soon. */
  readonly passes: boolean;

  constructor(reason: string, { passes = false, cause }: { passes?: boolean; cause?: unknown } = {}) {
    super(reason, { cause });
    this.passes = passes;
  }
}
