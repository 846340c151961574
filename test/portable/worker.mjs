// A worker thread that takes the lock on its workerData, says so, and stays.

import { parentPort, workerData } from "node:worker_threads";
import { tryLockFile } from "gateway-lock";

const lock = tryLockFile(workerData);
parentPort.postMessage(lock === null ? "refused" : "granted");
parentPort.on("message", () => lock.release());
