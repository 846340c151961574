// Where there is no addon: what is said, when, and that nothing has happened.

import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryDirectory } from "./support/temporary.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** The package as it is installed, with the prebuilt addons that `fill` puts there; runs `program` beside it. */
function runWith(
  fill: (prebuilds: string) => void,
  program: string,
  env: NodeJS.ProcessEnv = {},
): { stdout: string; directory: string } {
  const directory = temporaryDirectory();
  const installed = join(directory, "node_modules", "gateway-lock");
  mkdirSync(join(installed, "prebuilds"), { recursive: true });
  for (const part of ["dist", "package.json"]) cpSync(join(ROOT, part), join(installed, part), { recursive: true });
  symlinkSync(join(ROOT, "node_modules", "node-gyp-build"), join(directory, "node_modules", "node-gyp-build"));
  fill(join(installed, "prebuilds"));
  writeFileSync(join(directory, "program.mjs"), `import * as lock from "gateway-lock";\n${program}`);
  const { stdout, stderr } = spawnSync(process.execPath, ["program.mjs"], {
    cwd: directory,
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  return { stdout: stdout + stderr, directory };
}

const TRY = `
const report = (error) => console.log(JSON.stringify({ code: error.code, message: error.message, cause: error.cause?.message }));
try { lock.tryLockFile("file.lock"); } catch (error) { report(error); }
await lock.acquireGateway({ stateDir: "state" }).catch(report);
`;

test("without a binary for this system, every call names the system, its C library and the command that builds one", () => {
  const { stdout, directory } = runWith(() => {}, TRY);
  const [first, second] = stdout.trim().split("\n");
  const error = JSON.parse(first ?? "");
  const libc = existsSync("/etc/alpine-release") ? "musl" : "glibc";
  const target = `${process.platform}-${process.arch}${process.platform === "linux" ? ` (${libc})` : ""}`;
  expect(error.code).toBe("ERR_GATEWAY_LOCK_ADDON");
  expect(error.message).toContain(`gateway-lock has no native addon for ${target}`);
  expect(error.message).toMatch(
    / npm --prefix "(.*gateway-lock)" install --ignore-scripts && npm --prefix "\1" run build:native$/,
  );
  expect(JSON.parse(second ?? "").code).toBe("ERR_GATEWAY_LOCK_ADDON");
  expect(existsSync(join(directory, "file.lock"))).toBe(false);
  expect(existsSync(join(directory, "state"))).toBe(false);
});

test("a binary that is none is refused with the loader's own words", () => {
  const { stdout } = runWith((prebuilds) => {
    const folder = join(prebuilds, `${process.platform}-${process.arch}`);
    mkdirSync(folder);
    writeFileSync(join(folder, "gateway-lock.glibc.node"), "not a binary");
    writeFileSync(join(folder, "gateway-lock.musl.node"), "not a binary");
  }, TRY);
  const error = JSON.parse(stdout.split("\n")[0] ?? "");
  expect(error.code).toBe("ERR_GATEWAY_LOCK_ADDON");
  expect(error.message).toContain("does not load");
  expect(error.message).toContain(error.cause);
});

test("a libc that the environment has wrong is named, because building would not help", () => {
  const { stdout } = runWith(() => {}, TRY, { LIBC: "other" });
  expect(JSON.parse(stdout.split("\n")[0] ?? "").message).toMatch(/because LIBC=other is set .*: unset it$/);
});

test("a system that is none of ours is told so", () => {
  const { stdout } = runWith(
    () => {},
    `
Object.defineProperty(process, "platform", { value: "freebsd" });
try { lock.tryLockFile("file.lock"); } catch (error) { console.log(error.message); }
`,
  );
  expect(stdout).toContain("gateway-lock does not support freebsd-");
});

test.runIf(spawnSync("g++", ["--version"]).status === 0)("and its sources do not compile there, with a reason", () => {
  const { status, stderr } = spawnSync("g++", ["-c", "-o", "/dev/null", join(ROOT, "native/other/unsupported.cc")], {
    encoding: "utf8",
  });
  expect(status).not.toBe(0);
  expect(stderr).toContain("does not support this system");
});
