// lockfile: a file that is made exclusively; whoever finds it old takes it.

import lockfile from "lockfile";

/** Its fastest sensible: it polls. */
const POLL = 10; // ms
const FOREVER = 1e9; // ms
const seconds = process.env.BENCH_STALE;
const OPTIONS = seconds === undefined ? {} : { stale: Number(seconds) * 1000 };

export function acquire(path) {
  lockfile.lockSync(path, OPTIONS);
  return path;
}

export function wait(path) {
  const options = { ...OPTIONS, wait: FOREVER, pollPeriod: POLL };
  return new Promise((resolve, reject) =>
    lockfile.lock(path, options, (error) => (error ? reject(error) : resolve(path))),
  );
}

export const release = (path) => lockfile.unlockSync(path);

export function isRefused(path) {
  try {
    lockfile.lockSync(path, OPTIONS);
    return false;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
    return true;
  }
}
