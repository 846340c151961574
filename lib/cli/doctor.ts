// `gateway-lock doctor`: every check with its evidence, and the next step.

import { EXIT } from "../errors.ts";
import { diagnose, type Finding } from "../inspect/doctor.ts";
import { type FoundProfile, findProfiles } from "../profile/find.ts";
import type { Profile } from "../profile/profile.ts";
import type { CommandOptions } from "./options.ts";
import { type Colour, paint, print, printJson, type Row, table } from "./terminal.ts";

/** @returns the exit code */
export async function doctorCommand({ gateway, profile, health, json }: CommandOptions): Promise<number> {
  const { locks, reserve, host, loopbackGuard, lockDir } = gateway;
  const instances =
    profile === null ? [] : [{ ...profile, locks, reserve, host, loopbackGuard, lockDir }, ...othersThan(profile)];
  const findings = await diagnose({ ...gateway, health, instances });
  const faults = findings.filter(({ ok }) => ok === false).length;
  const exitCode = faults === 0 ? EXIT.OK : EXIT.FAILURE;
  await (json ? printJson({ ok: faults === 0, exitCode, findings }) : print(format(findings, faults)));
  return exitCode;
}

/** The profiles that are to run beside it. */
function othersThan({ app, profile }: Profile): FoundProfile[] {
  return findProfiles({ app, env: process.env }).filter((found) => found.profile !== profile);
}

function format(findings: readonly Finding[], faults: number): string {
  const rows = findings.map(({ check, ok, evidence, next }): Row => {
    const [word, colour] = WORDS[`${ok}`];
    return { label: `${word} ${check}`, colour, lines: next === null ? [evidence] : [evidence, `next: ${next}`] };
  });
  const hidden = findings.some(({ ok }) => ok === null) ? ", as far as this user can see" : "";
  const summary =
    faults === 0
      ? paint("green", `all good${hidden}`)
      : paint("red", `${faults} ${faults === 1 ? "finding" : "findings"}`);
  return `${summary}\n\n${table(rows)}`;
}

/** What begins a line, by `ok`. */
const WORDS: Readonly<Record<"true" | "false" | "null", readonly [word: string, Colour]>> = {
  true: ["ok   ", "green"],
  false: ["NOTE ", "red"],
  null: ["?    ", "yellow"],
};
