// What a scenario has found, in the form that it is written in.

export class Results {
  measurements = [];
  proofs = [];
  notes = [];

  /** `where`: case, metric, unit, subject, and parameters where there are any; `summary`: from samples.mjs. */
  measured(where, summary, better = "less") {
    this.measurements.push({ ...where, ...summary, better });
  }

  /** Shown as "–", with the reason. */
  missing(where, reason) {
    this.measurements.push({ ...where, missing: reason });
  }

  proved(proof) {
    this.proofs.push(proof);
  }

  /** What a reader has to know to judge the figures. */
  note(text) {
    if (!this.notes.includes(text)) this.notes.push(text);
  }
}
