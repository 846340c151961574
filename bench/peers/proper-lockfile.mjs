// proper-lockfile: a directory beside the file, whose time is renewed; whoever finds it old takes it.

import lockfile from "proper-lockfile";

/** Its fastest sensible: it polls. */
const RETRIES = { forever: true, factor: 1, minTimeout: 10, maxTimeout: 10 };
const seconds = process.env.BENCH_STALE;
const STALE = seconds === undefined ? {} : { stale: Number(seconds) * 1000 };
/** By default it throws where nobody can catch it. What it means shows in the proof that no sections overlap. */
const OPTIONS = { realpath: false, onCompromised() {}, ...STALE };

export function acquire(path) {
  lockfile.lockSync(path, OPTIONS);
  return path;
}

export async function wait(path) {
  await lockfile.lock(path, { ...OPTIONS, retries: RETRIES });
  return path;
}

/** A lock that was taken away meanwhile is not there to be released. */
export async function releaseAfterWait(path) {
  await lockfile.unlock(path, { realpath: false }).catch((error) => {
    if (!["ENOTACQUIRED", "ERELEASED", "ENOENT"].includes(error.code)) throw error;
  });
}

export const release = (path) => lockfile.unlockSync(path, { realpath: false });

export function isRefused(path) {
  try {
    lockfile.lockSync(path, OPTIONS);
    return false;
  } catch (error) {
    if (error.code !== "ELOCKED") throw error;
    return true;
  }
}
