// fs-native-extensions: a lock of the open file description (fcntl(2), F_OFD_SETLK) on a descriptor of the user's own.

import { closeSync, openSync, unlinkSync, writeSync } from "node:fs";
import native from "fs-native-extensions";

export function acquire(path) {
  const fd = openSync(path, "a+", 0o600);
  if (!native.tryLock(fd)) throw new Error(`${path} is locked`);
  return fd;
}

export async function wait(path) {
  const fd = openSync(path, "a+", 0o600);
  await native.waitForLock(fd);
  return fd;
}

export function release(fd) {
  native.unlock(fd);
  closeSync(fd);
}

export function isRefused(path) {
  const fd = openSync(path, "a+", 0o600);
  try {
    return !native.tryLock(fd);
  } finally {
    closeSync(fd);
  }
}

export function acquireWithRecord(path, record) {
  const fd = acquire(path);
  writeSync(fd, record);
  return fd;
}

export function releaseWithRecord(fd, path) {
  unlinkSync(path);
  release(fd);
}
