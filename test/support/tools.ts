// What npm has for the tests of supervisors and templates: installed on first use, once for all test files that run beside each other.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { lockFile } from "../../lib/lock/file-lock.ts";
import { installLocked } from "../../scripts/install-locked.mjs";

const FOLDER = fileURLToPath(new URL("../../scripts/supervisors", import.meta.url));
const CACHE = fileURLToPath(new URL("../../.cache", import.meta.url));

export class Tools {
  /** Ready for use, or why not. */
  static async install(): Promise<Tools | string> {
    try {
      mkdirSync(CACHE, { recursive: true });
      const lock = await lockFile(join(CACHE, "supervisors.lock"));
      try {
        installLocked(FOLDER, () => console.log("installing into scripts/supervisors (50 MB)"));
      } finally {
        lock.release();
      }
      return new Tools();
    } catch (error) {
      return `needs packages that can't be installed: ${(error as Error).message}`;
    }
  }

  path(file: string): string {
    return join(FOLDER, "node_modules", file);
  }

  // biome-ignore lint/suspicious/noExplicitAny: what a module has is its own affair
  async module(file: string): Promise<any> {
    return await import(pathToFileURL(this.path(file)).href);
  }
}
