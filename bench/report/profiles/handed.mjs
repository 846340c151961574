// Waits for a lock that its partner has, again and again.

import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { lockFile } from "../../../dist/index.js";
import { drive } from "./driver.mjs";

const HELD = 2; // ms
const FREE = 1; // ms, in which the other one gets it

const pathIn = (directory) => join(directory, "handed.lock");

await drive({
  async measured(directory, operations) {
    for (let done = 0; done < operations; done++) {
      (await lockFile(pathIn(directory))).release();
      await pause(FREE);
    }
  },
  async partner(directory) {
    const path = pathIn(directory);
    const round = async () => {
      const lock = await lockFile(path);
      await pause(HELD);
      lock.release();
      setImmediate(round);
    };
    void round();
  },
});
