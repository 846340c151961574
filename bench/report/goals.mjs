// The goals: each one's conditions, from the results of one run.

import { figure, times } from "./figures.mjs";
import { contentionOf, find, isMeasured, isPeer, select, unique } from "./results.mjs";

const OURS = "gateway-lock";
/** They find out that an owner is dead by the age of its file. */
const WITH_STALENESS_TIMERS = ["proper-lockfile", "lockfile"];
const RESTARTS = 100;
const FAILOVER_MARGIN_MS = 20;
const IMPORT_MS = 15;
const RESIDENT_BYTES = 3_000_000;

/**
 * One for each goal: { id, scenario, what, conditions: [{ limit, value, met, sentence }], limit, value, met, sentence }.
 * `met` is null where it was not measured.
 */
export function goals(results) {
  return GOALS.map(({ id, scenario, what, conditionsOf }) => {
    const conditions = conditionsOf(results[scenario]);
    const met = conditions.some((condition) => condition.met === false)
      ? false
      : conditions.every((condition) => condition.met === true) || null;
    return {
      id,
      scenario,
      what,
      conditions,
      limit: conditions.map(({ limit }) => limit).join("; "),
      value: conditions.map(({ value }) => value).join("; "),
      met,
      sentence: `${what}: ${conditions.map(({ sentence }) => sentence).join("; ")}.`,
    };
  });
}

const GOALS = [
  {
    id: "bare",
    scenario: "uncontended",
    what: "taking and releasing a bare lock",
    conditionsOf(result) {
      const where = { case: "bare lock", metric: "acquire + release" };
      return [toFloor(result, where, 1.5), fasterThanPeers(result, where)];
    },
  },
  {
    id: "gateway",
    scenario: "uncontended",
    what: "acquiring and closing a gateway",
    conditionsOf(result) {
      const where = { case: "gateway", metric: "acquire + close" };
      const parts = ["floor", "net.Server.listen"].map((subject) => find(result, { ...where, subject }));
      const sum = parts.every((part) => part !== undefined) ? parts[0].median + parts[1].median : undefined;
      return [atMost(find(result, { ...where, subject: OURS }), sum, 2, "(floor + http.Server.listen)")];
    },
  },
  {
    id: "refusal",
    scenario: "refusal",
    what: "being refused, in a process that runs",
    conditionsOf: (result) => [toFloor(result, { case: "in process", metric: "time to know" }, 2)],
  },
  {
    id: "handoff",
    scenario: "handoff",
    what: "a released lock's way to its next owner",
    conditionsOf: (result) => [toFloor(result, { case: "2 processes", metric: "release to next owner" }, 3)],
  },
  {
    id: "throughput",
    scenario: "contention",
    what: "throughput under contention",
    conditionsOf: throughput,
  },
  {
    id: "failover",
    scenario: "failover",
    what: "from SIGKILL of the owner to its successor's HTTP answer",
    conditionsOf: failover,
  },
  {
    id: "restart",
    scenario: "restart",
    what: "restart with clients connected",
    conditionsOf: restart,
  },
  {
    id: "weight",
    scenario: "weight",
    what: "importing the package",
    conditionsOf(result) {
      return [
        below(result, "import", "ms", IMPORT_MS, "import"),
        below(result, "resident memory", "bytes", RESIDENT_BYTES, "resident memory over bare Node"),
      ];
    },
  },
];

function unmeasured(limit, why = "") {
  return { limit, value: "not measured", met: null, sentence: `${limit}: not measured${why && ` (${why})`}` };
}

function toFloor(result, where, factor) {
  const floor = find(result, { ...where, subject: "floor" });
  return atMost(find(result, { ...where, subject: OURS }), floor?.median, factor, "floor");
}

function atMost(ours, base, factor, name) {
  const limit = `≤ ${factor}× ${name}`;
  if (ours === undefined || base === undefined) return unmeasured(limit);
  const ratio = ours.median / base;
  const absolute = `${figure(ours.median, ours.unit)} against ${figure(base, ours.unit)}`;
  return {
    limit,
    value: `${times(ratio)} (${absolute})`,
    met: ratio <= factor,
    sentence: `it takes ${times(ratio)} of the ${name.replace(/[()]/g, "")} (${absolute}), ${verdict(ratio <= factor, `${factor}×`)}`,
  };
}

function verdict(isMet, limit) {
  return isMet ? `within the limit of ${limit}` : `more than the limit of ${limit}`;
}

function fasterThanPeers(result, where) {
  const limit = "faster than every peer";
  const ours = find(result, { ...where, subject: OURS });
  const peers = select(result, where).filter((measurement) => isMeasured(measurement) && isPeer(measurement));
  if (ours === undefined || peers.length === 0) return unmeasured(limit);
  const fastest = peers.reduce((best, peer) => (peer.median < best.median ? peer : best));
  const ratio = fastest.median / ours.median;
  const value = `fastest peer ${fastest.subject}: ${times(ratio)} ours`;
  const met = fastest.median > ours.median;
  return {
    limit,
    value,
    met,
    sentence: met
      ? `the fastest peer, ${fastest.subject}, takes ${times(ratio)} our time`
      : `${fastest.subject} is not slower: ${figure(fastest.median, fastest.unit)} against our ${figure(ours.median, ours.unit)} (${times(ratio)} ours)`,
  };
}

/** The worst number of processes decides each condition, and is named. */
function throughput(result) {
  const measured = (result?.measurements ?? []).filter(
    (measurement) => isMeasured(measurement) && contentionOf(measurement)?.section === "0",
  );
  const of = (metric, subject) => measured.filter((one) => one.metric === metric && one.subject === subject);
  const beside = (ours, subject) =>
    measured.find((one) => one.case === ours.case && one.metric === ours.metric && one.subject === subject);
  const rates = of("acquisitions", OURS);

  const toFloors = rates.flatMap((ours) => ratioTo(ours, beside(ours, "floor")));
  const peers = unique(measured.filter(isPeer).map(({ subject }) => subject));
  const toPeers = rates.flatMap((ours) => peers.flatMap((peer) => ratioTo(ours, beside(ours, peer))));
  const fairness = of("fairness", OURS).map((ours) => ({ ratio: ours.median, ours }));

  return [
    worst(toFloors, "≥ 0.5× floor", ({ ratio }) => ratio >= 0.5, {
      value: ({ ratio }) => times(ratio),
      sentence: ({ ratio }) => `it reaches ${times(ratio)} of the floor's rate`,
    }),
    worst(toPeers, "ahead of every peer", ({ ratio }) => ratio > 1, {
      value: ({ ratio, other }) => `${times(ratio)} ${other.subject}`,
      sentence: ({ ratio, other }) => `it reaches ${times(ratio)} of the rate of ${other.subject}, the nearest peer`,
    }),
    worst(fairness, "Jain ≥ 0.9", ({ ratio }) => ratio >= 0.9, {
      value: ({ ratio }) => figure(ratio, "ratio"),
      sentence: ({ ratio }) => `Jain's fairness index is ${figure(ratio, "ratio")}`,
    }),
  ];
}

function ratioTo(ours, other) {
  return other === undefined ? [] : [{ ratio: ours.median / other.median, ours, other }];
}

function worst(candidates, limit, isMet, { value, sentence }) {
  if (candidates.length === 0) return unmeasured(limit);
  const lowest = candidates.reduce((low, candidate) => (candidate.ratio < low.ratio ? candidate : low));
  const at = `at ${contentionOf(lowest.ours).processes} processes`;
  const met = isMet(lowest);
  return {
    limit,
    value: `${value(lowest)} ${at}`,
    met,
    sentence: `${sentence(lowest)} ${at}, its worst case${met ? "" : ` (the goal is: ${limit})`}`,
  };
}

function failover(result) {
  const where = { case: "SIGKILL to HTTP answer", metric: "failover" };
  const [ours, flock] = [OURS, "flock(1)"].map((subject) => find(result, { ...where, subject }));
  // Also `proper-lockfile (stale 2 s)`, as fast as it can be set.
  const variants = select(result, where).map(({ subject }) => subject);
  const isTimed = (subject) => WITH_STALENESS_TIMERS.some((name) => subject.startsWith(`${name} `));
  const timed = [...WITH_STALENESS_TIMERS, ...variants.filter(isTimed)];
  return [nearFlock(ours, flock), ...timed.flatMap((subject) => muchSlower(ours, result, where, subject))];
}

function nearFlock(ours, flock) {
  const limit = `≤ flock(1) + ${FAILOVER_MARGIN_MS} ms`;
  if (ours === undefined || flock === undefined) return unmeasured(limit);
  const met = ours.median <= flock.median + FAILOVER_MARGIN_MS;
  const absolute = `${figure(ours.median, "ms")} against ${figure(flock.median, "ms")} of flock(1)`;
  return {
    limit,
    value: absolute,
    met,
    sentence: `it takes ${absolute}, ${verdict(met, `${FAILOVER_MARGIN_MS} ms above that`)}`,
  };
}

function muchSlower(ours, result, where, subject) {
  const limit = `${subject} ≥ 50× slower`;
  const [peer] = select(result, { ...where, subject });
  // Not there or without that feature: nothing to be slower.
  if (result !== undefined && (peer === undefined || !isMeasured(peer))) return [];
  if (ours === undefined) return [unmeasured(limit)];
  const ratio = peer.median / ours.median;
  const value = `${times(ratio)} (${figure(peer.median, "ms")})`;
  return [
    {
      limit,
      value,
      met: ratio >= 50,
      sentence: `${subject} takes ${times(ratio)} of that (${figure(peer.median, "ms")})`,
    },
  ];
}

function restart(result) {
  const limit = `0 refused binds in ${RESTARTS} restarts`;
  const where = { case: "clients connected", subject: OURS };
  const [refused, restarts] = ["refused binds", "restarts"].map((metric) => find(result, { ...where, metric })?.median);
  if (refused === undefined || restarts === undefined) return [unmeasured(limit)];
  const value = `${figure(refused, "count")} in ${figure(restarts, "count")}`;
  if (refused === 0 && restarts < RESTARTS) {
    return [{ limit, value: `${value}: too few to tell`, met: null, sentence: `${value} restarts, too few to tell` }];
  }
  return [
    { limit, value, met: refused === 0, sentence: `${value} restarts were refused the port (the goal is: ${limit})` },
  ];
}

function below(result, metric, unit, most, name) {
  const limit = `${name} ≤ ${figure(most, unit)}`;
  const ours = find(result, { case: "import", metric, subject: OURS });
  if (ours === undefined) return unmeasured(limit);
  const met = ours.median <= most;
  const value = figure(ours.median, unit);
  return { limit, value, met, sentence: `${name} is ${value}, ${verdict(met, figure(most, unit))}` };
}
