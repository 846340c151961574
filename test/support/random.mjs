// Choices that a seed decides: mulberry32 by Tommy Ettinger, written anew.

export function makeRandom(seed) {
  let state = seed >>> 0;
  /** From 0 up to, but not including, 1. */
  const fraction = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const between = (low, high) => low + fraction() * (high - low);
  return {
    fraction,
    between,
    integer: (low, high) => Math.floor(between(low, high + 1)),
    chance: (probability) => fraction() < probability,
    pick: (list) => list[Math.floor(fraction() * list.length)],
    /** One of `[weight, value]`. */
    weighted(list) {
      let left = fraction() * list.reduce((sum, [weight]) => sum + weight, 0);
      for (const [weight, value] of list) {
        left -= weight;
        if (left < 0) return value;
      }
      return list.at(-1)[1];
    },
  };
}
