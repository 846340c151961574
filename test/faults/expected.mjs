// What must come of a refused call. A path that takes something either has it, held, or says by the right code why not; what only looks never says "free" for
// want of evidence; what ends goes on to its end.

const NOT_LOCKABLE = ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL"];
const isOf =
  (...names) =>
  ({ name }) =>
    names.includes(name);
const within =
  (text) =>
  ({ line }) =>
    line.includes(text);
const all =
  (...tests) =>
  (fault) =>
    tests.every((test) => test(fault));
const by =
  (...errnos) =>
  ({ errno }) =>
    errnos.includes(errno);

const STAT = isOf("newfstatat", "fstat", "stat", "lstat", "statx", "readlink");
const IN_PROC = within("/proc");
const IPV4 = within("AF_INET,");
const IPV6 = within("AF_INET6");

/** The first rule that fits decides: [which faults, the outcomes, why]. */
const TAKING = [
  [IN_PROC, ["ok"], "who else is there, or where we are: null in a record, no more"],
  [all(isOf("flock"), by(...NOT_LOCKABLE)), ["LOCK_UNSUPPORTED"], "this filesystem can't (flock(2))"],
  [all(isOf("flock"), by("EINTR")), ["ok"], "made again"],
  [all(isOf("flock"), by("EAGAIN")), ["ok", "ALREADY_RUNNING"], "somebody has it, for a moment or for long"],
  [isOf("flock"), ["LOCK_FAILED"], "neither granted nor refused"],
  [all(isOf("openat"), within("O_RDONLY|O_NONBLOCK")), ["ok"], "a record that can't be read is none (rule 2)"],
  [all(isOf("openat"), by("EINTR")), ["ok"], "made again"],
  [all(isOf("openat"), by("ENOENT")), ["ok", "LOCK_FAILED"], "a lock file is made again, a directory is not"],
  [all(isOf("mkdir"), by("EEXIST")), ["ok"], "somebody was quicker"],
  [isOf("openat", "mkdir", "statfs"), ["LOCK_FAILED"], "no lock file"],
  [isOf("pread64"), ["ok"], "a record that can't be read is none (rule 2)"],
  [all(isOf("pwrite64", "ftruncate"), by("EINTR")), ["ok"], "made again"],
  [isOf("pwrite64", "ftruncate"), ["LOCK_FAILED"], "an owner without a record is none"],
  [
    all(isOf("bind", "socket", "listen", "newfstatat", "statx", "lstat", "unlink"), within(".sock")),
    ["ok", "LOCK_FAILED"],
    "the handover's socket",
  ],
  [within("AF_UNIX"), ["LOCK_FAILED"], "the handover's socket"],
  [all(isOf("listen"), within(", 16)")), ["LOCK_FAILED"], "the handover's socket"],
  [
    all(isOf("bind", "listen"), by("EADDRINUSE")),
    ["ok"],
    "the second try has the flag, and the kernel decides (kernel-facts, 1)",
  ],
  [all(isOf("socket"), IPV6, by("EAFNOSUPPORT")), ["ok"], "a host without IPv6 has no ::1 to guard"],
  [all(isOf("bind"), IPV6, by("EADDRNOTAVAIL")), ["ok"], "a host without ::1 has nothing to guard"],
  [isOf("socket", "bind", "listen", "setsockopt", "getsockname"), ["BIND_FAILED"], "no port"],
  [isOf("clone3"), ["ok", "LOCK_FAILED"], "the handover is offered later; a wait can't begin"],
  [STAT, ["ok", "LOCK_FAILED"], "a file that is not there may be made; what can't be looked at can't be trusted"],
  [isOf("unlink"), ["ok", "LOCK_FAILED"], "what can't be deleted stays, unlocked"],
];

const RULES = {
  taking: TAKING,
  // Each half of "localhost" may be missing, not both.
  "taking both": [
    [all(isOf("socket"), by("EAFNOSUPPORT")), ["ok"], "a half that the host lacks"],
    [all(isOf("bind"), by("EADDRNOTAVAIL")), ["ok"], "a half that the host lacks"],
    [IPV4, ["BIND_FAILED", "ok"], "no port"],
    ...TAKING,
  ],
  restoring: TAKING.map(([test, outcomes, why]) => [
    test,
    outcomes.map((outcome) => (outcome === "ok" ? "ok" : "LOCK_LOST")),
    why,
  ]),
  locking: [
    [within("LOCK_UN)"), ["ok"], "closing the last descriptor gives the lock back all the same"],
    [all(isOf("openat"), by("ENOENT")), ["ok", "LOCK_FAILED"], "made again, or its directory is gone"],
    [all(isOf("flock"), by("EAGAIN")), ["ok", "HELD"], "somebody has it"],
    ...TAKING,
  ],
  waiting: [
    [isOf("clone3"), ["LOCK_FAILED"], "a wait can't begin"],
    [
      () => true,
      ["ok", "LOCK_FAILED", "LOCK_UNSUPPORTED", "ALREADY_RUNNING"],
      "as for a lock; who has it is not always to be seen",
    ],
  ],
  cancelling: [[() => true, ["ALREADY_RUNNING", "LOCK_FAILED", "LOCK_UNSUPPORTED"], "nobody gets it"]],
  serving: [
    [isOf("pwrite64", "ftruncate"), ["LOCK_FAILED", "ok"], "the record can't say so"],
    [() => true, ["HANDOFF_FAILED", "ok"], "the server does not serve, and the claim stays"],
  ],
  updating: [
    [by("EINTR"), ["ok"], "made again"],
    [() => true, ["LOCK_FAILED"], "the record can't say so"],
  ],
  ending: [[() => true, ["ok"], "it goes on to its end"]],
  refused: [
    [all(isOf("flock"), by(...NOT_LOCKABLE)), ["LOCK_UNSUPPORTED"], "this filesystem can't (flock(2))"],
    [
      isOf("flock", "openat", "mkdir", "statfs", "statx", "readlink"),
      ["ALREADY_LISTENING", "LOCK_FAILED"],
      "one or the other, never in",
    ],
    [() => true, ["ALREADY_LISTENING"], "who has it, as far as it can be seen"],
  ],
  looking: [[() => true, ["ok"], "less is seen, and nothing is called free"]],
  binding: [
    [all(isOf("bind", "listen"), by("EADDRINUSE")), ["ok"], "the second try has the flag, and the kernel decides"],
    [all(isOf("socket"), by("EAFNOSUPPORT")), ["ok"], "a half of localhost that the host lacks"],
    [all(isOf("bind"), by("EADDRNOTAVAIL")), ["ok"], "a half of localhost that the host lacks"],
    [() => true, ["BIND_FAILED"], "no port"],
  ],
  "taking over": [
    [
      all(isOf("flock"), by(...NOT_LOCKABLE)),
      ["LOCK_UNSUPPORTED", "HANDOVER_FAILED", "ok"],
      "this filesystem can't, or the lock is given by the owner",
    ],
    [
      () => true,
      ["ok", "HANDOVER_FAILED", "LOCK_FAILED", "ALREADY_LISTENING", "BIND_FAILED"],
      "one of two owns, and says so",
    ],
  ],
  "handing over": [
    [() => true, ["ok", "HANDOVER_FAILED", "ALREADY_LISTENING", "ALREADY_RUNNING"], "one of two owns, and says so"],
  ],
};

/** `fault` is the call as it was made: `{ name, errno, line }`. */
export function expectedOf(kind, fault) {
  const rule = RULES[kind].find(([test]) => test(fault));
  if (rule === undefined) throw new Error(`no rule for ${fault.errno} of ${fault.line} when ${kind}`);
  return rule[1];
}

const MESSAGES = {
  HELD: /^somebody has it$/,
  ALREADY_LISTENING: /^another gateway instance is already listening on ws:\/\/127\.0\.0\.1:\d+$/,
  ALREADY_RUNNING: /^gateway already running \(pid (\d+|unknown)\); lock timeout after \d+ms$/,
  BIND_FAILED: /^failed to bind gateway socket on ws:\/\/\S+:\d+: /,
  HANDOFF_FAILED: /^failed to hand the gateway socket to the server: /,
  HANDOVER_FAILED: /^the running gateway did not hand over: /,
  LOCK_UNSUPPORTED: /^the filesystem at \/\S+ \(.+\) cannot hold a lock: /,
  LOCK_FAILED: /^failed to acquire gateway lock at \/\S+: /,
  LOCK_LOST: /^the gateway lock at \/\S+ was lost: /,
};

/** Whether the message is the contract's, and it or its cause names the errno. */
export function isClear({ outcome, message, cause }, errno) {
  if (outcome === "ok") return true;
  if (!MESSAGES[outcome]?.test(message)) return false;
  // What somebody else has, and what he says, is nobody's errno.
  if (["HELD", "ALREADY_LISTENING", "ALREADY_RUNNING", "HANDOVER_FAILED"].includes(outcome)) return true;
  // One number has two names, and pthread_create(3) one error for all that clone3(2) may say.
  const name = { EOPNOTSUPP: "ENOTSUP|EOPNOTSUPP", ENOMEM: "ENOMEM|EAGAIN" }[errno] ?? errno;
  const inWords = /symbolic link|not a directory|closed meanwhile|deleted|renamed|replaced/;
  return new RegExp(name).test(`${message} ${cause}`) || inWords.test(message);
}
