// One temporary directory for a run, and ports that are free.

import { accessSync, constants, mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class Temporary {
  #count = 0;

  constructor() {
    this.path = realpathSync(mkdtempSync(join(inMemory() ?? tmpdir(), "gateway-lock-bench-")));
  }

  /** A new name in it; nothing is there yet. */
  name(what) {
    return join(this.path, `${what}-${this.#count++}`);
  }

  directory(what) {
    const path = this.name(what);
    mkdirSync(path, { mode: 0o700 });
    return path;
  }

  remove() {
    rmSync(this.path, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * A filesystem that has no past: ext4 looks for an inode that was not deleted lately (recently_deleted, fs/ext4/ialloc.c), so that whoever makes and deletes files
 * measures what was done before.
 */
function inMemory() {
  const directory = "/dev/shm";
  try {
    accessSync(directory, constants.W_OK | constants.X_OK);
    return directory;
  } catch {
    return null;
  }
}

/** Below the ephemeral range, so that no client's own end takes it meanwhile; `count` in a row. */
export async function freePorts(count = 1) {
  for (let attempt = 0; attempt < 100; attempt++) {
    const first = 12_000 + Math.floor(Math.random() * 18_000);
    let free = 0;
    while (free < count && (await isFree(first + free))) free++;
    if (free === count) return first;
  }
  throw new Error(`no ${count} free ports in a row were found on 127.0.0.1 between 12000 and 30000`);
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
