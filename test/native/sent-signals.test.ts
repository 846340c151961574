// Proves that what a terminal sends to its whole foreground group is told from what a process sends, and that the handler that was
// there still gets everything.

import { constants } from "node:os";
import { expect } from "vitest";
import { native } from "../../lib/native.ts";
import { startCaller } from "../support/calls.ts";
import { hasPython, isLinux, itWhere } from "../support/capabilities.ts";

const { EINVAL } = constants.errno;
const it = itWhere(isLinux, "needs Linux");
const itWithTerminal = itWhere(hasPython && isLinux, "needs python3 and Linux");

// Runs a program in a session of its own on a terminal of its own, with our standard input and output. A SIGUSR1 types Ctrl-C, a
// SIGUSR2 Ctrl-\, a SIGHUP hangs up.
const ON_A_TERMINAL = `
import fcntl, os, pty, signal, sys, termios
leader, terminal = pty.openpty()
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(terminal)
signal.signal(signal.SIGUSR1, lambda *_: os.write(leader, b"\\x03"))
signal.signal(signal.SIGUSR2, lambda *_: os.write(leader, b"\\x1c"))
signal.signal(signal.SIGHUP, lambda *_: os.close(leader))
os.waitpid(child, 0)
`;

itWithTerminal("counts a signal that a process sends, and not the same one from the terminal", async () => {
  const caller = await startCaller(["python3", "-c", ON_A_TERMINAL]);
  for (const [name, key] of [
    ["SIGINT", "SIGUSR1"],
    ["SIGQUIT", "SIGUSR2"],
    ["SIGHUP", "SIGHUP"],
  ] as const) {
    await caller.call("on", name);
    expect(await caller.call("countSentSignals", [constants.signals[name]])).toBeNull();
    await caller.call("raise", name);
    expect(await caller.next("signal")).toMatchObject({ name, sent: 1 });
    caller.child.kill(key); // to the terminal, which sends it to its foreground group
    expect(await caller.next("signal")).toMatchObject({ name, sent: 0 });
  }
});

it("counts until it is asked, for each signal by itself, and goes on with the handler that was there", async () => {
  const caller = await startCaller();
  await caller.call("on", "SIGTERM");
  await caller.call("on", "SIGUSR2");
  const signals = [constants.signals.SIGTERM, constants.signals.SIGUSR2];
  expect(await caller.call("countSentSignals", signals)).toBeNull();
  expect(await caller.call("countSentSignals", signals)).toBeNull(); // of no effect
  expect(await caller.call("takeSentSignals", "SIGTERM")).toBe(0);
  caller.child.kill("SIGTERM");
  expect(await caller.next("signal")).toMatchObject({ name: "SIGTERM", sent: 1 });
  expect(await caller.call("takeSentSignals", "SIGTERM")).toBe(0);
  caller.child.kill("SIGUSR2");
  expect(await caller.next("signal")).toMatchObject({ name: "SIGUSR2", sent: 1 });
  expect(await caller.call("takeSentSignals", 0)).toBe(0);
  expect(await caller.call("takeSentSignals", 1000)).toBe(0);
});

it("has to be told when the handler was installed anew", async () => {
  const caller = await startCaller();
  await caller.call("on", "SIGTERM");
  await caller.call("countSentSignals", [constants.signals.SIGTERM]);
  await caller.call("off", "SIGTERM");
  await caller.call("on", "SIGTERM");
  caller.child.kill("SIGTERM");
  expect(await caller.next("signal")).toMatchObject({ sent: 0 });
  await caller.call("countSentSignals", [constants.signals.SIGTERM]);
  caller.child.kill("SIGTERM");
  expect(await caller.next("signal")).toMatchObject({ sent: 1 });
});

it("a signal that nobody listens to any more does what it does by default", async () => {
  const caller = await startCaller();
  await caller.call("on", "SIGTERM");
  await caller.call("countSentSignals", [constants.signals.SIGTERM]);
  await caller.call("off", "SIGTERM");
  caller.child.kill("SIGTERM");
  expect(await caller.exited).toMatchObject({ signal: "SIGTERM" });
});

it("refuses a signal without a handler, and what is no signal", () => {
  for (const signal of [constants.signals.SIGWINCH, 0, -1, 1000]) {
    expect(native().countSentSignals([signal])).toMatchObject({ errno: EINVAL, syscall: "sigaction" });
  }
});
