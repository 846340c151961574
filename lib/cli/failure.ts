// What a command says when it fails: why, by what, and what to do next.

import { codeOf, EXIT, GatewayLockError, type GatewayLockErrorCode, reasonOf } from "../errors.ts";
import { NoProgramError, UsageError } from "./options.ts";
import { paint, plain, print, printJson, STDERR } from "./terminal.ts";

/** `EX_USAGE` of sysexits(3), where 75 and 78 come from too: 1 and 3 are answers. */
export const EXIT_USAGE = 64;
/** As in shells. */
const EXIT_NO_PROGRAM = 127;

const BY_STATUS = ["status", "says who it is"] as const;
const BY_DOCTOR = ["doctor", "says what is wrong"] as const;
/** Of a port that somebody has without the lock: one of several, maybe. */
const BY_DOCTOR_OF_PORTS = ["doctor", "looks at all its ports"] as const;
const NEXT: Readonly<Record<GatewayLockErrorCode, typeof BY_STATUS | typeof BY_DOCTOR>> = {
  ALREADY_LISTENING: BY_STATUS,
  ALREADY_RUNNING: BY_STATUS,
  HANDOVER_FAILED: BY_STATUS,
  NOT_HEALTHY: BY_STATUS,
  BIND_FAILED: BY_DOCTOR,
  HANDOFF_FAILED: BY_DOCTOR,
  LOCK_UNSUPPORTED: BY_DOCTOR,
  LOCK_FAILED: BY_DOCTOR,
  LOCK_LOST: BY_DOCTOR,
};

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly exitCode: number;
  readonly cause: string | null;
  readonly next: string | null;
}

interface Asked {
  readonly json: boolean;
  readonly command: string | null;
  /** The options that say which gateway is meant, as they would be typed. */
  readonly gateway: string;
}

/** @returns the exit code */
export async function reportError(error: unknown, asked: Asked): Promise<number> {
  const failure = describe(error, asked);
  const { message, cause, next, exitCode } = failure;
  const lines = [
    `${paint("red", "gateway-lock:", STDERR)} ${plain(message)}`,
    ...(cause === null ? [] : [`  cause: ${plain(cause)}`]),
    ...(next === null ? [] : [`  next:  ${plain(next)}`]),
    ...(process.env.GATEWAY_LOCK_DEBUG && error instanceof Error ? (error.stack ?? "").split("\n").map(plain) : []),
  ];
  try {
    await print(lines.join("\n"), STDERR);
    if (asked.json) await printJson({ error: { ...failure, ...detailsOf(error) } });
  } catch {
    // It was tried; the exit code is left to tell.
  }
  return exitCode;
}

function describe(error: unknown, { command, gateway }: Asked): Failure {
  const message = reasonOf(error);
  if (error instanceof UsageError) {
    const help = `gateway-lock${command === null ? "" : ` ${command}`} --help`;
    return { code: "USAGE", message, exitCode: EXIT_USAGE, cause: null, next: `see ${help}` };
  }
  if (error instanceof GatewayLockError) {
    const isPort = error.code === "ALREADY_LISTENING" && error.lockPath === undefined;
    const [look, purpose] = isPort ? BY_DOCTOR_OF_PORTS : NEXT[error.code];
    const cause = error.cause === undefined ? null : reasonOf(error.cause);
    return {
      code: error.code,
      message,
      exitCode: error.exitCode,
      cause: cause === null || message.includes(cause) ? null : cause,
      next: `\`gateway-lock ${`${look} ${gateway}`.trimEnd()}\` ${purpose}`,
    };
  }
  const code = codeOf(error) ?? "UNEXPECTED";
  if (error instanceof NoProgramError) return { code, message, exitCode: EXIT_NO_PROGRAM, cause: null, next: null };
  // Its message has the command that helps.
  const next = code === "ERR_GATEWAY_LOCK_ADDON" ? null : "GATEWAY_LOCK_DEBUG=1 in the environment shows where";
  return { code, message, exitCode: EXIT.FAILURE, cause: null, next };
}

function detailsOf(error: unknown): object {
  if (!(error instanceof GatewayLockError)) return {};
  const { retryable, host, port, url, lockPath, resource, owner, listener } = error;
  return { retryable, host, port, url, lockPath, resource, owner, listener };
}
