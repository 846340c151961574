// Node's own modules that take milliseconds and megabytes: loaded by whoever first needs them, and not with the library.

import { createRequire } from "node:module";

const require: NodeJS.Require = createRequire(import.meta.url);

function once<Module>(name: string): () => Module {
  let loaded: Module | undefined;
  return () => {
    loaded ??= require(name) as Module;
    return loaded;
  };
}

export const crypto: () => typeof import("node:crypto") = once("node:crypto");
export const net: () => typeof import("node:net") = once("node:net");
export const tty: () => typeof import("node:tty") = once("node:tty");
export const workerThreads: () => typeof import("node:worker_threads") = once("node:worker_threads");
