// Takes and releases a bare lock that nobody else wants.

import { join } from "node:path";
import { lockFile } from "../../../dist/index.js";
import { drive } from "./driver.mjs";

await drive({
  async measured(directory, operations) {
    const path = join(directory, "bare.lock");
    for (let done = 0; done < operations; done++) (await lockFile(path)).release();
  },
});
