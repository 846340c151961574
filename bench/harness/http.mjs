// Asks a port by HTTP who serves it.

import { connect } from "node:net";

const RETRY = 1; // ms
const REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/** The pid that answers; null if nobody does. */
export function askOnce(port) {
  return new Promise((resolve) => {
    let answer = "";
    const socket = connect(port, "127.0.0.1", () => socket.write(REQUEST));
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

/** When another one than `old` first answers, on the clock of process.hrtime. */
export async function untilAnotherAnswers(port, old, patience, what) {
  const deadline = performance.now() + patience;
  while (performance.now() < deadline) {
    const pid = await askOnce(port);
    if (pid !== null && pid !== old) return { pid, at: process.hrtime.bigint() };
    await new Promise((resolve) => setTimeout(resolve, RETRY));
  }
  throw new Error(`${what} did not serve port ${port} within ${patience / 1000} s`);
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
