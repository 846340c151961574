// What `gateway-lock run` runs in the chaos: it has the claim for as long as it lives, and says so in the journal. { journal, resources }

import { createServer } from "node:http";
import { note } from "./world.mjs";

const { journal, resources } = JSON.parse(process.argv[2]);
const id = `${process.pid}.run`;
createServer((_, response) => response.end(`${process.pid} run`)).listen({ fd: 3 });
process.stdout.write(`${process.pid}\n`);
note(journal, "own", { id, resources, run: process.env.CHAOS_RUN });
setInterval(() => note(journal, "beat", { id }), 1);
process.on("SIGTERM", () => {
  note(journal, "disown", { id, why: "SIGTERM" });
  process.exit(0);
});
