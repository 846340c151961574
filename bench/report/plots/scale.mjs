// Axes: where they begin and end, and which values are written.

import { figure } from "../figures.mjs";

const STEPS = [1, 2, 5];
/** Whoever spans more gets only powers of ten. */
const FEW_DECADES = 2;
const MANY_DECADES = 5;

/** Of positive values; what is zero or less is drawn at the axis' beginning. */
export function logScale(values, unit) {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value));
  const [least, most] = positive.length === 0 ? [1, 1] : [Math.min(...positive), Math.max(...positive)];
  const hasNone = positive.length < values.length;
  const domain = [stepBelow(least * (hasNone ? 0.5 : 0.95)), stepAbove(most * 1.05)];
  return { type: "log", domain, ...labelled(logTicks(domain), unit) };
}

export function linearScale(domain, ticks, unit) {
  return { type: "linear", domain, ...labelled(ticks, unit) };
}

/** Even steps between the numbers that were tried: 2, 4, 8 … */
export function countScale(counts) {
  const [first, last] = [counts[0], counts.at(-1)];
  const domain = first === last ? [first / 2, last * 2] : [first, last];
  return { type: "log", domain, ...labelled(counts, "count") };
}

/** A share of the axis' length. */
export function position({ type, domain }, value) {
  const [from, until, at] = type === "log" ? [...domain, value].map(Math.log) : [...domain, value];
  return (at - from) / (until - from);
}

/** On the axis, where it would lie outside. */
export function clamp({ domain: [from, until] }, value) {
  return Math.min(until, Math.max(from, value));
}

function labelled(values, unit) {
  const labels = Object.fromEntries(values.map((value) => [String(value), figure(value, unit)]));
  return { values, labelExpr: `(${JSON.stringify(labels)})[datum.value]` };
}

function decadeOf(value) {
  return Math.floor(Math.log10(value) + 1e-9);
}

function power(decade, step = 1) {
  return Number(`${step}e${decade}`);
}

function stepBelow(value) {
  const decade = decadeOf(value);
  return power(decade, STEPS.findLast((step) => power(decade, step) <= value) ?? 1);
}

function stepAbove(value) {
  const decade = decadeOf(value);
  const step = STEPS.find((step) => power(decade, step) >= value);
  return step === undefined ? power(decade + 1) : power(decade, step);
}

function logTicks([from, until]) {
  const decades = Math.log10(until / from);
  const ticks = [];
  for (let decade = decadeOf(from); decade <= decadeOf(until); decade++) {
    if (decades > MANY_DECADES && decade % 2 !== 0) continue;
    for (const step of decades <= FEW_DECADES ? STEPS : [1]) ticks.push(power(decade, step));
  }
  return ticks.filter((tick) => tick >= from && tick <= until);
}
