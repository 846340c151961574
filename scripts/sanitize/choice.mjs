// Which tests run under a sanitizer: all, but for those that measure what a sanitizer changes, each with its reason.

export const EXCLUDED = [];

/** What touches each file of native/, in a minute: vitest's arguments. */
export const SHORT = {
  asan: [
    "--project",
    "suite",
    "--project",
    "alone",
    "test/native/",
    "test/lock/file-lock",
    "test/lock/wait-threads",
    "test/listener/port-sockets",
    "test/handover/handover",
  ],
  tsan: [
    "--project",
    "suite",
    "--project",
    "alone",
    "test/native/",
    "test/lock/wait-",
    "test/lock/file-lock-wait",
    "test/handover/handover",
  ],
};
