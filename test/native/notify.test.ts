// Proves that a notification is one datagram, to a path or an abstract address, and never waits for its receiver.

import { constants } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { native } from "../../lib/native.ts";
import { hasPython, isLinux, itWhere } from "../support/capabilities.ts";
import { TestProcess } from "../support/processes.ts";
import { openDescriptors, temporaryDirectory } from "../support/temporary.ts";

const { EAGAIN, ECONNREFUSED, EINVAL, EMSGSIZE, ENAMETOOLONG, ENOENT } = constants.errno;
const it = itWhere(hasPython && isLinux, "needs python3 and Linux");
const LONGEST_PATH = 108; // sun_path of unix(7)

// Receives as many datagrams as it reads lines, or goes without reading.
const RECEIVER = `
import json, socket, sys
address = sys.argv[1]
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind("\\0" + address[1:] if address[0] == "@" else address)
print(json.dumps({"event": "bound"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"event": "received", "text": receiver.recv(65536).decode()}), flush=True)
`;

async function startReceiver(address: string): Promise<TestProcess> {
  const receiver = new TestProcess("python3", ["-c", RECEIVER, address]);
  await receiver.next("bound");
  return receiver;
}

function longPath(length: number): string {
  const directory = temporaryDirectory();
  return join(directory, "x".repeat(length - directory.length - 1));
}

for (const [kind, address] of [
  ["a path", () => join(temporaryDirectory(), "socket")],
  ["the longest path there is", () => longPath(LONGEST_PATH - 1)],
  ["an abstract address", () => `@gateway-lock-test-${process.pid}`],
] as const) {
  it(`reaches ${kind}, as one message, and leaves nothing open`, async () => {
    const socket = address();
    const receiver = await startReceiver(socket);
    const descriptors = openDescriptors();
    for (const message of ["READY=1\nSTATUS=grün", "STOPPING=1"]) {
      expect(native().notify(socket, message)).toBeUndefined();
      receiver.send("next");
      expect(await receiver.next("received")).toMatchObject({ text: message });
    }
    expect(openDescriptors()).toBe(descriptors);
  });
}

it("says what is wrong with an address, or with a message", async () => {
  const path = join(temporaryDirectory(), "socket");
  expect(native().notify(path, "READY=1")).toMatchObject({ errno: ENOENT, syscall: "sendto" });
  expect(native().notify("", "READY=1")).toMatchObject({ errno: EINVAL });
  expect(native().notify(longPath(LONGEST_PATH + 1), "READY=1")).toMatchObject({ errno: ENAMETOOLONG });
  expect(native().notify("@gateway-lock-test-nobody", "READY=1")).toMatchObject({ errno: ECONNREFUSED });
  const receiver = await startReceiver(path);
  expect(native().notify(path, "x".repeat(1 << 22))).toMatchObject({ errno: EMSGSIZE });
  await receiver.kill();
  expect(native().notify(path, "READY=1")).toMatchObject({ errno: ECONNREFUSED });
});

it("does not wait for a receiver that does not read", async () => {
  const MORE_THAN_ITS_QUEUE = 1000; // net.unix.max_dgram_qlen
  const path = join(temporaryDirectory(), "socket");
  await startReceiver(path);
  // If one of these waited, it would for ever.
  const results = Array.from({ length: MORE_THAN_ITS_QUEUE }, () => native().notify(path, "WATCHDOG=1"));
  expect(results[0]).toBeUndefined();
  expect(results.at(-1)).toMatchObject({ errno: EAGAIN, syscall: "sendto" });
});
