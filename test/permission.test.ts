// Under Node's permission model (https://nodejs.org/api/permissions.html).

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const MAJOR = Number.parseInt(process.versions.node, 10);
const RESTRICTED = [MAJOR < 22 ? "--experimental-permission" : "--permission", "--allow-fs-read=*"];
// A permission of its own since Node 25.
const NETWORK = process.allowedNodeEnvironmentFlags.has("--allow-net") ? ["--allow-net"] : [];

const PROGRAM = `
import { createServer, get } from "node:http";
import { acquireGateway } from ${JSON.stringify(pathToFileURL(join(ROOT, "dist/index.js")).href)};
const [stateDir, port] = process.argv.slice(-2);
const options = { stateDir, port: Number(port) };
const gateway = await acquireGateway(options).catch((error) => { console.log(error.code, error.message); process.exit(1); });
await gateway.listen(createServer((request, response) => response.end("served")));
const answer = await new Promise((resolve) => get({ port, agent: false }, (response) => response.once("data", resolve)));
const refusal = await acquireGateway(options).catch(({ code }) => code);
await gateway.close();
console.log(String(answer), refusal);
`;

async function run(flags: readonly string[], stateDir: string): Promise<string> {
  const args = [...RESTRICTED, ...NETWORK, ...flags, "--input-type=module", "-e", PROGRAM, "--"];
  const { stdout, stderr } = spawnSync(process.execPath, [...args, stateDir, `${await freePort()}`], {
    encoding: "utf8",
  });
  return stdout === "" ? stderr : stdout;
}

test("with --allow-addons and the right to write its state directory, a gateway runs as ever", async () => {
  const stateDir = temporaryDirectory(); // it must be there: what is below a path that is missing is not permitted with it
  expect(await run(["--allow-addons", `--allow-fs-write=${stateDir}`], stateDir)).toBe("served ALREADY_LISTENING\n");
});

test("without --allow-addons, the error names that flag", async () => {
  const stateDir = join(temporaryDirectory(), "state");
  const output = await run([`--allow-fs-write=${stateDir}`], stateDir);
  expect(output).toContain("ERR_GATEWAY_LOCK_ADDON");
  expect(output).toContain("--allow-addons");
});

test("without the right to write there, it is refused as an unwritable directory is", async () => {
  const output = await run(["--allow-addons"], join(temporaryDirectory(), "state"));
  expect(output).toMatch(/^LOCK_FAILED failed to acquire gateway lock at /);
});
