// The systems that we build for: how prebuildify, zig and the binary's own header call each.

// zig's names say the oldest system that the binary runs on: glibc 2.17, and the macOS that Node 20 asks for.
export const TARGETS = [
  { platform: "linux", arch: "x64", libc: "glibc", triple: "x86_64-linux-gnu.2.17" },
  { platform: "linux", arch: "x64", libc: "musl", triple: "x86_64-linux-musl" },
  { platform: "linux", arch: "arm64", libc: "glibc", triple: "aarch64-linux-gnu.2.17" },
  { platform: "linux", arch: "arm64", libc: "musl", triple: "aarch64-linux-musl" },
  { platform: "darwin", arch: "arm64", triple: "aarch64-macos.11.0" },
  { platform: "darwin", arch: "x64", triple: "x86_64-macos.11.0" },
  { platform: "win32", arch: "x64", triple: "x86_64-windows-gnu" },
  { platform: "win32", arch: "arm64", triple: "aarch64-windows-gnu" },
].map((target) => ({
  ...target,
  name: [target.platform, target.arch, target.libc].filter(Boolean).join("-"),
  // As node-gyp-build looks for it, which knows a libc on Linux only.
  file: `${target.platform}-${target.arch}/${["gateway-lock", target.libc, "node"].filter(Boolean).join(".")}`,
}));
