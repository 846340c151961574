// What all of these programs share: `<program> measured|partner <directory> <operations>`; a partner goes on until its stdin ends.

const [role, directory, operations] = process.argv.slice(2);

/** `measured(directory, operations)` ends by itself. `partner(directory)` says what it is doing when it resolves, and then goes on. */
export async function drive({ measured, partner }) {
  if (role === "measured") return await measured(directory, Number(operations));
  // However whoever started it ends: its end of the pipe is closed then.
  process.stdin.on("end", () => process.exit()).resume();
  await partner(directory);
  process.stdout.write("ready\n");
}
