// Which tests run under a sanitizer: all, but for those that measure what a sanitizer changes, each with its reason.

const SLOW = "its limit of time is less than a process takes to start under ThreadSanitizer";

/** `title` is the beginning of a test's; `file` leaves out all of one. */
export const EXCLUDED = [
  { parts: ["tsan"], title: "takes no signal from the host, whose children and profiler notice nothing", reason: SLOW },
  { parts: ["tsan"], title: "ends at once with its process, 64 times, and with the right code", reason: SLOW },
  { parts: ["tsan"], title: "gives each of 32 processes the lock once, and later each its turns", reason: SLOW },
  {
    parts: ["asan", "tsan"],
    title: "ends at its timeout, and not much later",
    reason: "it measures by how many milliseconds a wait ends too late, and a sanitizer makes the process slow",
  },
  {
    parts: ["tsan"],
    title: "leaves nothing when its program can't be started again",
    reason: "it leaves too few descriptors for ThreadSanitizer",
  },
];

/** The addon's own tests, and those of its threads, in a minute: vitest's arguments. */
export const SHORT = {
  asan: ["--project", "suite", "test/native/", "test/lock/file-lock.test"],
  tsan: ["--project", "suite", "test/native/process-handle", "test/lock/file-lock-wait"],
};
