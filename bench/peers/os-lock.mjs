// os-lock: a lock of the process (fcntl(2), F_SETLK), which excludes other processes only.

import { closeSync, openSync, unlinkSync, writeSync } from "node:fs";
import osLock from "os-lock";

export async function acquire(path) {
  const fd = openSync(path, "a+", 0o600);
  await osLock.lock(fd, { exclusive: true, immediate: true });
  return fd;
}

export async function wait(path) {
  const fd = openSync(path, "a+", 0o600);
  await osLock.lock(fd, { exclusive: true });
  return fd;
}

export async function release(fd) {
  await osLock.unlock(fd);
  closeSync(fd);
}

export async function isRefused(path) {
  const fd = openSync(path, "a+", 0o600);
  try {
    await osLock.lock(fd, { exclusive: true, immediate: true });
    return false;
  } catch (error) {
    if (!["EACCES", "EAGAIN", "EBUSY"].includes(error.code)) throw error;
    return true;
  } finally {
    closeSync(fd);
  }
}

export async function acquireWithRecord(path, record) {
  const fd = await acquire(path);
  writeSync(fd, record);
  return fd;
}

export async function releaseWithRecord(fd, path) {
  unlinkSync(path);
  await release(fd);
}
