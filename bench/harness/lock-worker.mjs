// A process in which one subject takes and frees a lock, a batch at a time: lock-worker.mjs <subject> <lock | record | refused> <path>

import { load } from "../peers/index.mjs";
import { now, serve } from "./serve.mjs";

const [subject, operation, path] = process.argv.slice(2);
const peer = await load(subject);
const record = Buffer.from(JSON.stringify({ pid: process.pid }).padEnd(4096));

// A promise is awaited only where there is one: the others should not pay for it.
const operations = {
  async lock() {
    const taken = peer.acquire(path);
    const freed = peer.release(taken instanceof Promise ? await taken : taken, path);
    if (freed instanceof Promise) await freed;
  },
  async record() {
    const taken = peer.acquireWithRecord(path, record);
    const freed = peer.releaseWithRecord(taken instanceof Promise ? await taken : taken, path);
    if (freed instanceof Promise) await freed;
  },
  async refused() {
    const refused = peer.isRefused(path);
    if (!(refused instanceof Promise ? await refused : refused)) {
      throw new Error(`${subject} was granted a lock that another process holds: ${path}`);
    }
  },
};
const once = operations[operation];

serve({
  async batch(count) {
    const times = [];
    for (let i = 0; i < Number(count); i++) {
      const start = now();
      await once();
      times.push(Number(now() - start));
    }
    return times;
  },
});
