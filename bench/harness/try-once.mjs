// A program that wants a lock, is refused, and ends: try-once.mjs <adapter in peers/> <path>

const peer = await import(process.argv[2]);
process.exitCode = (await peer.isRefused(process.argv[3])) ? 75 : 1;
