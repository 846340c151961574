// The other process of a path: { options, role }. An owner acquires at once and serves, a successor when it is told "go"; both say what came of it, and end with
// their standard input.

import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { acquireGateway } from "../../dist/index.js";

const { options, role } = JSON.parse(process.argv[2]);
const say = (fields) => console.log(JSON.stringify(fields));

async function acquire() {
  try {
    const gateway = await acquireGateway(options);
    gateway.handedOver.addEventListener("abort", () => say({ event: "handed over" }));
    await gateway.listen(createServer((_, response) => response.end(`${process.pid}`)));
    gateway.ready();
    say({ event: "owns" });
  } catch ({ code, message }) {
    say({ event: "refused", code, message });
  }
}

const input = createInterface({ input: process.stdin });
input.once("close", () => process.exit(0));
if (role === "owner") await acquire();
else {
  say({ event: "waits" });
  input.once("line", acquire);
}
