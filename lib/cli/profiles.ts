// `gateway-lock profiles`: what profiles come to, and whether they keep out of each other's way.

import { EXIT } from "../errors.ts";
import { checkIsolation, type IsolationFinding } from "../profile/isolation.ts";
import type { Profile } from "../profile/profile.ts";
import { type ParsedOptions, portsFrom, profileFrom } from "./options.ts";
import { paint, print, printJson, type Row, table } from "./terminal.ts";

/** @returns the exit code */
export async function profilesCommand(names: readonly string[], parsed: ParsedOptions): Promise<number> {
  const profiles = await Promise.all(
    [...new Set(names)].map(async (name) => {
      const profile = await profileFrom(parsed, name);
      return { ...profile, locks: parsed.lock, reserve: await portsFrom(parsed.reserve, profile.port) };
    }),
  );
  const findings = checkIsolation(profiles).map(({ instances: [a, b], ...finding }) => ({
    ...finding,
    instances: [nameOf(a), nameOf(b)],
  }));
  const isIsolated = findings.every(({ level }) => level !== "error");
  const exitCode = isIsolated ? EXIT.OK : EXIT.FAILURE;
  const shown = profiles.map(({ options: _, locks: _locks, reserve: _reserve, ...profile }) => profile);
  await (parsed.json
    ? printJson({ ok: isIsolated, exitCode, profiles: shown, findings })
    : print(format(shown, findings, isIsolated)));
  return exitCode;
}

type Shown = Omit<Profile, "options">;
type Finding = Pick<IsolationFinding, "level" | "detail">;

function format(profiles: readonly Shown[], findings: readonly Finding[], isIsolated: boolean): string {
  const rows = profiles.map((profile): Row => ({ label: nameOf(profile), colour: "bold", lines: linesOf(profile) }));
  const problems = findings.map(
    ({ level, detail }): Row => ({ label: level, colour: level === "error" ? "red" : "yellow", lines: [detail] }),
  );
  const verdict = isIsolated ? paint("green", "isolated") : paint("red", "conflict");
  return `${verdict}\n\n${table([...rows, ...problems])}`;
}

function linesOf({ stateDir, configPath, port, workspace, derived: { browserControl, cdp } }: Shown): string[] {
  return [
    `state      ${stateDir}`,
    `config     ${configPath}`,
    `workspace  ${workspace}`,
    `port       ${port}`,
    `derived    ${browserControl} (browser control), ${cdp.join("-")} (CDP), where they are reserved`,
  ];
}

function nameOf({ profile }: { readonly profile: string | null }): string {
  return profile ?? "default";
}
