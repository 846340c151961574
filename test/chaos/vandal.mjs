// Deletes, replaces, empties and spoils lock files of gateways that live, and tells the journal which configs it has left without theirs.

import { readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { note } from "./world.mjs";

const GARBAGE = ["", "{", "null", '{"pid":1}', "\0".repeat(4096), "x".repeat(100_000)];

const ACTS = {
  delete: { removes: true, run: (path) => rmSync(path) },
  replace: {
    removes: true,
    run(path) {
      writeFileSync(`${path}.new`, "somebody else's", { mode: 0o600 });
      renameSync(`${path}.new`, path);
    },
  },
  wipe: { removes: true, run: (path) => rmSync(dirname(path), { recursive: true }) },
  truncate: { removes: false, run: (path) => truncateSync(path) },
  corrupt: { removes: false, run: (path, random) => writeFileSync(path, random.pick(GARBAGE), { flag: "r+" }) },
};

/** One act, where there is something to do it to. */
export function vandalise(world, random) {
  const files = world.lockDirs.flatMap((directory) => filesIn(directory));
  if (files.length === 0) return;
  const path = random.pick(files);
  const name = random.pick(Object.keys(ACTS));
  const { removes, run } = ACTS[name];
  const configs = removes ? world.configs.filter((config) => join(dirname(config), "locks") === dirname(path)) : [];
  note(world.journal, "vandal", { act: name, path, configs });
  try {
    run(path, random);
  } catch (error) {
    // Deleted by its owner meanwhile, or made again.
    if (!["ENOENT", "ENOTEMPTY"].includes(error.code)) throw error;
  }
}

/** Of the plain lock file nobody says that it is noticed: it is only spoilt. */
export function spoil(world, random) {
  try {
    ACTS.corrupt.run(world.plainLock, random);
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
}

function filesIn(directory) {
  try {
    return readdirSync(directory)
      .filter((name) => name.endsWith(".lock"))
      .map((name) => join(directory, name));
  } catch {
    return []; // wiped
  }
}
