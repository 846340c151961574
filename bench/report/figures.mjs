// How figures are written: three significant digits, in the unit that reads best.

const DIGITS = 3;
const SCALES = {
  us: [
    [1, "µs"],
    [1e3, "ms"],
    [1e6, "s"],
  ],
  ms: [
    [1e-3, "µs"],
    [1, "ms"],
    [1e3, "s"],
  ],
  s: [
    [1e-6, "µs"],
    [1e-3, "ms"],
    [1, "s"],
  ],
  bytes: [
    [1, "B"],
    [1e3, "kB"],
    [1e6, "MB"],
    [1e9, "GB"],
  ],
};

/** 12.3 µs, 60 s, 1.2 MB, 98,200/s, 0.993. */
export function figure(value, unit) {
  if (!Number.isFinite(value)) return "–";
  const scales = SCALES[unit];
  if (scales !== undefined) return scaled(value, scales);
  if (unit === "count") return value.toLocaleString("en-US", { maximumFractionDigits: 2 });
  const number = significant(value);
  if (unit === "1/s") return `${number}/s`;
  return unit === "ratio" ? number : `${number} ${unit}`;
}

function scaled(value, scales) {
  const size = Math.abs(Number(value.toPrecision(DIGITS)));
  const [factor, name] = (size === 0 ? undefined : scales.findLast(([factor]) => size >= factor)) ?? scales[0];
  return `${significant(value / factor)} ${name}`;
}

function significant(value) {
  return Number(value.toPrecision(DIGITS)).toLocaleString("en-US", { maximumSignificantDigits: DIGITS });
}

/** 1.33×, 24.6×, 2,450×. */
export function times(ratio) {
  if (!Number.isFinite(ratio)) return "–";
  const size = Math.abs(ratio);
  if (size >= 100) return `${significant(ratio)}×`;
  if (size >= 10) return `${ratio.toFixed(1)}×`;
  return `${size >= 0.1 || size === 0 ? ratio.toFixed(2) : Number(ratio.toPrecision(2))}×`;
}

/** 34 %. */
export function percent(share) {
  return `${share >= 0.1 || share === 0 ? (share * 100).toFixed(0) : (share * 100).toFixed(1)} %`;
}
