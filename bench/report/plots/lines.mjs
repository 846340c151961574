// A panel with a line for each subject over the number of processes, each named where it ends.

import { clamp, countScale, position } from "./scale.mjs";
import { colour, lookOf } from "./theme.mjs";

const WIDTH = 470;
const HEIGHT = 210;
const LINE_OF_TEXT = 14;
const LABEL_AT = WIDTH + 30;

/** `series`: [{ subject, points: [{ count, value }] }]; `scale` is that of the values. */
export function linesPanel({ title, counts, scale, series }) {
  const across = countScale(counts);
  const points = series.flatMap(({ subject, points }) => {
    const { colour, shape, width } = lookOf(subject);
    const size = width > 2 ? 55 : 30;
    return points.map(({ count, value }) => ({ subject, count, value: clamp(scale, value), colour, shape, size }));
  });
  const axis = (values, labelExpr, title) => ({ title, values, labelExpr, grid: true });
  const x = {
    field: "count",
    type: "quantitative",
    scale: { type: "log", domain: across.domain, nice: false, zero: false },
    axis: axis(across.values, across.labelExpr, "processes"),
  };
  const y = {
    field: "value",
    type: "quantitative",
    scale: { type: scale.type, domain: scale.domain, nice: false, zero: false },
    axis: { ...axis(scale.values, scale.labelExpr, null), minExtent: 52 },
  };
  const raw = (field) => ({ field, type: "nominal", scale: null });
  const pixels = (field) => ({ field, type: "quantitative", scale: null });
  const labels = labelsOf(series, across, scale);
  // Ours last, so that it lies on top.
  const ordered = series.toSorted((a, b) => lookOf(a.subject).width - lookOf(b.subject).width);
  return {
    title: { text: title, offset: 10, frame: "group" },
    width: WIDTH,
    height: HEIGHT,
    layer: [
      ...ordered.map(({ subject }) => ({
        data: { values: points.filter((point) => point.subject === subject) },
        mark: {
          type: "line",
          stroke: lookOf(subject).colour,
          strokeWidth: lookOf(subject).width,
          strokeDash: lookOf(subject).dash,
        },
        encoding: { x, y },
      })),
      {
        data: { values: ordered.flatMap(({ subject }) => points.filter((point) => point.subject === subject)) },
        mark: { type: "point", filled: true, opacity: 1 },
        encoding: { x, y, fill: raw("colour"), shape: raw("shape"), size: pixels("size") },
      },
      {
        data: { values: labels },
        mark: { type: "rule", strokeWidth: 0.8, opacity: 0.6 },
        encoding: {
          x: pixels("fromX"),
          x2: pixels("toX"),
          y: pixels("fromY"),
          y2: pixels("toY"),
          stroke: raw("colour"),
        },
      },
      ...[400, 600, 700].map((weight) => ({
        data: { values: labels.filter((label) => label.weight === weight) },
        mark: { type: "text", align: "left", fontSize: 11.5, fontWeight: weight },
        encoding: { x: { value: LABEL_AT }, y: pixels("toY"), text: { field: "subject" }, fill: raw("colour") },
      })),
      ...(series.length === 0 ? [nothing()] : []),
    ],
  };
}

function labelsOf(series, across, scale) {
  const labels = series.map(({ subject, points }) => {
    const { count, value } = points.at(-1);
    const { colour, weight } = lookOf(subject);
    const y = HEIGHT * (1 - position(scale, clamp(scale, value)));
    return { subject, colour, weight, fromX: WIDTH * position(across, count) + 5, fromY: y, toX: LABEL_AT - 4, toY: y };
  });
  return spread(labels);
}

/** Moves labels apart as little as it can, downwards first, then up from the bottom. */
function spread(labels) {
  const place = ({ fromY }) => Math.round(fromY / (LINE_OF_TEXT / 2));
  const sorted = labels.toSorted((a, b) => place(a) - place(b) || b.weight - a.weight || a.fromY - b.fromY);
  let least = 0;
  for (const label of sorted) {
    label.toY = Math.max(label.toY, least);
    least = label.toY + LINE_OF_TEXT;
  }
  let most = HEIGHT;
  for (const label of sorted.toReversed()) {
    label.toY = Math.min(label.toY, most);
    most = label.toY - LINE_OF_TEXT;
  }
  return sorted;
}

function nothing() {
  return {
    data: { values: [{}] },
    mark: { type: "text", fontSize: 11, fontStyle: "italic", color: colour.faint },
    encoding: { x: { value: WIDTH / 2 }, y: { value: HEIGHT / 2 }, text: { value: "nothing measured" } },
  };
}
