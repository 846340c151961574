// Which calls of a path are refused, one in each walk, and by what.

import { CALLS } from "./calls.mjs";

/** Of calls that look alike but for numbers, so many: three locks are taken alike, and a process has a thousand descriptors to look at. */
const ALIKE = 3;

/** `calls` are those of a walk without a fault. */
export function casesOf(path, calls) {
  const seen = new Map();
  return calls.flatMap(({ name, nth, line }) => {
    const shape = shapeOf(line);
    const count = (seen.get(shape) ?? 0) + 1;
    seen.set(shape, count);
    if (count > (line.includes("/proc") ? 1 : ALIKE)) return [];
    return errnosOf(name, line).map((errno) => ({ path, name, nth, errno, shape, line }));
  });
}

/** Of what is open already, nothing is missing. */
function errnosOf(name, line) {
  return line.includes("AT_EMPTY_PATH") ? CALLS.fstat : CALLS[name];
}

/** The call, its file and its flags, without what differs from walk to walk. */
export function shapeOf(line) {
  return line
    .replace(/\) += .*$/, ")")
    .replaceAll(/\/[^"]*gateway-lock-faults-\w+/g, "")
    .replaceAll(/\{st_mode=[^}]*\}|\{stx_mask=[^}]*\}|0x[0-9a-f]+/g, "…")
    .replaceAll(/\d+/g, "N")
    .slice(0, 160);
}
