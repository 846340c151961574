// The PID file that many programs write by hand: made exclusively, deleted at the end.

import { unlinkSync, writeFileSync } from "node:fs";

export function acquire(path) {
  writeFileSync(path, `${process.pid}\n`, { flag: "wx", mode: 0o600 });
  return path;
}

export const release = (path) => unlinkSync(path);

export function acquireWithRecord(path, record) {
  writeFileSync(path, record, { flag: "wx", mode: 0o600 });
  return path;
}

export const releaseWithRecord = (path) => unlinkSync(path);

export function isRefused(path) {
  try {
    writeFileSync(path, `${process.pid}\n`, { flag: "wx", mode: 0o600 });
    return false;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
    return true;
  }
}
