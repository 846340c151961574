// What this machine and this user can do. A test that needs more is skipped with the reason in its name.

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { it } from "vitest";

function works(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore" }).status === 0;
}

export const isRoot: boolean = process.geteuid?.() === 0;
export const hasIPv6: boolean = Object.values(networkInterfaces()).some((list) =>
  list?.some(({ address }) => address === "::1"),
);
export const hasPython: boolean = works("python3", "-c", "pass");
export const hasFlockCommand: boolean = works("flock", "--version");
/** A user namespace of our own, where an ordinary user may make the others too. */
export const canUnshareUser: boolean = works("unshare", "--user", "--map-root-user", "true");
export const canUnshareNet: boolean = works("unshare", "--user", "--map-root-user", "--net", "true");
export const canUnshareMount: boolean = works("unshare", "--user", "--map-root-user", "--mount", "true");
export const hasStrace: boolean = works("strace", "-V");
export const isLinux: boolean = process.platform === "linux" && existsSync("/proc/self/fdinfo");

/** Where set, nothing may be skipped: what is not there is then a failure. For machines that have everything. */
const requireAll: boolean = process.env.GATEWAY_LOCK_REQUIRE_ALL === "1";

/** `it`, where `able`; else a skipped test that says why. What an older Node lacks is no fault of the machine. */
export function itWhere(
  able: boolean,
  reason: string,
  { of = "machine" }: { of?: "machine" | "runtime" } = {},
): typeof it | typeof it.skip {
  if (able || (requireAll && of === "machine")) return it;
  const skipped = it.skipIf(true);
  const why = (name: string): string => `${name} [skipped: ${reason}]`;
  return Object.assign((name: string, ...rest: []) => skipped(why(name), ...rest), {
    each:
      (cases: readonly unknown[]) =>
      (name: string, ...rest: [() => void]) =>
        skipped.each(cases)(why(name), ...rest),
  }) as typeof it.skip;
}
