// Reads a journal: never two owners of one thing, by what the owners themselves have done and when. Nothing here asks the package.

/**
 * From an owner's deletion of its lock file by somebody until it knows: the contract's second, and as much again for a machine whose processors are shared by
 * a dozen processes. Only a config has no more than a lock file: whoever takes a new file at its place meanwhile owns it too.
 */
export const NOTICE = 2000; // ms

/**
 * What is watched notices what a vandal does. The program of a `gateway-lock run` that was killed is not: what it has, it has by the locks that it inherited.
 *
 * Each ownership, from its own first word to its own last one: those of a killed owner end where it last acted. `since` is when its process began to acquire.
 */
export function ownershipsIn(entries) {
  const orphaned = new Map(entries.filter(({ event }) => event === "orphaned").map(({ run, at }) => [run, at]));
  const acquiring = new Map();
  const all = new Map();
  for (const { at, pid, thread = 0, event, id, resources, run, by } of entries) {
    if (event === "acquire") acquiring.set(`${pid}.${thread}`, at);
    if (event === "own") {
      // A program does not know when its `run` has acquired.
      const since = run === undefined ? (acquiring.get(`${pid}.${thread}`) ?? at) : -Infinity;
      const watchedUntil = orphaned.get(run) ?? Infinity;
      all.set(id, { id, pid, by, resources, since, begin: at, end: at, watchedUntil });
    }
    if (event === "beat" || event === "disown") all.get(id).end = at;
  }
  return [...all.values()];
}

/** Which config each act of a vandal has left without its lock file: `{ at, configs }`. */
function exposuresIn(entries) {
  return entries.flatMap(({ at, event, configs = [] }) => (event === "vandal" ? [{ at, configs }] : []));
}

/** `violations` are pairs that owned one thing at one time; `exposed` is how many did so because a vandal had let them. */
export function judge(entries) {
  const byResource = new Map();
  for (const ownership of ownershipsIn(entries))
    for (const resource of ownership.resources)
      byResource.set(resource, [...(byResource.get(resource) ?? []), ownership]);
  const exposures = exposuresIn(entries);
  // The lock file of `victim` went before the rival came: when both had begun to acquire, either may be the one that has acted first.
  const isExposed = (resource, victim, rival) =>
    exposures.some(
      ({ at, configs }) =>
        configs.some((config) => resource === `config ${config}`) &&
        at >= victim.since &&
        at <= rival.begin &&
        Math.min(victim.end, victim.watchedUntil) <= at + NOTICE,
    );
  const violations = [];
  let exposed = 0;
  for (const [resource, ownerships] of byResource) {
    ownerships.sort((a, b) => a.begin - b.begin);
    // Of all that began earlier, those that had not ended.
    let open = [];
    for (const next of ownerships) {
      open = open.filter(({ end }) => end > next.begin);
      for (const one of open) {
        // Programs that ask nobody have one loopback each.
        if (one.by !== undefined && next.by !== undefined) continue;
        if (isExposed(resource, one, next) || isExposed(resource, next, one)) exposed++;
        else violations.push({ resource, one, other: next });
      }
      open.push(next);
    }
  }
  return { ownerships: byResource.size === 0 ? 0 : ownershipsIn(entries).length, violations, exposed };
}

/** What a process was doing when it wrote its last word: where a kill met it. */
export function lastDeeds(entries) {
  const deeds = new Map();
  for (const { pid, event, id, resources, role } of entries) {
    if (event === "vandal") continue;
    deeds.set(pid, deedOf(event, id, resources, role) ?? deeds.get(pid));
  }
  return deeds;
}

function deedOf(event) {
  if (event === "own" || event === "beat") return "owning";
  if (event === "acquire") return "inside acquire";
  if (event === "wait") return "waiting in the kernel";
  if (event === "handover") return "inside a handover";
  if (event === "disown" || event === "close") return "inside close";
  if (event === "refused" || event === "closed") return "in between";
  return undefined;
}
