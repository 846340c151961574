// Asks a port by HTTP who serves it.

import { connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

const RETRY = 1; // ms
const SILENCE = 5000; // ms
const REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/** The pid that answers; null if nobody does. */
export function askOnce(port) {
  return new Promise((resolve) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(REQUEST));
    socket.setTimeout(SILENCE, () => socket.destroy());
    socket.on("data", (data) => {
      answer += data;
      const pid = /\r\n\r\n(\d+)$/.exec(answer)?.[1];
      if (pid === undefined) return;
      resolve(Number(pid));
      socket.destroy();
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(null));
  });
}

/** When another one than `old` first answers, on the clock of process.hrtime; `successor` is the process that should. */
export async function untilAnotherAnswers(port, old, successor, patience) {
  const deadline = performance.now() + patience;
  let end;
  successor.exited.then((how) => {
    end = how;
  });
  for (;;) {
    const pid = await askOnce(port);
    if (pid !== null && pid !== old) return process.hrtime.bigint();
    if (end !== undefined) throw new Error(`${successor.what} was expected to serve port ${port}, but ${end}`);
    if (performance.now() > deadline) {
      throw new Error(`${successor.what} has not served port ${port} within ${patience / 1000} s`);
    }
    await pause(RETRY);
  }
}

/** Clients that keep their connections, each with one request answered. */
export async function connectClients(port, count) {
  const clients = Array.from({ length: count }, () => connect(port, "127.0.0.1"));
  await Promise.all(
    clients.map(
      (client) =>
        new Promise((resolve, reject) => {
          client.once("error", reject);
          client.once("data", () => {
            client.off("error", reject);
            // The server is going to be killed.
            client.on("error", () => {});
            resolve();
          });
          client.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }),
    ),
  );
  return clients;
}
