// Wakes whoever waits for a gateway to change: when a process ends, when a lock file or record changes, and now and then in any case.

import { type FSWatcher, statSync, watch } from "node:fs";
import { dirname } from "node:path";
import { callAt, onAbort } from "../lock/wait.ts";
import { isFailure, native } from "../native.ts";

/**
 * The truth. A watch is only a hint: it sees no parent directory being renamed, and there are none left at 128 inotify instances
 * (inotify(7), max_user_instances); a process may have no handle.
 */
const RECHECK = 500; // ms
/** Between two looks, however much is written. ms */
const BREATH = 10;

interface Watched {
  readonly identity: string;
  readonly watcher: FSWatcher;
}

export class Wakeups implements Disposable {
  readonly #processes = new Map<number, number>();
  readonly #directories = new Map<string, Watched>();
  #isDue = false;
  #onWake: () => void = () => {};

  /** Follows these processes until they end, and these files, and nothing else any more. Whoever has ended wakes at once. */
  follow(pids: readonly number[], files: readonly string[]): void {
    this.#followProcesses(pids);
    this.#followDirectories(new Set(files.map((file) => nearestDirectory(dirname(file)))));
  }

  /** Resolves when something may have changed, or half a second or the deadline has passed. @throws `signal.reason` */
  async next(deadline: number, signal: AbortSignal | null): Promise<void> {
    signal?.throwIfAborted();
    const now = performance.now();
    const earliest = Math.min(now + BREATH, deadline);
    await new Promise<void>((resolve) => {
      let stopTimer = () => {};
      const end = () => {
        stopTimer();
        stopListening();
        this.#onWake = () => {};
        resolve();
      };
      const endAt = (time: number) => {
        stopTimer();
        stopTimer = callAt(time, end);
      };
      const stopListening = onAbort(signal, end);
      this.#onWake = () => endAt(earliest);
      endAt(this.#isDue ? earliest : Math.min(now + RECHECK, deadline));
    });
    this.#isDue = false;
    signal?.throwIfAborted();
  }

  wake(): void {
    this.#isDue = true;
    this.#onWake();
  }

  /** Aborts when something may have changed; of no more use once `next` was called. */
  nextSignal(): AbortSignal {
    const controller = new AbortController();
    this.#onWake = () => controller.abort();
    if (this.#isDue) controller.abort();
    return controller.signal;
  }

  [Symbol.dispose](): void {
    this.#onWake = () => {};
    for (const process of this.#processes.values()) native().closeProcess(process);
    this.#processes.clear();
    for (const { watcher } of this.#directories.values()) watcher.close();
    this.#directories.clear();
  }

  #followProcesses(pids: readonly number[]): void {
    for (const [pid, process] of this.#processes) {
      if (pids.includes(pid)) continue;
      native().closeProcess(process);
      this.#processes.delete(pid);
    }
    for (const pid of pids) if (!this.#processes.has(pid)) this.#followProcess(pid);
  }

  #followProcess(pid: number): void {
    const process = native().openProcess(pid);
    if (isFailure(process)) return;
    const failure = native().awaitExit(process, () => {
      if (this.#processes.get(pid) !== process) return;
      native().closeProcess(process);
      this.#processes.delete(pid);
      this.wake();
    });
    if (failure === undefined) this.#processes.set(pid, process);
    else native().closeProcess(process);
  }

  #followDirectories(directories: ReadonlySet<string>): void {
    for (const [directory, { identity, watcher }] of this.#directories) {
      if (directories.has(directory) && identity === identityOf(directory)) continue;
      watcher.close();
      this.#directories.delete(directory);
    }
    for (const directory of directories) if (!this.#directories.has(directory)) this.#followDirectory(directory);
  }

  #followDirectory(directory: string): void {
    try {
      const identity = identityOf(directory);
      const watcher = watch(directory, { persistent: false }, () => this.wake());
      watcher.on("error", () => watcher.close());
      this.#directories.set(directory, { identity, watcher });
    } catch {
      // Whoever looks again in half a second needs no watch.
    }
  }
}

function nearestDirectory(path: string): string {
  const parent = dirname(path);
  return identityOf(path) !== "" || parent === path ? path : nearestDirectory(parent);
}

/** Empty where there is no directory. */
function identityOf(directory: string): string {
  try {
    const stats = statSync(directory, { bigint: true });
    return stats.isDirectory() ? `${stats.dev}:${stats.ino}` : "";
  } catch {
    return "";
  }
}
