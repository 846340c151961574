// The runtimes that the portable tests are run on, and what each of them needs to run here.

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mustRun, run } from "../commands.mjs";
import { installLocked } from "../install-locked.mjs";
import { TOOLS } from "../prebuild/paths.mjs";
import { runZig } from "../prebuild/zig.mjs";
import { add, countBun, countTap, NONE } from "./results.mjs";

const MINUTE = 60_000;
const SETUP = 3 * MINUTE;
const ARM64_LIBRARIES = "/usr/aarch64-linux-gnu";

/** Each has a name, what it is, the prebuilt addon that it takes, and how long it may run. */
export const PARTS = [
  {
    name: "native",
    title: "this Node, on this system",
    prebuild: ownPrebuild(),
    limit: 3 * MINUTE,
    run: (lab) => runNode(lab, { command: [process.execPath] }),
  },
  {
    name: "wine20",
    title: "Node 20 for Windows, under Wine",
    prebuild: "win32-x64/gateway-lock.node",
    limit: 10 * MINUTE,
    run: (lab) => runWindows(lab, "node-win-20"),
  },
  {
    name: "wine22",
    title: "Node 22 for Windows, under Wine",
    prebuild: "win32-x64/gateway-lock.node",
    limit: 10 * MINUTE,
    run: (lab) => runWindows(lab, "node-win-22"),
  },
  {
    name: "arm64",
    title: "Node 20 for arm64, under qemu",
    prebuild: "linux-arm64/gateway-lock.glibc.node",
    limit: 15 * MINUTE,
    run: runArm64,
  },
  {
    name: "deno",
    title: "Deno",
    prebuild: "linux-x64/gateway-lock.glibc.node",
    limit: 5 * MINUTE,
    run: runDeno,
  },
  {
    name: "bun",
    title: "Bun: all but the hand-off",
    prebuild: "linux-x64/gateway-lock.glibc.node",
    limit: 5 * MINUTE,
    run: runBun,
  },
  {
    name: "musl-x64",
    title: "musl x64: the addon loads",
    prebuild: "linux-x64/gateway-lock.musl.node",
    limit: 5 * MINUTE,
    run: (lab) => loadOnMusl(lab, { arch: "x64", target: "x86_64-linux-musl", through: [] }),
  },
  {
    name: "musl-arm64",
    title: "musl arm64, under qemu: the addon loads",
    prebuild: "linux-arm64/gateway-lock.musl.node",
    limit: 5 * MINUTE,
    run: async (lab) => {
      const through = ["qemu-aarch64-static", "-L", await installMuslArm64(lab)];
      return await loadOnMusl(lab, { arch: "arm64", target: "aarch64-linux-musl", through });
    },
  },
];

function ownPrebuild() {
  const libc = process.platform !== "linux" ? "" : existsSync("/etc/alpine-release") ? ".musl" : ".glibc";
  return `${process.platform}-${process.arch}/gateway-lock${libc}.node`;
}

function testsIn(project) {
  const files = readdirSync(join(project, "test", "portable")).filter((name) => name.endsWith(".test.mjs"));
  return files.sort().map((name) => `test/portable/${name}`);
}

/** Runs the test files one by one. What fails is shown whole; a file that ran no test has failed. */
async function runTests(lab, { command, env = {}, cwd, files, count, afterCut = () => {} }) {
  let total = NONE;
  for (const file of files) {
    const [program, ...args] = command(file);
    const { status, output } = await run(program, args, {
      cwd: cwd ?? lab.project,
      env: {
        PREBUILDS_ONLY: "1",
        NO_COLOR: "1",
        // What a run that is interrupted leaves goes with everything else.
        TMPDIR: join(lab.directory, "tmp"),
        GATEWAY_LOCK_TEST_PORTS: lab.ports,
        GATEWAY_LOCK_TEST_RUNTIME: undefined,
        ...env,
      },
      limit: Math.max(1, lab.deadline - performance.now()),
    });
    if (status === null) afterCut();
    const counted = count(output);
    const isSilent = counted.passed + counted.failed + counted.skipped === 0 || (status !== 0 && counted.failed === 0);
    const result = isSilent ? add(counted, { ...NONE, failed: 1 }) : counted;
    lab.progress(`${file}: ${result.passed} passed, ${result.failed} failed, ${result.skipped} skipped`);
    if (status !== 0 || result.failed > 0) lab.show(output);
    total = add(total, result);
  }
  return total;
}

async function runNode(lab, { command, env }) {
  const files = testsIn(lab.project);
  const version = (await mustRun(command[0], [...command.slice(1), "--version"], { limit: SETUP })).trim();
  const tap = (file) => [...command, "--test-reporter=tap", file];
  return {
    version: `node ${version.slice(1)}`,
    ...(await runTests(lab, { command: tap, env, files, count: countTap })),
  };
}

async function runArm64(lab) {
  const node = join(lab.runtimes, "node-arm64-20", "bin", "node");
  const command = ["qemu-aarch64-static", "-L", ARM64_LIBRARIES, node];
  return await runNode(lab, { command, env: { GATEWAY_LOCK_TEST_RUNTIME: JSON.stringify(command) } });
}

async function runDeno(lab) {
  const deno = join(lab.runtimes, "deno", "deno");
  const flags = ["-A", "--quiet", "--no-lock"];
  const version = (await mustRun(deno, ["--version"], { limit: SETUP })).split(/[\s(]+/)[1];
  const result = await runTests(lab, {
    command: (file) => [deno, "test", ...flags, "--no-check", "--reporter=tap", file],
    env: { GATEWAY_LOCK_TEST_RUNTIME: JSON.stringify([deno, "run", ...flags]), DENO_NO_UPDATE_CHECK: "1" },
    files: testsIn(lab.project),
    count: countTap,
  });
  return { version: `deno ${version}`, ...result };
}

async function runBun(lab) {
  const bun = join(lab.runtimes, "bun", "bin", "bun");
  const version = (await mustRun(bun, ["--version"], { limit: SETUP })).trim();
  const result = await runTests(lab, {
    command: (file) => [bun, "test", "--timeout", `${2 * MINUTE}`, `./${file}`],
    files: [...testsIn(lab.project), "test/portable/without-hand-off.mjs"],
    count: countBun,
  });
  return { version: `bun ${version}`, ...result };
}

/** Wine's own drive C: is what Windows would have; its Z: is this machine's root. */
async function runWindows(lab, runtime) {
  const wine = await prepareWine(lab);
  const drive = join(wine.env.WINEPREFIX, "drive_c");
  const node = join(drive, runtime);
  cpSync(join(lab.runtimes, runtime, "bin", "node.exe"), join(node, "node.exe"));
  cpSync(lab.project, join(node, "project"), { recursive: true });
  const program = `C:\\${runtime}\\node.exe`;
  const version = (await mustRun("wine", [program, "--version"], { env: wine.env, limit: SETUP })).trim();
  const result = await runTests(lab, {
    command: (file) => ["wine", program, "--test-reporter=tap", file.replaceAll("/", "\\")],
    env: wine.env,
    cwd: join(node, "project"),
    files: testsIn(lab.project),
    count: countTap,
    // What a file that was cut short has left is in no process group of ours.
    afterCut: wine.stop,
  });
  return { version: `node ${version.slice(1)}, ${wine.version}`, ...result };
}

/** One drive for all. */
async function prepareWine(lab) {
  lab.shared.wine ??= makeWindowsDrive(lab);
  return await lab.shared.wine;
}

async function makeWindowsDrive(lab) {
  const WINEPREFIX = join(lab.directory, "wine");
  mkdirSync(WINEPREFIX, { recursive: true });
  // No menu entries in this user's home, and none of the parts that Wine would ask to download.
  const WINEDLLOVERRIDES = "winemenubuilder.exe=d;mscoree=d;mshtml=d";
  // TMPDIR as it is: with another one, Wine would start a second server for the same drive.
  const env = { WINEPREFIX, WINEDLLOVERRIDES, WINEDEBUG: "-all", DISPLAY: "", TMPDIR: process.env.TMPDIR };
  // -k ends all that runs there, -w waits until it has.
  const stop = () => {
    for (const flag of ["-k", "-w"]) {
      spawnSync("wineserver", [flag], { env: { ...process.env, ...env }, stdio: "ignore", timeout: SETUP });
    }
  };
  lab.defer(stop);
  lab.progress("preparing a Windows drive");
  await mustRun("wineboot", ["-i"], { env, limit: SETUP });
  // Node does not start on what Wine takes itself for.
  await mustRun("wine", ["reg", "add", "HKCU\\Software\\Wine", "/v", "Version", "/d", "win10", "/f"], {
    env,
    limit: SETUP,
  });
  const [version = "wine"] = /wine-[\d.]+/.exec(await mustRun("wine", ["--version"], { env, limit: SETUP })) ?? [];
  return { env, stop, version };
}

async function loadOnMusl(lab, { arch, target, through }) {
  const addon = join(
    lab.project,
    "node_modules",
    "gateway-lock",
    "prebuilds",
    `linux-${arch}`,
    "gateway-lock.musl.node",
  );
  const directory = join(lab.directory, `musl-${arch}`);
  mkdirSync(directory);
  const imports = new Set(readFileSync(addon, "latin1").match(/\b(napi|node_api)_\w+/g));
  imports.delete("napi_register_module_v1");
  const stubs = join(directory, "node-api.c");
  writeFileSync(stubs, [...imports].map((name) => `void ${name}(void) {}\n`).join(""));
  const program = join(directory, "musl-load");
  const sources = [join(lab.root, "test", "fixtures", "musl-load.c"), stubs];
  // Without optimization Zig adds checks of its own, which need a newer musl than Debian's.
  const flags = ["-target", target, "-O2", "-dynamic", "-rdynamic", "-o", program];
  installLocked(TOOLS, () => lab.progress("installing the compiler into scripts/prebuild (400 MB)"));
  runZig(["cc", ...flags, ...sources]);
  const [command, ...args] = [...through, program, addon];
  const { status, output } = await run(command, args, { limit: SETUP });
  const isLoaded = status === 0 && output.trim() === "loaded";
  if (!isLoaded) lab.show(output);
  return { version: `musl ${arch}`, ...NONE, [isLoaded ? "passed" : "failed"]: 1 };
}

/** Debian's, with apt's lists in a directory of our own: the machine learns of no second architecture. */
async function installMuslArm64(lab) {
  const home = join(lab.cache, "musl-arm64");
  if (existsSync(home)) return home;
  const apt = join(lab.directory, "apt");
  mkdirSync(join(apt, "lists", "partial"), { recursive: true });
  mkdirSync(join(apt, "cache", "archives", "partial"), { recursive: true });
  const settings = [
    "APT::Architecture=arm64",
    "APT::Architectures=arm64",
    "APT::Sandbox::User=",
    "Acquire::Languages=none",
    `Dir::State::lists=${join(apt, "lists")}`,
    "Dir::State::status=/dev/null",
    `Dir::Cache=${join(apt, "cache")}`,
  ].flatMap((setting) => ["-o", setting]);
  await mustRun("apt-get", ["-qq", ...settings, "update"], { limit: SETUP });
  await mustRun("apt-get", ["-qq", ...settings, "download", "musl"], { cwd: apt, limit: SETUP });
  const file = readdirSync(apt).find((name) => name.endsWith(".deb"));
  const unpacked = join(apt, "root");
  await mustRun("dpkg-deb", ["-x", join(apt, file), unpacked], { limit: SETUP });
  cpSync(unpacked, home, { recursive: true, verbatimSymlinks: true });
  return home;
}
