// A process to which one system call is refused: { path, stateDir, port, owner }. It walks the path once elsewhere, so that all code is loaded, then once here,
// between two looks at a file that is nowhere, which strace sees, and tells what came of it, what it has left open, and whether it can start again.

import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { MARK, PATHS } from "./paths.mjs";

const { path: name, here, elsewhere } = JSON.parse(process.argv[2]);
const LATEST = 15_000; // ms, for threads that are just ending, and for a partner that is not answered and gives up
const path = PATHS[name];

const mark = () => existsSync(MARK);

function possessions() {
  const descriptors = readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`).replace(/:\[\d+\]$/, "")];
    } catch {
      return []; // of the listing itself
    }
  });
  // libuv's, V8's and the inspector's are there from the warm-up on.
  const threads = readdirSync("/proc/self/task").flatMap((id) => {
    try {
      return [readFileSync(`/proc/self/task/${id}/comm`, "utf8").trim()];
    } catch {
      return []; // it has just ended
    }
  });
  return { descriptors: descriptors.sort(), threads: threads.sort() };
}

function difference(before, after) {
  const left = [...after];
  for (const item of before) {
    const index = left.indexOf(item);
    if (index !== -1) left.splice(index, 1);
  }
  return left;
}

function tell(error) {
  const { name: kind, code, message, cause } = error;
  return { outcome: code ?? kind, message, cause: cause?.message };
}

let filesBefore = [];
async function walk(place, isReal) {
  const context = { ...place, values: {} };
  await path.before?.(context);
  // A stale record was somebody else's.
  if (isReal) filesBefore = path.filesLeft?.(place) ?? [];
  let result = { outcome: "ok" };
  if (isReal) mark();
  try {
    await path.act(context);
  } catch (error) {
    result = tell(error);
  }
  if (isReal) mark();
  try {
    await path.check?.(context, result);
  } catch (error) {
    result = { ...result, wrong: error.message };
  }
  try {
    await path.after?.(context);
  } catch (error) {
    result.afterwards = tell(error);
  }
  return result;
}

const warnings = [];
process.on("warning", ({ message }) => warnings.push(message));
const unexpected = [];
process.on("uncaughtException", (error) => {
  unexpected.push(error.stack);
  if (!hasTold) console.error(error.stack);
});
let hasTold = false;

const rehearsal = await walk(elsewhere, false);
const before = possessions();
const result = await walk(here, true);
let left;
for (const limit = performance.now() + LATEST; ; await pause(1)) {
  const after = possessions();
  left = {
    descriptors: difference(before.descriptors, after.descriptors),
    threads: difference(before.threads, after.threads),
  };
  if ((left.descriptors.length === 0 && left.threads.length === 0) || performance.now() > limit) break;
}
const files = difference(filesBefore, path.filesLeft?.(here) ?? []);
let again;
try {
  again = (await walk(here, false)).outcome;
} catch (error) {
  again = tell(error);
}
hasTold = true;
console.log(JSON.stringify({ rehearsal: rehearsal.outcome, ...result, left, files, again, warnings, unexpected }));
process.exit(0);
