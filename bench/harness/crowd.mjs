// A process with many loopback connections, both ends of each: crowd.mjs <connections>

import { once } from "node:events";
import { connect, createServer } from "node:net";
import { say, serve } from "./serve.mjs";

const AT_ONCE = 100; // less than the queue of the listener takes

const server = createServer((socket) => socket.on("error", () => {})).listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address();
for (let left = Number(process.argv[2]); left > 0; left -= AT_ONCE) {
  const batch = Array.from({ length: Math.min(left, AT_ONCE) }, () => connect(port, "127.0.0.1"));
  await Promise.all(batch.map((socket) => once(socket, "connect")));
}
serve({});
say({ event: "connected" });
