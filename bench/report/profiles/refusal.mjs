// Is refused by a gateway of another process, which serves HTTP.

import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { acquireGateway } from "../../../dist/index.js";
import { drive } from "./driver.mjs";

const portFile = (directory) => join(directory, "port");

await drive({
  async measured(stateDir, operations) {
    const port = Number(readFileSync(portFile(stateDir), "utf8"));
    for (let done = 0; done < operations; done++) {
      const error = await acquireGateway({ stateDir, port }).catch((error) => error);
      if (error.code !== "ALREADY_LISTENING") throw new Error("was not refused", { cause: error });
    }
  },
  async partner(stateDir) {
    const gateway = await acquireGateway({ stateDir, port: 0 });
    await gateway.listen(createServer(gateway.healthz));
    gateway.ready();
    writeFileSync(portFile(stateDir), String(gateway.port));
  },
});
