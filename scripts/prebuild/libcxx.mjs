// The part of libc++ that the addon needs, compiled with it: all of it would take a minute more for each system, and fill two thirds of
// the binary.

import { LIBCXX, LIBCXXABI } from "./paths.mjs";

// What is left undefined without one of these is found by the linker or by check.mjs; what is not needed, the linker leaves out.
const SOURCES = [
  ...[
    "chrono",
    "condition_variable",
    "condition_variable_destructor",
    "error_category",
    "exception",
    "functional",
    "future",
    "hash",
    "memory",
    "mutex",
    "mutex_destructor",
    "stdexcept",
    "string",
    "system_error",
    "thread",
    "verbose_abort",
  ].map((name) => `${LIBCXX}/${name}.cpp`),
  ...["abort_message", "cxa_guard", "cxa_virtual"].map((name) => `${LIBCXXABI}/${name}.cpp`),
  "scripts/prebuild/new_delete.cc",
];

const FLAGS = [
  "-std=c++23",
  "-O2",
  "-fPIC",
  "-fno-exceptions",
  "-fno-rtti",
  "-ffunction-sections",
  "-fdata-sections",
  "-fvisibility=hidden",
  "-fvisibility-inlines-hidden",
  "-fvisibility-global-new-delete=force-hidden",
  "-w",
  "-DNDEBUG",
  "-D_LIBCPP_BUILDING_LIBRARY",
  "-D_LIBCXXABI_BUILDING_LIBRARY",
  "-D_LIBCPP_DISABLE_VISIBILITY_ANNOTATIONS",
  "-D_LIBCXXABI_DISABLE_VISIBILITY_ANNOTATIONS",
  `-I${LIBCXX}`,
  `-I${LIBCXXABI}`,
];

export function libcxxFor({ platform }) {
  const threads = platform === "win32" ? [`${LIBCXX}/support/win32/thread_win32.cpp`] : [];
  return { sources: [...SOURCES, ...threads], flags: FLAGS };
}
