#!/usr/bin/env node
// Stands in for node-gyp when prebuildify builds for another system: gyp says what, zig compiles it.
import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { readGyp } from "./gyp.mjs";
import { writeHostImports } from "./host-imports.mjs";
import { libcxxFor } from "./libcxx.mjs";
import { TARGETS } from "./targets.mjs";
import { runZig } from "./zig.mjs";

// prebuildify says the libc in its environment only.
const { PREBUILD_PLATFORM: platform, PREBUILD_ARCH: arch, PREBUILD_LIBC: libc } = process.env;
const target = TARGETS.find((one) => one.platform === platform && one.arch === arch && (one.libc ?? libc) === libc);
if (target === undefined || process.argv[2] !== "rebuild") {
  console.error(
    `prebuild: no 'node-gyp ${process.argv[2]}' for ${platform}-${arch}-${libc}; start it by npm run prebuild`,
  );
  process.exit(2);
}

function compileAll(sources, flags) {
  return sources.map((source) => {
    const object = resolve("build", `${source.replace(/[^\w.]/g, "_")}.o`);
    process.stderr.write(runZig(["c++", "-target", target.triple, ...flags, "-c", source, "-o", object]));
    return object;
  });
}

try {
  const { sources, compile, link } = readGyp(target);
  // zig runs in the project, so that no path in the binary says where that is; the output is in prebuildify's directory.
  const output = resolve("build/Release/gateway_lock.node");
  mkdirSync(resolve("build/Release"), { recursive: true });
  if (platform === "win32") sources.push(writeHostImports(resolve("build")));
  const headers = "-isystemscripts/prebuild/node_modules/node-api-headers/include";
  const libcxx = libcxxFor(target);
  const objects = [...compileAll(sources, ["-fPIC", ...compile, headers]), ...compileAll(libcxx.sources, libcxx.flags)];
  // Not "c++", which would take all of libc++. Without -O2, zig makes a build for debugging, with the time in it on Windows.
  process.stderr.write(runZig(["cc", "-target", target.triple, "-O2", "-shared", "-o", output, ...objects, ...link]));
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
