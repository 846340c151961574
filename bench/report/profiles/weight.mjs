// Imports the package, once.

import { drive } from "./driver.mjs";

await drive({
  async measured(_directory, operations) {
    if (operations > 0) await import("../../../dist/index.js");
  },
});
