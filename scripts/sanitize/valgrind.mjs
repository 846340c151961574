// So many acquisitions under valgrind's memcheck, and what of its findings has a function of the addon in its stack.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "../commands.mjs";

const PROGRAM = fileURLToPath(new URL("acquisitions.mjs", import.meta.url));
const LIMIT = 1_200_000; // ms
/** Deep enough for Node's own frames between the addon and a callback of it. */
const FRAMES = "40";
/** What the addon has once for each environment and for the process; what grows with the acquisitions is a leak, reachable or not. */
const MOST_REACHABLE = 50; // blocks

/** Memory that Node itself loses at its start is Node's: it is counted, and is not a finding. */
export async function runValgrind(tree, acquisitions, env = {}) {
  const directory = mkdtempSync(join(tmpdir(), "gateway-lock-valgrind-"));
  const log = join(directory, "log");
  try {
    const args = ["--leak-check=full", "--show-leak-kinds=all", "--fullpath-after=", `--num-callers=${FRAMES}`];
    const { status, output } = await run(
      "valgrind",
      [...args, `--log-file=${log}`, process.execPath, PROGRAM, `${acquisitions}`, tree],
      { limit: LIMIT, env: { TMPDIR: directory, ...env } },
    );
    return { status, output, ...judge(readFileSync(log, "utf8"), tree) };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** `findings` are whole messages of memcheck; `lost` is its summary of everything, Node's included. */
export function judge(log, tree) {
  const messages = log.replaceAll(/^==\d+== ?/gm, "").split(/\n\s*\n/);
  const ours = messages.filter((message) => message.includes(`(${tree}/`));
  const reachable = ours.filter((message) => message.includes("still reachable in loss record"));
  const findings = ours.filter((message) => !reachable.includes(message));
  const blocks = reachable.reduce((sum, message) => sum + blocksIn(message), 0);
  if (blocks > MOST_REACHABLE) findings.push(...reachable);
  const lost = [...log.matchAll(/(definitely|indirectly) lost: ([\d,]+) bytes in ([\d,]+) blocks/g)].map(
    ([, kind, bytes, blocks]) => ({ kind, bytes: toNumber(bytes), blocks: toNumber(blocks) }),
  );
  if (lost.length !== 2) throw new Error(`valgrind has not come to its summary:\n${log.slice(-2000)}`);
  return { findings, reachable: blocks, lost };
}

function blocksIn(message) {
  return toNumber(/ in ([\d,]+) blocks are still reachable/.exec(message)?.[1] ?? "0");
}

function toNumber(text) {
  return Number(text.replaceAll(",", ""));
}
