// gateway-lock, awaited: the lock of one file.

import { closeSync, openSync, writeSync } from "node:fs";
import { lockFile, tryLockFile } from "../../dist/index.js";

export const acquire = (path) => lockFile(path);
export const wait = (path) => lockFile(path);
export const release = (lock) => lock.release();
export const isRefused = (path) => tryLockFile(path) === null;

export function acquireWithRecord(path, record) {
  const lock = tryLockFile(path, { remove: true });
  const fd = openSync(path, "r+");
  writeSync(fd, record);
  closeSync(fd);
  return lock;
}

export const releaseWithRecord = (lock) => lock.release();
