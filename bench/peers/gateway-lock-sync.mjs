// gateway-lock without a promise.

import { tryLockFile } from "../../dist/index.js";

export const acquire = (path) => tryLockFile(path);
export const release = (lock) => lock.release();
