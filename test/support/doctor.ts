// What tests of the doctor share: asking it here, or as somebody else.

import { type SpawnOptions, spawnSync } from "node:child_process";
import { expect } from "vitest";
import { type CheckName, type DoctorOptions, diagnose, type Finding } from "../../lib/inspect/doctor.ts";
import { fixturePath } from "./processes.ts";

export async function findingOf(check: CheckName, options: DoctorOptions): Promise<Finding> {
  return pick(check, await diagnose(options));
}

/** The checks that found something. */
export async function faultsIn(options: DoctorOptions): Promise<CheckName[]> {
  return faultsAmong(await diagnose(options));
}

/**
 * Not of derived ports: those of a test's port belong to the tests beside it.
 */
export function faultsAmong(findings: readonly Finding[]): CheckName[] {
  return findings.filter(({ ok, check }) => ok === false && check !== "derived-ports").map(({ check }) => check);
}

export function pick(check: CheckName, findings: readonly Finding[]): Finding {
  const found = findings.find((finding) => finding.check === check);
  if (found === undefined) throw new Error(`no finding of ${check}`);
  return found;
}

/** The findings of a process that is started by `prefix`, unshare(1) say, or as another user. */
export function diagnoseElsewhere(
  options: DoctorOptions,
  { prefix = [], ...spawnOptions }: SpawnOptions & { prefix?: readonly string[] } = {},
): Finding[] {
  const [command = "", ...args] = [...prefix, process.execPath, fixturePath("doctor.mjs"), JSON.stringify(options)];
  const { stdout, stderr } = spawnSync(command, args, { encoding: "utf8", ...spawnOptions });
  if (stdout === "") throw new Error(`it told nothing: ${stderr}`);
  return JSON.parse(String(stdout)).findings;
}

/** It says that something is wrong, why, and what to do. */
export function expectFault(finding: Finding, evidence: RegExp | string, next: RegExp | string): void {
  expect(finding).toMatchObject({
    ok: false,
    evidence: expect.stringMatching(evidence),
    next: expect.stringMatching(next),
  });
}

export function expectFine(finding: Finding): void {
  expect(finding).toMatchObject({ ok: true, next: null });
}
