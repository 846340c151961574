// A panel with a row for each subject: the median as a dot, p25 to p99 as a line, both as figures beside it.

import { figure, times } from "../figures.mjs";
import { inOrder } from "../results.mjs";
import { clamp, logScale } from "./scale.mjs";
import { colour, lookOf } from "./theme.mjs";

const WIDTH = 430;
const ROW = 23;
const LEAST_ROOM = 150;
const LETTER = 7.2;
const AXIS_GAP = 10;
const COLUMNS = [WIDTH + 70, WIDTH + 130];
const REASON_LENGTH = 66;

/** `panels`: [{ title, unit, rows: [{ label, subject, median, p25, p99, missing }] }]; the floor is one of them, or none. */
export function dotsPanels(panels) {
  const scales = scalesOf(panels);
  const longest = Math.max(...panels.flatMap(({ rows }) => rows.map(({ label }) => label.length)));
  const room = Math.max(LEAST_ROOM, longest * LETTER);
  return panels.map((panel) => dotsPanel({ ...panel, rows: inOrder(panel.rows) }, scales.get(panel.unit), room));
}

function dotsPanel({ title, unit, rows }, scale, room) {
  const measured = rows.filter(({ missing }) => missing === undefined);
  const missing = rows.filter(({ missing }) => missing !== undefined);
  const floor = measured.find(({ subject }) => subject === "floor")?.median;
  const x = {
    type: "quantitative",
    scale: { type: scale.type, domain: scale.domain, nice: false, zero: false },
    axis: { title: null, values: scale.values, labelExpr: scale.labelExpr, grid: true },
  };
  const y = {
    field: "label",
    type: "nominal",
    sort: null,
    scale: { domain: rows.map(({ label }) => label) },
    axis: yAxis(rows, room),
  };
  const values = measured.map((row) => drawn(row, scale, floor, unit));
  const painted = (channel) => ({ [channel]: { field: "colour", type: "nominal", scale: null } });
  const column = (field, at, color) => ({
    data: { values },
    mark: { type: "text", align: "right", fontSize: 11.5, color },
    encoding: { x: { value: at }, y, text: { field } },
  });
  const header = (text, at) => ({
    data: { values: [{}] },
    mark: { type: "text", align: "right", fontSize: 10.5, color: colour.faint },
    encoding: { x: { value: at }, y: { value: -8 }, text: { value: text } },
  });
  return {
    title: { text: title, offset: 8, frame: "group", dx: -room - AXIS_GAP },
    width: WIDTH,
    height: { step: ROW },
    layer: [
      {
        data: { values: floor === undefined ? [] : [{ floor: clamp(scale, floor) }] },
        mark: { type: "rule", strokeDash: [5, 4], color: colour.floor, strokeWidth: 1.2 },
        encoding: { x: { field: "floor", ...x } },
      },
      {
        data: { values },
        mark: { type: "rule", strokeWidth: 3, opacity: 0.45, strokeCap: "round" },
        encoding: { x: { field: "p25", ...x }, x2: { field: "p99" }, y, ...painted("stroke") },
      },
      {
        data: { values },
        mark: { type: "point", filled: true, opacity: 1 },
        encoding: {
          x: { field: "median", ...x },
          y,
          size: { field: "size", type: "quantitative", scale: null },
          ...painted("fill"),
        },
      },
      ...[{ stroke: colour.paper, strokeWidth: 5 }, {}].map((halo) => ({
        data: { values: missing.map(({ label, missing }) => ({ label, reason: `– ${shortened(missing)}` })) },
        mark: { type: "text", align: "left", fontSize: 11, fontStyle: "italic", color: colour.faint, ...halo },
        encoding: { x: { value: 6 }, y, text: { field: "reason" } },
      })),
      column("figure", COLUMNS[0], colour.text),
      header(measured.every(({ p25, p99 }) => p25 === p99) ? "value" : "median", COLUMNS[0]),
      ...(floor === undefined ? [] : [column("ratio", COLUMNS[1], colour.faint), header("× floor", COLUMNS[1])]),
    ],
  };
}

/** What has the same unit has the same axis, so that panels can be compared. */
function scalesOf(panels) {
  const values = new Map();
  for (const { unit, rows } of panels) {
    const measured = rows.filter(({ missing }) => missing === undefined);
    const all = measured.flatMap(({ p25, median, p99 }) => [p25, median, p99]);
    values.set(unit, [...(values.get(unit) ?? []), ...all]);
  }
  return new Map([...values].map(([unit, all]) => [unit, logScale(all, unit)]));
}

function drawn({ label, subject, median, p25, p99 }, scale, floor, unit) {
  const look = lookOf(subject);
  return {
    label,
    median: clamp(scale, median),
    p25: clamp(scale, p25),
    p99: clamp(scale, p99),
    colour: look.colour,
    size: look.weight >= 600 ? 95 : 60,
    figure: figure(median, unit),
    ratio: floor === undefined || subject === "floor" ? "" : times(median / floor),
  };
}

function yAxis(rows, room) {
  // Where all are ours, none stands out.
  const isMixed = rows.some(({ subject }) => !subject.startsWith("gateway-lock"));
  const ours = !isMixed ? [] : rows.filter(({ subject }) => subject === "gateway-lock").map(({ label }) => label);
  const isOurs = `indexof(${JSON.stringify(ours)}, datum.value) >= 0`;
  return {
    title: null,
    grid: false,
    labelFontSize: 12,
    labelPadding: AXIS_GAP,
    labelLimit: 0,
    minExtent: room,
    labelColor: { condition: { test: isOurs, value: colour.ours }, value: colour.text },
    labelFontWeight: { condition: { test: isOurs, value: 700 }, value: 400 },
  };
}

function shortened(text) {
  return text.length <= REASON_LENGTH ? text : `${text.slice(0, REASON_LENGTH - 1)}…`;
}
