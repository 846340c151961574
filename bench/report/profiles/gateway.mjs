// Acquires a gateway, lets it listen, and closes it.

import { createServer } from "node:http";
import { acquireGateway } from "../../../dist/index.js";
import { drive } from "./driver.mjs";

await drive({
  async measured(stateDir, operations) {
    for (let done = 0; done < operations; done++) {
      const gateway = await acquireGateway({ stateDir, port: 0 });
      await gateway.listen(createServer());
      await gateway.close();
    }
  },
});
