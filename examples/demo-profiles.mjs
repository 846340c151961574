// Shows two gateways side by side with real processes and ports, and the five ways to overlap, each refused with the reason.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { resolveProfile } from "gateway-lock";

const DEADLINE = 20_000; // ms for all of it: it ends by itself, whatever happens

const home = mkdtempSync(join(tmpdir(), "gateway-lock-profiles-"));
const main = resolveProfile({ app: "demo", home, env: {} });
const children = [];

/** Starts a gateway; resolves with what it has printed when it serves, or has ended. */
async function start(profile, env = {}) {
  const args = profile === null ? [] : ["--profile", profile];
  const path = fileURLToPath(new URL("profiles.mjs", import.meta.url));
  const { PATH } = process.env;
  const child = spawn(process.execPath, [path, ...args], { env: { PATH, HOME: home, USERPROFILE: home, ...env } });
  children.push(child);
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (data) => {
      text += data;
    });
  }
  const ended = once(child, "close");
  await Promise.race([once(child.stdout, "data"), ended]);
  for (const line of text.trimEnd().split("\n")) console.log(`    ${line}`);
  return { child, text, ended };
}

async function answerOf(port) {
  const response = await fetch(`http://127.0.0.1:${port}`, { headers: { connection: "close" } });
  return (await response.text()).trimEnd();
}

const link = join(home, "shortcut");
const FAULTS = [
  ["a config", { DEMO_CONFIG_PATH: main.configPath }],
  ["a state directory, by a symbolic link", { DEMO_STATE_DIR: link, DEMO_CONFIG_PATH: join(home, "other.json") }],
  ["a workspace", { DEMO_WORKSPACE: main.workspace }],
  ["the port", { DEMO_GATEWAY_PORT: `${main.port}` }],
  ["most of its derived ports", { DEMO_GATEWAY_PORT: `${main.port - 1}` }],
];

async function demo() {
  console.log("1. The main gateway and a rescue gateway start side by side.");
  const first = await start(null);
  const second = await start("rescue");
  if (first.child.exitCode !== null || second.child.exitCode !== null)
    throw new Error("one of them has not started; is something else on its ports?");
  const rescue = resolveProfile({ app: "demo", profile: "rescue", home, env: {} });
  for (const { port, derived } of [main, rescue])
    console.log(
      `    ${port}: "${await answerOf(port)}"; ${derived.browserControl}: "${await answerOf(derived.browserControl)}"`,
    );

  symlinkSync(main.stateDir, link);
  const told = new Set();
  for (const [index, [what, env]] of FAULTS.entries()) {
    console.log(`${index + 2}. A third one starts, and would share ${what} with the main one.`);
    const { child, text, ended } = await start("third", env);
    await ended;
    console.log(`    exit code ${child.exitCode}`);
    if (child.exitCode !== 75) throw new Error("it was not refused as a duplicate");
    told.add(text.replace(/pid \d+/g, "pid"));
  }
  if (told.size !== FAULTS.length) throw new Error("two of them were told the same");

  console.log("7. The third one starts as it is, beside the others.");
  const third = await start("third");
  if (third.child.exitCode !== null) throw new Error("it has not started");
}

function giveUp(reason) {
  console.error(`demo: ${reason}`);
  for (const child of children) child.kill("SIGKILL");
  rmSync(home, { recursive: true, force: true });
  process.exit(1);
}
const timer = setTimeout(() => giveUp(`it did not end within ${DEADLINE / 1000} s`), DEADLINE);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => giveUp(`told to end by ${signal}`));
try {
  await demo();
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
} finally {
  clearTimeout(timer);
  const ends = children.map(async (child) => child.exitCode === null && (await once(child, "close")));
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(ends);
  rmSync(home, { recursive: true, force: true });
}
