// Takes and releases a lock that others want all the time.

import { join } from "node:path";
import { lockFile } from "../../../dist/index.js";
import { drive } from "./driver.mjs";

const pathIn = (directory) => join(directory, "contended.lock");

await drive({
  async measured(directory, operations) {
    for (let done = 0; done < operations; done++) (await lockFile(pathIn(directory))).release();
  },
  async partner(directory) {
    const path = pathIn(directory);
    // Between two rounds the loop has to look at stdin.
    const round = async () => {
      (await lockFile(path)).release();
      setImmediate(round);
    };
    await round();
  },
});
