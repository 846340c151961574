// `gateway-lock profiles`: what profiles come to, and whether they keep out of each other's way.

import { EXIT, formatPorts } from "../errors.ts";
import { checkIsolation, type IsolationFinding, REMEDIES } from "../profile/isolation.ts";
import { derivedPorts, overridesIn, type Profile } from "../profile/profile.ts";
import { type ParsedOptions, portsFrom, profileFrom } from "./options.ts";
import { paint, print, printJson, type Row, table } from "./terminal.ts";

/** @returns the exit code */
export async function profilesCommand(names: readonly string[], parsed: ParsedOptions): Promise<number> {
  const resolved = await Promise.all(names.map((name) => profileFrom(parsed, name)));
  const unique = resolved.filter(
    ({ profile }, index) => resolved.findIndex((one) => one.profile === profile) === index,
  );
  const profiles = await Promise.all(
    unique.map(async (profile) => ({
      ...profile,
      locks: parsed.lock,
      reserve: await portsFrom(parsed.reserve, profile.port),
    })),
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
    : print(format(shown, findings, overridesIn(shown[0]?.app ?? "", process.env))));
  return exitCode;
}

type Shown = Omit<Profile, "options">;
type Finding = Pick<IsolationFinding, "level" | "kind" | "detail">;

function format(profiles: readonly Shown[], findings: readonly Finding[], variables: readonly string[]): string {
  const rows = profiles.map((profile): Row => ({ label: nameOf(profile), colour: "bold", lines: linesOf(profile) }));
  const problems = findings.map(
    ({ level, kind, detail }): Row => ({
      label: level,
      colour: level === "error" ? "red" : "yellow",
      lines: [detail, `next: ${REMEDIES[kind]}`],
    }),
  );
  const note: Row[] =
    variables.length === 0
      ? []
      : [
          {
            label: "note",
            colour: "yellow",
            lines: [`${variables.join(", ")} in the environment: each of them is told the same`],
          },
        ];
  const isIsolated = findings.every(({ level }) => level !== "error");
  const verdict = isIsolated ? paint("green", "isolated") : paint("red", "conflict");
  return `${verdict}\n\n${table([...rows, ...problems, ...note])}`;
}

function linesOf({ stateDir, configPath, port, workspace, derived }: Shown): string[] {
  return [
    `state      ${stateDir}`,
    `config     ${configPath}`,
    `workspace  ${workspace}`,
    `port       ${port}`,
    `derived    ${describeDerived(derived)}`,
  ];
}

function describeDerived(derived: Profile["derived"]): string {
  const [browserControl, ...cdp] = derivedPorts(derived);
  if (browserControl === undefined) return "none, as long as nobody knows the port";
  return `${browserControl} (browser control)${cdp.length === 0 ? "" : `, ${formatPorts(cdp)} (CDP)`}, where they are reserved`;
}

function nameOf({ profile }: { readonly profile: string | null }): string {
  return profile ?? "default";
}
