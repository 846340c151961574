// What several processes have logged of their turns: asked, acquired, about to release, on the clock that all of them share.

/**
 * Merges logs of triples; the turns by the time of their acquisition. Times are ns after `start`.
 *
 * @param {BigInt64Array[]} logs one for each process
 */
export function mergeTurns(logs, start) {
  const turns = logs.flatMap((log, owner) => {
    const own = [];
    for (let i = 0; i + 2 < log.length; i += 3) {
      own.push({
        owner,
        asked: Number(log[i] - start),
        acquired: Number(log[i + 1] - start),
        released: Number(log[i + 2] - start),
      });
    }
    return own;
  });
  return turns.sort((a, b) => a.acquired - b.acquired);
}

/**
 * How many turns began before an earlier one had ended. What was logged lies within what was held, so each of them is a real
 * overlap.
 */
export function countOverlaps(turns) {
  let overlaps = 0;
  let end = -Infinity;
  for (const { acquired, released } of turns) {
    if (acquired < end) overlaps++;
    end = Math.max(end, released);
  }
  return overlaps;
}

/** From one owner's release to the next one's acquisition, in ns; only where that one was waiting already. */
export function handoffs(turns) {
  const gaps = [];
  for (let i = 1; i < turns.length; i++) {
    const [before, after] = [turns[i - 1], turns[i]];
    if (before.owner === after.owner || after.asked >= before.released) continue;
    gaps.push(after.acquired - before.released);
  }
  return gaps;
}

/** Jain's index: 1 = all had as much, 1/n = one had it all. */
export function jain(shares) {
  const sum = shares.reduce((a, b) => a + b, 0);
  const squares = shares.reduce((a, b) => a + b * b, 0);
  return squares === 0 ? 0 : (sum * sum) / (shares.length * squares);
}
