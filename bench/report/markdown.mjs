// report.md: environment, goals, what was missed and why, and for each scenario its plot, its figures and its proofs.

import { figure, percent, times } from "./figures.mjs";
import { contentionOf, inOrder, isMeasured, SCENARIOS, unique } from "./results.mjs";

const MINUTE = 60_000;
const ABOUT = {
  uncontended: [
    "Uncontended",
    "One process takes and releases a lock that nobody else wants: bare, with a 4096-byte owner record in the file, and as a whole gateway with its port. The floor is a C program that makes the same system calls; *flock only* is the least a lock can be (open, flock, close). The floor of a gateway has no port, so its goal adds `http.Server.listen`.",
  ],
  refusal: [
    "Refusal",
    "Another process is the owner and serves HTTP. How long it takes a second one to know that: in a process that runs, and as a whole process that starts, tries, is refused and exits (beside a bare Node that does nothing).",
  ],
  contention: [
    "Contention",
    "Processes want the same lock all the time, and keep it for the length of the section. Acquisitions count those of all processes together; Jain's index is 1 where each gets as many, and 1/n where one gets all.",
  ],
  handoff: [
    "Hand-off",
    "From one process's release to the moment when the next one has the lock, by one clock in all processes.",
  ],
  failover: [
    "Failover",
    "The owner is killed by SIGKILL; a second process waits for the lock, binds the port and answers HTTP. From the kill to the first answer.",
  ],
  restart: [
    "Restart",
    "The owner dies with clients connected and is started again on the same port. How long the bind is refused, and how often.",
  ],
  scale: ["Scale", "Many locks and waiters in one process, many ports in one gateway, many sockets on the host."],
  weight: ["Weight", "What an installation, an import and the start of a command cost."],
};

/**
 * `plots` and `profiles`: those that are there.
 * @param {{ results: any, goals: any[], plots?: { scenario: string, file: string, title: string }[], profiles?: Record<string, any> }} report
 */
export function markdown({ results, goals, plots = [], profiles = {} }) {
  const known = SCENARIOS.filter((scenario) => results[scenario] !== undefined);
  const parts = [
    "# Benchmarks of gateway-lock",
    ...modeOf(known.map((scenario) => results[scenario])),
    "## Environment",
    environmentTable(known.map((scenario) => results[scenario])),
    "## Goals",
    goalsTable(goals),
    ...goals.filter(({ met }) => met === false).flatMap((goal) => missed(goal, profiles[goal.id])),
    ...known.flatMap((scenario) => section(results[scenario], plots)),
  ];
  return `${parts.join("\n\n")}\n`;
}

function modeOf(results) {
  const modes = unique(results.map(({ mode }) => mode));
  const told =
    modes.length === 1
      ? `Mode: **${modes[0]}**.`
      : `Modes: ${results.map(({ scenario, mode }) => `${scenario} ${mode}`).join(", ")}.`;
  const starts = results.map(({ startedAt }) => startedAt).filter((at) => at !== undefined);
  const took = results.reduce((sum, { durationMs = 0 }) => sum + durationMs, 0);
  const when = starts.length === 0 ? "" : ` Started ${starts.toSorted()[0]}, took ${lasting(took)}.`;
  const warning = modes.includes("smoke")
    ? " **A smoke run only shows that everything runs: its figures mean nothing.**"
    : modes.some((mode) => mode !== "full")
      ? " **The figures of a quick run are rough**: few rounds, wide spread."
      : "";
  return [
    `${told}${when}${warning}`,
    "All subjects of a scenario were measured in one run, in turns. *Spread* is from the lowest to the highest median of a round; “–” is what a subject can't do, or was not measured.",
  ];
}

function lasting(ms) {
  return ms < 2 * MINUTE ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / MINUTE)} min`;
}

function environmentTable(results) {
  const rows = new Map();
  for (const { environment } of results) {
    for (const [name, value] of Object.entries(environment)) {
      const text = environmentText(name, value);
      rows.set(name, unique([...(rows.get(name) ?? []), text]));
    }
  }
  // The load differs at the start of each scenario.
  const lines = [...rows].map(([name, values]) => [worded(name), values.join("; ")]);
  return table(["", ""], lines);
}

function worded(name) {
  const words = name.replace(/([a-z])([A-Z])/g, "$1 $2");
  return words === words.toUpperCase()
    ? words
    : words
        .toLowerCase()
        .replace(/^cpu\b/, "CPU")
        .replace(/^node$/, "Node");
}

function environmentText(name, value) {
  if (value === null || value === undefined) return "–";
  if (Array.isArray(value)) return value.map((one) => environmentText(name, one)).join(", ");
  if (typeof value === "object") {
    return Object.entries(value)
      .map(([key, one]) => `${key} ${environmentText(key, one)}`)
      .join(", ");
  }
  if (typeof value !== "number") return String(value);
  return /memory|bytes/i.test(name) ? figure(value, "bytes") : figure(value, "count");
}

function goalsTable(goals) {
  const rows = goals.flatMap(({ what, conditions }) =>
    conditions.map(({ limit, value, met }, index) => [index === 0 ? what : "", value, limit, MET.get(met)]),
  );
  return table(["goal", "measured", "limit", ""], rows);
}

const MET = new Map([
  [true, "met"],
  [false, "**missed**"],
  [null, "–"],
]);

function missed({ id, what, conditions }, profile) {
  const sentences = conditions.filter(({ met }) => met === false).map(({ sentence }) => sentence);
  return [
    `**Missed — ${what}:** ${sentences.join("; ")}.`,
    ...(profile === undefined ? [] : profileTables(id, profile)),
    "What each step is for stands in [docs/design.md](../../docs/design.md#what-it-costs).",
  ];
}

function profileTables(id, { operation, functions, systemCalls, note }) {
  const parts = [`Where the time goes (profile of \`${id}\`, ${operation}):`];
  if (functions.length > 0) {
    const rows = functions.map(({ name, place, share }) => [
      `\`${name}\``,
      place === "" ? "" : `\`${place}\``,
      percent(share),
    ]);
    parts.push(table(["function", "place", "of the time"], rows, 2));
  }
  if (systemCalls.length > 0) {
    const rows = systemCalls.map(({ name, perOperation, share }) => [
      `\`${name}\``,
      figure(perOperation, "count"),
      percent(share),
    ]);
    parts.push(table(["system call", "for each operation", "of their time, waits apart"], rows, 1));
  }
  if (note !== undefined) parts.push(note);
  return parts;
}

function section(result, plots) {
  const [heading, about] = ABOUT[result.scenario];
  const images = plots
    .filter(({ scenario }) => scenario === result.scenario)
    .map(({ title, file }) => `![${title}](${file})`);
  return [`## ${heading}`, about, ...(result.notes ?? []), ...images, ...tables(result), ...proofs(result)];
}

/** One for each case, with a row for each subject of each metric. */
function tables(result) {
  if (result.scenario === "contention") return contentionTables(result);
  const metrics = groupBy(result.measurements, ({ case: name, metric }) => JSON.stringify([name, metric])).map(
    ([, group]) => group,
  );
  const compared = groupBy(
    metrics.filter(({ length }) => length > 1),
    ([{ case: name }]) => name,
  );
  const alone = metrics.filter(({ length }) => length === 1).flat();
  return [...compared.flatMap(caseTable), ...(alone.length === 0 ? [] : flatTable(alone))];
}

function caseTable([name, groups]) {
  const notes = new Notes();
  const hasFloor = groups.some((group) => floorOf(group) !== undefined);
  const rows = groups.flatMap((group) => {
    const floor = floorOf(group) ?? (hasFloor ? Number.NaN : undefined);
    return inOrder(group).map((one, index) => [
      index === 0 ? one.metric : "",
      one.subject,
      ...cells(one, floor, notes),
    ]);
  });
  const columns = ["metric", "subject", "median", "p99", "spread", ...(hasFloor ? ["× floor"] : [])];
  if (groups.length > 1) return [`**${name}**`, filledTable(columns, rows, 2), ...notes.lines()];
  const metric = groups[0][0].metric;
  const [own, ownColumns] = [rows.map((cells) => cells.slice(1)), columns.slice(1)];
  return [`**${name === metric ? name : `${name}: ${metric}`}**`, filledTable(ownColumns, own, 1), ...notes.lines()];
}

/** What has one figure alone. */
function flatTable(measurements) {
  const notes = new Notes();
  const rows = measurements.map((one) => [one.case, one.metric, one.subject, ...cells(one, undefined, notes)]);
  return [filledTable(["case", "metric", "subject", "median", "p99", "spread"], rows, 3), ...notes.lines()];
}

/** Counts and sizes have neither p99 nor spread, and are no medians. */
function filledTable(columns, rows, numbersFrom) {
  const kept = columns.map(
    (_, index) => rows.some((cells) => !["", "–"].includes(cells[index])) || index <= numbersFrom,
  );
  const isKept = (_, index) => kept[index];
  const isSingle = !columns.some((name, index) => name === "p99" && kept[index]);
  const named = columns.map((name) => (isSingle && name === "median" ? "value" : name));
  return table(
    named.filter(isKept),
    rows.map((cells) => cells.filter(isKept)),
    numbersFrom,
  );
}

function cells(one, floor, notes) {
  const ratio = floor === undefined ? [] : [isMeasured(one) ? times(one.median / floor) : "–"];
  if (!isMeasured(one)) return [notes.mark(one), "–", "–", ...ratio];
  const { median, p99, unit, n } = one;
  return [figure(median, unit), n === 1 || p99 === undefined ? "" : figure(p99, unit), spread(one), ...ratio];
}

function spread({ rounds = [], unit, n }) {
  if (n === 1 || rounds.length < 2) return "";
  const [least, most] = [Math.min(...rounds), Math.max(...rounds)].map((value) => figure(value, unit));
  if (least === most) return least;
  const [number, name] = least.split(" ");
  return most.endsWith(` ${name}`) ? `${number} – ${most}` : `${least} – ${most}`;
}

function floorOf(group) {
  return group.find((one) => one.subject === "floor" && isMeasured(one))?.median;
}

/** Numbers of processes as columns, a table for each metric: what the goals are about first, the rest folded away. */
function contentionTables({ measurements }) {
  const all = measurements.flatMap((one) => {
    const at = contentionOf(one);
    return at === undefined ? [] : [{ ...one, ...at }];
  });
  return groupBy(all, ({ section }) => section).flatMap(([name, group], index) => {
    const title = `section ${name.replace(/ us$/, " µs")}`;
    const isShown = ({ metric }) => index === 0 && SHOWN.has(metric);
    const [shown, folded] = [true, false].map((wanted) =>
      metricTables(
        group.filter((one) => isShown(one) === wanted),
        title,
      ),
    );
    if (folded.length === 0) return shown;
    const summary = `<details><summary>${title}: ${unique(group.filter((one) => !isShown(one)).map(({ metric }) => metric)).join(", ")}</summary>`;
    return [...shown, summary, ...folded, "</details>"];
  });
}

const SHOWN = new Set(["acquisitions", "fairness"]);

function metricTables(group, title) {
  return groupBy(group, ({ metric }) => metric).flatMap(([metric, ones]) => metricTable(metric, ones, title));
}

function metricTable(metric, ones, title) {
  const counts = unique(ones.map(({ processes }) => processes)).sort((a, b) => a - b);
  const notes = new Notes();
  const subjects = unique(
    inOrder(ones.filter(({ processes }) => processes === counts[0])).map(({ subject }) => subject),
  );
  const rows = unique([...subjects, ...ones.map(({ subject }) => subject)]).map((subject) => {
    const cell = (count) => {
      const one = ones.find((each) => each.subject === subject && each.processes === count);
      if (one === undefined) return "–";
      if (!isMeasured(one)) return notes.mark(one);
      return contendedCell(one, floorOf(ones.filter(({ processes }) => processes === count)));
    };
    return [subject, ...counts.map(cell)];
  });
  const columns = ["processes", ...counts.map(String)];
  return [`**${metric}, ${title}** (${CONTENDED[metric] ?? "median"})`, table(columns, rows, 1), ...notes.lines()];
}

const CONTENDED = { acquisitions: "median of the rounds; × floor", wait: "median; p99", fairness: "Jain's index" };

function contendedCell({ metric, subject, median, p99, unit }, floor) {
  const own = figure(median, unit);
  if (metric === "acquisitions" && floor !== undefined && subject !== "floor")
    return `${own}; ${times(median / floor)}`;
  return metric === "wait" && p99 !== undefined ? `${own}; ${figure(p99, unit)}` : own;
}

function proofs({ proofs }) {
  if (proofs.length === 0) return [];
  const rows = proofs.map(({ claim, subject, checked, violations }) => [
    claim,
    subject,
    figure(checked, "count"),
    violations === 0 ? "0" : `**${figure(violations, "count")}**`,
  ]);
  const broken = proofs
    .filter(({ violations }) => violations > 0)
    .map(
      ({ claim, subject, checked, violations }) =>
        `**${subject}** broke “${claim}” ${figure(violations, "count")} times in ${figure(checked, "count")}.`,
    );
  return ["**Proofs**", table(["claim", "subject", "checked", "violations"], rows, 2), ...broken];
}

/** Why something is “–”: said once beneath the table, with a number. */
class Notes {
  #reasons = [];

  mark({ missing = "not measured" }) {
    if (!this.#reasons.includes(missing)) this.#reasons.push(missing);
    return `–<sup>${this.#reasons.indexOf(missing) + 1}</sup>`;
  }

  lines() {
    if (this.#reasons.length === 0) return [];
    return [
      this.#reasons
        .map((reason, index) => `<sup>${index + 1}</sup> ${escaped(reason).replaceAll("<", "&lt;")}`)
        .join("<br>\n"),
    ];
  }
}

function groupBy(list, keyOf) {
  const groups = new Map();
  for (const one of list) groups.set(keyOf(one), [...(groups.get(keyOf(one)) ?? []), one]);
  return [...groups];
}

/** Columns from `numbersFrom` on are aligned to the right. */
function table(columns, rows, numbersFrom = columns.length) {
  const rule = columns.map((_, index) => (index < numbersFrom ? "---" : "---:"));
  return [columns, rule, ...rows].map((cells) => `| ${cells.map(escaped).join(" | ")} |`).join("\n");
}

function escaped(text) {
  return String(text).replaceAll("|", "\\|").replaceAll("\n", " ");
}
