// Waiting: for a lock, in the kernel, or just for a moment; until a deadline or a signal ends it.

import { addAbortListener } from "node:events";
import { isFailure, native, type WaitEnd } from "../native.ts";

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

/** What is waited for: a file that is open, and the path that it was opened at. */
export interface Awaited {
  readonly fd: number;
  readonly path: string;
  readonly selfTest: boolean;
  /** Whether to stop waiting when the file is not at the path any more. */
  readonly watch: boolean;
}

/**
 * Waits until the kernel grants the lock on a file, or until a limit is reached, or there is nothing left to wait for: then
 * it ends with "cancelled". Such a wait does not have the lock, and never gets it. The caller closes the file in any case, and
 * asks which of the limits it was. `done` is called once, with `null` when it is locked.
 */
export function waitInKernel(
  { fd, path, selfTest, watch }: Awaited,
  { deadline, signal }: Limits,
  done: (end: WaitEnd | null, empty: boolean) => void,
): void {
  let hasEnded = false;
  let stopTimer = () => {};
  const failure = native().startWait(fd, path, selfTest, (end, empty) => {
    hasEnded = true;
    done(end, empty);
    stopTimer();
    stopListening();
    if (watch) watched.delete(look);
  });
  if (failure !== undefined) {
    done(failure, false);
    return;
  }
  const cancel = () => {
    if (hasEnded || !isFailure(native().cancelWait(fd))) return;
    // Only while this user's queue of pending signals is full (RLIMIT_SIGPENDING of getrlimit(2)).
    stopTimer();
    stopTimer = callAt(performance.now() + RETRY_INTERVAL, cancel);
  };
  stopTimer = callAt(deadline, cancel);
  const stopListening = onAbort(signal, cancel);
  const look = () => {
    if (native().checkLock(fd, path) !== "current") cancel();
  };
  if (watch) lookFromTimeToTime(look);
  if (signal?.aborted) cancel();
}

/** One timer for all, because there may be thousands. It does not keep the process alive: a wait does so itself. */
const watched = new Set<() => void>();
let timer: NodeJS.Timeout | undefined;

function lookFromTimeToTime(look: () => void): void {
  watched.add(look);
  timer ??= setInterval(() => {
    for (const each of watched) each();
    if (watched.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }, LOOK_INTERVAL).unref();
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
  if (time < Infinity) timer = setTimeout(arm, Math.max(0, Math.min(Math.ceil(time - performance.now()), MAX_TIMER)));
  return () => clearTimeout(timer);
}

interface Waiters {
  readonly callbacks: Set<() => void>;
  readonly listener: Disposable;
}
const waitersOf = new WeakMap<AbortSignal, Waiters>();

/**
 * Calls back when `signal` aborts; not if it has already. One listener serves all who wait for a signal: Node warns of a leak when there are
 * more than ten (MaxListenersExceededWarning). Another listener can't keep it from being told (events.addAbortListener).
 */
export function onAbort(signal: AbortSignal | null, callback: () => void): () => void {
  if (signal === null) return () => {};
  const waiters = waitersOf.get(signal) ?? listenTo(signal);
  waiters.callbacks.add(callback);
  return () => {
    waiters.callbacks.delete(callback);
    if (waiters.callbacks.size > 0 || waitersOf.get(signal) !== waiters) return;
    waitersOf.delete(signal);
    waiters.listener[Symbol.dispose]();
  };
}

/** @throws `signal.reason` as soon as it aborts, or if it has already; what `promise` rejects with */
export async function orAborted(signal: AbortSignal, promise: unknown): Promise<void> {
  let stopListening = () => {};
  const aborted = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else stopListening = onAbort(signal, () => reject(signal.reason));
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    stopListening();
  }
}

function listenTo(signal: AbortSignal): Waiters {
  const callbacks = new Set<() => void>();
  const listener = addAbortListener(signal, () => {
    for (const callback of callbacks) callback();
  });
  const waiters = { callbacks, listener };
  waitersOf.set(signal, waiters);
  return waiters;
}
