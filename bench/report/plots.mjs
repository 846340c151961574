// The plots: which figures of which scenario are drawn, and what is said beside them.

import { figure } from "./figures.mjs";
import { dotsPanels } from "./plots/dots.mjs";
import { linesPanel } from "./plots/lines.mjs";
import { linearScale, logScale } from "./plots/scale.mjs";
import { contentionOf, isMeasured, unique } from "./results.mjs";

const DOT = "dot: median; line: 25th to 99th percentile; log axis";
const FLOOR = "dashed: floor, a C program with the same system calls";
const SECTION_OF_WAIT = "0";
const BETWEEN_PANELS = 78;

/** [{ scenario, file, title, svg }], for each scenario that is there and has something to be seen. */
export async function plots(results) {
  const wanted = PLOTS.map((plot) => ({ ...plot, result: results[plot.scenario] })).filter(
    ({ result }) => result !== undefined,
  );
  if (wanted.length === 0) return [];
  const { drawSvg } = await import("./plots/svg.mjs");
  const drawn = [];
  for (const { scenario, file, title, notes, panelsOf, result } of wanted) {
    const { panels, missing, description } = panelsOf(result);
    if (panels.length === 0) continue;
    const lines = [...notes, ...floorNote(result), ...missing, ...modeNote(result)];
    const svg = await drawSvg({
      title,
      notes: lines,
      description: [...lines, ...description].join(". "),
      body: { vconcat: panels, spacing: BETWEEN_PANELS, bounds: "flush" },
    });
    drawn.push({ scenario, file, title, svg });
  }
  return drawn;
}

const PLOTS = [
  {
    scenario: "uncontended",
    file: "uncontended.svg",
    title: "Nobody else wants it: take and release",
    notes: [`${DOT}; less is better`],
    panelsOf: (result) => dots(result, byCase),
  },
  {
    scenario: "refusal",
    file: "refusal.svg",
    title: "Somebody else has it: time to be refused",
    notes: [`${DOT}; less is better`],
    panelsOf: (result) => dots(result, byCase),
  },
  {
    scenario: "contention",
    file: "contention.svg",
    title: "Acquisitions per second, by number of processes",
    notes: ["all want the same lock, and keep it for the length of the section; both axes log; more is better"],
    panelsOf(result) {
      return lines(
        unique(contended(result).map(({ section }) => section)).map((section) => ({
          title: section === "0" ? "section 0: released at once" : `section ${section.replace(/ us$/, " µs")}`,
          unit: "1/s",
          measurements: contended(result).filter((one) => one.metric === "acquisitions" && one.section === section),
        })),
      );
    },
  },
  {
    scenario: "contention",
    file: "contention-fairness.svg",
    title: "Who gets the lock, and how long they wait",
    notes: ["section 0, by number of processes; waits on log axes, less is better"],
    panelsOf(result) {
      const of = (metric) =>
        contended(result).filter((one) => one.metric === metric && one.section === SECTION_OF_WAIT);
      return lines([
        {
          title: "Jain's fairness index: 1 where all get as many",
          unit: "ratio",
          isShare: true,
          measurements: of("fairness"),
        },
        { title: "wait, median", unit: "us", measurements: of("wait") },
        { title: "wait, 99th percentile", unit: "us", field: "p99", measurements: of("wait") },
      ]);
    },
  },
  {
    scenario: "handoff",
    file: "handoff.svg",
    title: "From a release to the next owner",
    notes: [`${DOT}; less is better`],
    panelsOf: (result) => dots(result, byCase),
  },
  {
    scenario: "failover",
    file: "failover.svg",
    title: "From SIGKILL of the owner to its successor's HTTP answer",
    notes: [`${DOT}; less is better`],
    panelsOf: (result) => dots(result, byCase),
  },
  {
    scenario: "restart",
    file: "restart.svg",
    title: "Restart with clients connected: how long the port can't be bound",
    notes: [`${DOT}; less is better`],
    panelsOf: (result) =>
      dots(result, (measurement) => (measurement.metric === "blocked" ? byCase(measurement) : undefined)),
  },
  {
    scenario: "scale",
    file: "scale.svg",
    title: "Many locks, waiters, ports and sockets",
    notes: [`${DOT}; less is better`],
    panelsOf: (result) => dots(result, byUnit),
  },
  {
    scenario: "weight",
    file: "weight.svg",
    title: "What it weighs",
    notes: [`${DOT}; less is better`],
    panelsOf: (result) => dots(result, byCommand),
  },
];

/** A panel for each case and metric, a row for each subject. */
function byCase({ case: name, metric, subject }) {
  return { panel: name === metric ? name : `${name}: ${metric}`, label: subject };
}

/** The commands that start are cases of their own, and rows of one panel. */
function byCommand(measurement) {
  const { case: name, metric, subject } = measurement;
  if (metric !== "cold start") return byCase(measurement);
  const what = name.replace(/^command, /, "");
  return { panel: metric, label: what.startsWith(subject) ? what : `${subject}, ${what}` };
}

/** What has one figure alone is a row among others of its unit: no panel is worth that. */
function byUnit(measurement, all) {
  const { case: name, metric, unit } = measurement;
  const isAlone = all.filter((one) => one.case === name && one.metric === metric).length === 1;
  return isAlone ? { panel: ALONE[unit] ?? unit, label: `${name}: ${metric}` } : byCase(measurement);
}

const ALONE = { us: "time for each", ms: "time of the whole", bytes: "memory" };

function dots(result, placeOf) {
  const panels = new Map();
  for (const measurement of result.measurements) {
    const place = placeOf(measurement, result.measurements);
    if (place === undefined) continue;
    const panel = panels.get(place.panel) ?? { title: place.panel, unit: measurement.unit, rows: [] };
    panels.set(place.panel, panel);
    panel.rows.push({ ...withWhiskers(measurement), label: place.label });
  }
  const all = [...panels.values()];
  return {
    panels: dotsPanels(all.filter(({ rows }) => rows.some(({ missing }) => missing === undefined))),
    // Each stands in its row.
    missing: [],
    description: all.map(({ title, unit, rows }) => `${title}: ${rows.map((row) => said(row, unit)).join(", ")}`),
  };
}

function withWhiskers(measurement) {
  if (!isMeasured(measurement)) return { subject: measurement.subject, missing: measurement.missing ?? "not measured" };
  const { subject, median, p25 = median, p99 = median } = measurement;
  return { subject, median, p25, p99 };
}

function said({ label, median, missing }, unit) {
  return missing === undefined ? `${label} ${figure(median, unit)}` : `${label} – (${missing})`;
}

function contended(result) {
  return result.measurements.flatMap((measurement) => {
    const at = contentionOf(measurement);
    return at === undefined ? [] : [{ ...measurement, ...at }];
  });
}

function lines(wanted) {
  const panels = wanted.filter(({ measurements }) => measurements.some(isMeasured));
  const missing = new Map();
  for (const { subject, missing: reason } of panels.flatMap(({ measurements }) =>
    measurements.filter((one) => !isMeasured(one)),
  )) {
    missing.set(subject, reason ?? "not measured");
  }
  return {
    panels: panels.map(linesOf),
    missing: [...missing].map(([subject, reason]) => `– ${subject}: ${reason}`),
    description: panels.map(({ title, unit, measurements, field = "median" }) => {
      const last = Math.max(...measurements.filter(isMeasured).map(({ processes }) => processes));
      const figures = measurements
        .filter((one) => isMeasured(one) && one.processes === last)
        .map((one) => `${one.subject} ${figure(one[field], unit)}`);
      return `${title}, ${last} processes: ${figures.join(", ")}`;
    }),
  };
}

function linesOf({ title, unit, measurements, field = "median", isShare = false }) {
  const measured = measurements.filter((one) => isMeasured(one) && Number.isFinite(one[field]));
  const counts = unique(measured.map(({ processes }) => processes)).sort((a, b) => a - b);
  const series = unique(measured.map(({ subject }) => subject)).map((subject) => ({
    subject,
    points: measured
      .filter((one) => one.subject === subject)
      .sort((a, b) => a.processes - b.processes)
      .map((one) => ({ count: one.processes, value: one[field] })),
  }));
  const scale = isShare
    ? linearScale([0, 1], [0, 0.25, 0.5, 0.75, 1], unit)
    : logScale(
        measured.map((one) => one[field]),
        unit,
      );
  return linesPanel({ title, counts, scale, series });
}

function floorNote({ measurements }) {
  return measurements.some((one) => one.subject === "floor" && isMeasured(one)) ? [FLOOR] : [];
}

function modeNote({ mode }) {
  if (mode === "full") return [];
  return [mode === "smoke" ? "smoke run: the figures mean nothing" : `${mode} run: rough figures`];
}
