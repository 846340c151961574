// Waiting: for a lock, in the kernel, or just for a moment; until a deadline or a signal ends it.

import { isFailure, type NativeFailure, native } from "../native.ts";

/** What ends a wait early. */
export interface Limits {
  /** On the clock of performance.now(), in ms; `Infinity` for none. */
  readonly deadline: number;
  readonly signal: AbortSignal | null;
}

/** How often a wait makes sure that what it waits for is still there. ms */
const LOOK_INTERVAL = 500;
/** setTimeout() fires at once when it is given more. */
const MAX_TIMER = 2 ** 31 - 1;
const RETRY_INTERVAL = 1;

/**
 * Waits until the kernel grants the lock on the open file `fd`, or until a limit is reached or `isStale` says that there is
 * nothing left to wait for. A wait that has ended with "cancelled" does not have the lock, and never gets it. The caller
 * closes `fd` in any case, and asks which of the limits it was.
 */
export function waitInKernel(
  fd: number,
  { deadline, signal }: Limits,
  isStale: (() => boolean) | null,
): Promise<"locked" | "cancelled" | NativeFailure> {
  return new Promise((resolve) => {
    const cleanUps: (() => void)[] = [];
    const failure = native().startWait(fd, (end) => {
      for (const cleanUp of cleanUps) cleanUp();
      resolve(end === undefined ? "locked" : end === false ? "cancelled" : end);
    });
    if (failure !== undefined) return resolve(failure);
    // Refused only while this user's queue of pending signals is full (RLIMIT_SIGPENDING of getrlimit(2)).
    const cancel = () => {
      if (isFailure(native().cancelWait(fd))) cleanUps.push(callAt(performance.now() + RETRY_INTERVAL, cancel));
    };
    cleanUps.push(callAt(deadline, cancel), onAbort(signal, cancel));
    if (isStale === null) return;
    const look = setInterval(() => isStale() && cancel(), LOOK_INTERVAL);
    cleanUps.push(() => clearInterval(look));
  });
}

/** @throws `signal.reason` as soon as it aborts */
export async function pause(ms: number, signal: AbortSignal | null): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve) => {
    const end = () => {
      stopTimer();
      stopListening();
      resolve();
    };
    const stopTimer = callAt(performance.now() + ms, end);
    const stopListening = onAbort(signal, end);
  });
  signal?.throwIfAborted();
}

/** Calls back once the clock of performance.now() has reached `time`, however far away that is. */
export function callAt(time: number, callback: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    const left = time - performance.now();
    if (left <= 0) callback();
    else if (left < Infinity) timer = setTimeout(arm, Math.min(Math.ceil(left), MAX_TIMER));
  };
  timer = time < Infinity ? setTimeout(arm, Math.min(Math.ceil(time - performance.now()), MAX_TIMER)) : undefined;
  return () => clearTimeout(timer);
}

interface Waiters {
  readonly callbacks: Set<() => void>;
  readonly abort: () => void;
}
const waitersOf = new WeakMap<AbortSignal, Waiters>();

/**
 * Calls back when `signal` aborts. One listener serves all who wait for a signal: Node warns of a leak when there are
 * more than ten (MaxListenersExceededWarning).
 */
function onAbort(signal: AbortSignal | null, callback: () => void): () => void {
  if (signal === null) return () => {};
  const { callbacks, abort } = waitersOf.get(signal) ?? listenTo(signal);
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size > 0 || waitersOf.get(signal)?.callbacks !== callbacks) return;
    waitersOf.delete(signal);
    signal.removeEventListener("abort", abort);
  };
}

function listenTo(signal: AbortSignal): Waiters {
  const callbacks = new Set<() => void>();
  const abort = () => {
    for (const callback of callbacks) callback();
  };
  const waiters = { callbacks, abort };
  waitersOf.set(signal, waiters);
  signal.addEventListener("abort", abort);
  return waiters;
}
