// Every refusal has a stable code, fields, an exit code and exact words, and no word of them comes raw from a record.

import { writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { acquireGateway } from "../lib/acquire.ts";
import {
  alreadyListening,
  alreadyRunning,
  bindFailed,
  EXIT,
  formatUrl,
  GatewayLockError,
  handOffFailed,
  lockFailed,
  lockLost,
  lockUnsupported,
  systemError,
} from "../lib/errors.ts";
import { bindExclusive } from "../lib/listener/claim.ts";
import { freePort, temporaryDirectory } from "./support/temporary.ts";

const local = { scheme: "ws", host: "127.0.0.1", port: 18789 };
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const ESC = "\u001b]0;owned\u0007\u001b[2J\n";

describe("GatewayLockError", () => {
  it("keeps code, cause and the fields that are known, and has none of the others", () => {
    const cause = new Error("why");
    const error = new GatewayLockError("ALREADY_LISTENING", "words", { cause, port: 1, host: undefined });
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: "GatewayLockError", code: "ALREADY_LISTENING", message: "words", port: 1 });
    expect(error.cause).toBe(cause);
    expect(Object.keys(error)).not.toContain("host");
    expect("cause" in new GatewayLockError("LOCK_LOST", "words")).toBe(false);
    expect(String(error)).toBe("GatewayLockError: words");
  });

  it.each([
    ["ALREADY_LISTENING", true, 75],
    ["ALREADY_RUNNING", true, 75],
    ["BIND_FAILED", false, 1],
    ["HANDOFF_FAILED", false, 1],
    ["HANDOVER_FAILED", true, 75],
    ["LOCK_UNSUPPORTED", false, 1],
    ["LOCK_FAILED", false, 1],
    ["LOCK_LOST", false, 1],
    ["NOT_HEALTHY", false, 1],
  ] as const)("says of %s whether to retry (%s) and what to exit with (%i)", (code, retryable, exitCode) => {
    expect(new GatewayLockError(code, "")).toMatchObject({ code, retryable, exitCode });
  });

  it("has the exact words of each code", () => {
    const at = "/s/locks/gateway.state.lock";
    expect(alreadyListening(local, {}).message).toBe(
      "another gateway instance is already listening on ws://127.0.0.1:18789",
    );
    expect(alreadyRunning(42, 0, {}).message).toBe("gateway already running (pid 42); lock timeout after 0ms");
    expect(alreadyRunning(null, 5000, {}).message).toBe(
      "gateway already running (pid unknown); lock timeout after 5000ms",
    );
    expect(bindFailed(local, "because", null).message).toBe(
      "failed to bind gateway socket on ws://127.0.0.1:18789: because",
    );
    expect(handOffFailed("because").message).toBe("failed to hand the gateway socket to the server: because");
    expect(lockFailed(at, "because").message).toBe(`failed to acquire gateway lock at ${at}: because`);
    expect(lockUnsupported({ directory: "/s", type: "nfs", lockPath: at }, "because").message).toBe(
      "the filesystem at /s (nfs) cannot hold a lock: because",
    );
    expect(lockLost(at, "it was deleted").message).toBe(`the gateway lock at ${at} was lost: it was deleted`);
  });

  it("carries the conflict in host, port and url", () => {
    expect(alreadyListening({ scheme: "wss", host: "::1", port: 7 }, {})).toMatchObject({
      host: "::1",
      port: 7,
      url: "wss://[::1]:7",
    });
  });
});

it.each([
  ["127.0.0.1", "ws://127.0.0.1:18789"],
  ["0.0.0.0", "ws://127.0.0.1:18789"],
  ["::1", "ws://[::1]:18789"],
  ["::", "ws://[::1]:18789"],
  ["fe80::1%eth0", "ws://[fe80::1%eth0]:18789"],
  ["192.0.2.7", "ws://192.0.2.7:18789"],
])("writes %s in a URL as %s", (host, url) => {
  expect(formatUrl("ws", host, 18789)).toBe(url);
});

it("makes of an errno the error that Node itself would make", async () => {
  const listener = bindExclusive({ host: "127.0.0.1", port: 0 });
  onTestFinished(() => listener.close());
  const fromNode = await new Promise((resolve) => {
    createServer().once("error", resolve).listen(listener.port, "127.0.0.1");
  });
  const { errno, code } = fromNode as NodeJS.ErrnoException;
  const ours = systemError({ errno: -(errno ?? 0), syscall: "bind" }, "here", "a hint");
  expect(ours).toMatchObject({ errno, code, syscall: "bind" });
  expect(ours.message).toBe("EADDRINUSE: address already in use, bind here; a hint");
});

it("has all exit codes, and they can't be changed", () => {
  expect(EXIT).toEqual({
    OK: 0,
    FAILURE: 1,
    NOT_RUNNING: 3,
    UNKNOWN: 4,
    DUPLICATE: 75,
    SUPERVISED_DUPLICATE: 78,
    TIMEOUT: 124,
  });
  expect(() => Object.assign(EXIT, { OK: 1 })).toThrow(TypeError);
});

describe("a hostile record", () => {
  /** A lock file whose record names this process, which listens, and has an escape sequence in each text. */
  async function refusedBy(fields: object) {
    const stateDir = temporaryDirectory();
    const server = createServer();
    onTestFinished(() => {
      server.close();
    });
    const port = await freePort();
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    const owner = await acquireGateway({ stateDir, port: await freePort() });
    const [lockPath = ""] = owner.lockPaths;
    expect(lockPath).toBe(join(stateDir, "locks", "gateway.state.lock"));
    writeFileSync(lockPath, JSON.stringify({ pid: process.pid, port, ...fields }));
    try {
      return await acquireGateway({ stateDir, port }).then(
        () => expect.unreachable("it was not refused"),
        (error) => error as GatewayLockError,
      );
    } finally {
      await owner.close();
    }
  }

  it.each([
    ["host", { host: `127.0.0.1${ESC}` }],
    ["url", { url: `ws://${ESC}:1` }],
    ["scheme in the url", { url: `${ESC}://127.0.0.1:1` }],
    ["zone of an address", { host: `::1%${ESC}` }],
    ["zone of an IPv6 host and url", { host: `fe80::1%${ESC}`, url: `ws${ESC}://x` }],
  ])("puts no control character of its %s into the message", async (_, fields) => {
    const error = await refusedBy(fields);
    expect(error).toMatchObject({ name: "GatewayLockError", exitCode: 75 });
    expect(error.message).not.toMatch(CONTROL);
    expect(String((error.cause as Error).message)).not.toMatch(CONTROL);
    expect(`${error.url}${error.host}`).not.toMatch(CONTROL);
  });
});
