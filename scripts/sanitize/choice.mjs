// Which tests run under a sanitizer: all, but for those that measure what a sanitizer changes, each with its reason.

const SLOW = "its limit of time is less than a process takes to start under ThreadSanitizer";

/** `title` is the beginning of a test's; `file` leaves out all of one. */
export const EXCLUDED = [
  { parts: ["tsan"], title: "takes no signal from the host, whose children and profiler notice nothing", reason: SLOW },
  { parts: ["tsan"], title: "ends at once with its process, 64 times, and with the right code", reason: SLOW },
  { parts: ["tsan"], title: "gives each of 32 processes the lock once, and later each its turns", reason: SLOW },
  { parts: ["tsan"], title: "ends at its timeout, and not much later", reason: SLOW },
  {
    parts: ["tsan"],
    title: "leaves nothing when its program can't be started again",
    reason: "it leaves too few descriptors for ThreadSanitizer",
  },
];

/** What touches each file of native/, in a minute: vitest's arguments. */
export const SHORT = {
  asan: [
    ...["--project", "suite", "test/native/", "test/lock/file-lock.test", "test/lock/file-lock-hazards"],
    ...["test/listener/port-sockets", "test/lock/holders"],
  ],
  tsan: ["--project", "suite", "test/native/", "test/lock/file-lock-wait"],
};
