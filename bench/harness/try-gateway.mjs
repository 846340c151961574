// A gateway that finds another one, and ends: try-gateway.mjs <state directory> <port>

import { acquireGateway } from "../../dist/index.js";

const [stateDir, port] = process.argv.slice(2);
await acquireGateway({ stateDir, port: Number(port) }).catch((error) => {
  process.exitCode = error.exitCode;
});
