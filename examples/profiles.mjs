// One gateway of several: each profile has its own state directory, config, workspace and ports, and nothing is shared by accident.
//
//   node profiles.mjs                      the main gateway: ~/.demo, port 18789
//   node profiles.mjs --profile rescue     another one: ~/.demo-rescue, port 25509
//
// DEMO_STATE_DIR, DEMO_CONFIG_PATH, DEMO_GATEWAY_PORT and DEMO_WORKSPACE say something else.

import { mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { acquireGateway, derivedPorts, GatewayLockError, resolveProfile } from "gateway-lock";

let profile;
try {
  const { values } = parseArgs({ options: { profile: { type: "string" } } });
  profile = resolveProfile({ app: "demo", profile: values.profile });
} catch (error) {
  console.error(error.message);
  process.exit(64); // EX_USAGE
}
const name = profile.profile ?? "main";
const workspace = process.env.DEMO_WORKSPACE ?? profile.workspace;
mkdirSync(workspace, { recursive: true, mode: 0o700 }); // what is locked has to be there

let gateway;
try {
  gateway = await acquireGateway({
    ...profile.options,
    locks: [workspace],
    reserve: derivedPorts(profile.derived), // all or none of it, in one step
  });
} catch (error) {
  if (!(error instanceof GatewayLockError)) throw error;
  // The cause says what it is that somebody else has, and who that is.
  console.error(`${name}: ${error.message}\n${name}: ${error.cause?.message}`);
  process.exit(error.exitCode);
}

await gateway.listen(
  createServer((request, response) => {
    if (request.url === "/healthz") return gateway.healthz(request, response);
    response.end(`${name}, pid ${process.pid}\n`);
  }),
);
// A derived port is served when there is something to serve; until then it refuses clients, and is nobody else's.
const { browserControl, cdp } = profile.derived;
await gateway.listen(
  createServer((_request, response) => response.end(`browser control of ${name}\n`)),
  browserControl,
);
gateway.ready();
console.log(
  `${name}: pid ${process.pid} owns ${gateway.url}, browser control ${browserControl}, CDP ${cdp.join("-")} and ${profile.stateDir}`,
);

gateway.lost.addEventListener("abort", () => {
  console.error(`${name}: ${gateway.lost.reason.message}`);
  process.exit(1);
});
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    await gateway.close({ timeout: 5000 });
    process.exit(0);
  });
}
