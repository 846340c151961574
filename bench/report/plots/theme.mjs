// Colours that hold on white and on black paper, for eyes that see red and green alike, and what all plots have in common.

/** By what it is for: [light, dark]. Each light one is used once, because the dark ones replace them by value. */
const COLOURS = {
  paper: ["#ffffff", "#0d1117"],
  text: ["#1f2328", "#e6edf3"],
  faint: ["#59636e", "#9198a1"],
  grid: ["#dfe4ea", "#272d35"],
  ours: ["#d1242f", "#ff6a5f"],
  floor: ["#24292f", "#f0f6fc"],
  context: ["#8b949e", "#7d8590"],
};

/** Muted, and told apart by their lightness and mark too. */
const PEERS = {
  "fs-ext": { colour: ["#2f7fb8", "#6cb2e6"], shape: "square" },
  "fs-native-extensions": { colour: ["#7b68b5", "#b5a6e6"], shape: "triangle-up" },
  "os-lock": { colour: ["#2b9487", "#5cc7b9"], shape: "diamond" },
  "proper-lockfile": { colour: ["#a8842c", "#d8b866"], shape: "triangle-down" },
  lockfile: { colour: ["#a3608a", "#d79bc2"], shape: "cross" },
  "flock(1)": { colour: ["#5e7f3c", "#a3c585"], shape: "triangle-right" },
  "PID file": { colour: ["#7a6a5c", "#bfae9f"], shape: "triangle-left" },
};

export const colour = Object.fromEntries(Object.entries(COLOURS).map(([name, [light]]) => [name, light]));
export const FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif";

/** How a subject looks: { colour, shape, dash, width, weight }. */
export function lookOf(subject) {
  if (subject === "floor") return { colour: colour.floor, shape: "circle", dash: [5, 4], width: 1.6, weight: 600 };
  if (subject.startsWith("gateway-lock")) {
    const isMain = subject === "gateway-lock";
    return {
      colour: colour.ours,
      shape: "circle",
      dash: isMain ? [] : [2, 3],
      width: isMain ? 3 : 1.6,
      weight: isMain ? 700 : 400,
    };
  }
  // `proper-lockfile (stale 2 s)` is a proper-lockfile.
  const name = Object.keys(PEERS).findLast(
    (name) => subject === name || subject.startsWith(`${name} `) || subject.startsWith(`${name},`),
  );
  const peer = PEERS[name];
  if (peer === undefined) return { colour: colour.context, shape: "circle", dash: [2, 3], width: 1.4, weight: 400 };
  return { colour: peer.colour[0], shape: peer.shape, dash: [], width: 1.4, weight: 400 };
}

/** For the drawing itself: it follows the reader's scheme, wherever it is shown. */
export const STYLE = `@media (prefers-color-scheme: dark){${[
  ...Object.values(COLOURS),
  ...Object.values(PEERS).map((peer) => peer.colour),
]
  .flatMap(([light, dark]) => ["fill", "stroke"].map((name) => `[${name}="${light}"]{${name}:${dark}}`))
  .join("")}}`;

export const CONFIG = {
  background: colour.paper,
  padding: { left: 14, right: 18, top: 12, bottom: 12 },
  font: FONT,
  aria: false,
  view: { stroke: null },
  axis: {
    aria: false,
    domain: false,
    ticks: false,
    gridColor: colour.grid,
    labelColor: colour.faint,
    labelFontSize: 11,
    labelPadding: 6,
    titleColor: colour.faint,
    titleFontSize: 11,
    titleFontWeight: "normal",
    labelOverlap: false,
    labelFlush: false,
  },
  title: {
    aria: false,
    anchor: "start",
    color: colour.text,
    fontSize: 12,
    fontWeight: 600,
    subtitleColor: colour.faint,
    subtitleFontSize: 11.5,
  },
  mark: { aria: false },
};
