// Directories and ports that belong to one test.

import { mkdtempSync, readdirSync, realpathSync, renameSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

/** A directory (0700) with a real path, removed when the test ends. */
export function temporaryDirectory(): string {
  const path = realpathSync(mkdtempSync(join(tmpdir(), "gateway-lock-test-")));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Deletes a directory of somebody who watches it: file by file, they may have made one again before the last is gone. */
export function wipe(directory: string): void {
  const gone = `${directory}-gone`;
  renameSync(directory, gone);
  rmSync(gone, { recursive: true });
}

// Below the ephemeral range, so that no client of another test gets it as its local port; a hundred for each worker.
const PORTS_PER_WORKER = 100;
const FIRST_PORT = 20_000 + (Number(process.env.VITEST_POOL_ID ?? 0) % 100) * PORTS_PER_WORKER;
let nextPort = FIRST_PORT + (process.pid % PORTS_PER_WORKER);

/** A port that nobody has on either loopback; the same test file does not get it twice in a row. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < PORTS_PER_WORKER; tries++) {
    nextPort = FIRST_PORT + ((nextPort + 1 - FIRST_PORT) % PORTS_PER_WORKER);
    if ((await isFree(nextPort, "127.0.0.1")) && (await isFree(nextPort, "::1"))) return nextPort;
  }
  throw new Error(`no free port from ${FIRST_PORT} on`);
}

function isFree(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "EADDRNOTAVAIL"));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** What this process has open: compare before and after. Sockets, pipes and paths, sorted, without procfs's own. */
export function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}
