// fs-ext: flock(2) on a descriptor of the user's own.

import { closeSync, openSync, unlinkSync, writeSync } from "node:fs";
import fsExt from "fs-ext";

const { flock, flockSync } = fsExt;

export function acquire(path) {
  const fd = openSync(path, "a+", 0o600);
  flockSync(fd, "exnb");
  return fd;
}

export function wait(path) {
  const fd = openSync(path, "a+", 0o600);
  return new Promise((resolve, reject) => flock(fd, "ex", (error) => (error ? reject(error) : resolve(fd))));
}

export function release(fd) {
  flockSync(fd, "un");
  closeSync(fd);
}

export function isRefused(path) {
  const fd = openSync(path, "a+", 0o600);
  try {
    flockSync(fd, "exnb");
    return false;
  } catch (error) {
    if (error.code !== "EAGAIN" && error.code !== "EWOULDBLOCK") throw error;
    return true;
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
