// Ends a command that is told to end: it stops what it has started, removes what it has made, and says by its exit code which signal it was.

import { constants } from "node:os";

const controller = new AbortController();
export const { signal: interrupted } = controller;

for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.once(name, () => {
    process.exitCode = 128 + constants.signals[name];
    controller.abort(new Error(`told to end by ${name}`));
  });
}
