// Asks subjects in turn, A B C, B C A, C A B, …: what disturbs the machine for a while disturbs them all.

/**
 * `measure(subject, round)` gives the samples of one batch. The first round warms up and is thrown away.
 *
 * @returns {Promise<Map<any, number[][]>>} the batches of each subject
 */
export async function interleave(subjects, rounds, measure, { warmUp = (subject) => measure(subject, -1) } = {}) {
  const batches = new Map(subjects.map((subject) => [subject, []]));
  for (const subject of subjects) await warmUp(subject);
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < subjects.length; i++) {
      const subject = subjects[(i + round) % subjects.length];
      batches.get(subject).push(await measure(subject, round));
    }
  }
  return batches;
}
