// Which ports the system gives to clients' connections.

import { readFileSync } from "node:fs";

export interface EphemeralRange {
  readonly first: number;
  readonly last: number;
  /** Those in between that it keeps for programs that ask for them. */
  readonly reserved: readonly (readonly [first: number, last: number])[];
}

const DEADLINE = 5000; // ms; netsh takes a second on a busy machine

/** `null` where the system does not say. */
export async function readEphemeralRange(): Promise<EphemeralRange | null> {
  try {
    if (process.platform === "linux") return readLinux("/proc/sys/net/ipv4");
    if (process.platform === "darwin") {
      const names = ["net.inet.ip.portrange.first", "net.inet.ip.portrange.last"];
      return parseSysctl(await run("/usr/sbin/sysctl", ["-n", ...names]));
    }
    return parseNetsh(await run("netsh.exe", ["int", "ipv4", "show", "dynamicport", "tcp"]));
  } catch {
    return null;
  }
}

/** The section on ip_local_port_range and ip_local_reserved_ports in the kernel's ip-sysctl. */
function readLinux(directory: string): EphemeralRange {
  const [first = 0, last = 0] = numbersIn(readFileSync(`${directory}/ip_local_port_range`, "utf8"));
  const reserved = readFileSync(`${directory}/ip_local_reserved_ports`, "utf8")
    .trim()
    .split(",")
    .filter((part) => part !== "")
    .map((part) => numbersIn(part))
    .map(([from = 0, to = from]) => [from, to] as const);
  return { first, last, reserved };
}

/** Two lines, as `sysctl -n` prints them. */
export function parseSysctl(text: string): EphemeralRange | null {
  const [first, last] = numbersIn(text);
  return first === undefined || last === undefined ? null : { first, last, reserved: [] };
}

/** "Start Port : 49152" and "Number of Ports : 16384", in the language of that Windows. */
export function parseNetsh(text: string): EphemeralRange | null {
  const [first, count] = [...text.matchAll(/:\s*(\d+)\s*$/gm)].map(([, number]) => Number(number));
  return first === undefined || count === undefined ? null : { first, last: first + count - 1, reserved: [] };
}

function numbersIn(text: string): number[] {
  return (text.match(/\d+/g) ?? []).map(Number);
}

async function run(command: string, args: readonly string[]): Promise<string> {
  const { execFile } = await import("node:child_process");
  return await new Promise((resolve, reject) => {
    execFile(command, args, { timeout: DEADLINE, windowsHide: true }, (error, stdout) =>
      error === null ? resolve(stdout) : reject(error),
    );
  });
}
