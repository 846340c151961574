// What the doctor's checks are told, and how they answer.

import type { OwnerRecord } from "../../lock/record.ts";
import type { Resource } from "../../lock/resources.ts";
import type { ResolvedInspection } from "../../options.ts";
import type { IsolationFinding } from "../../profile/isolation.ts";
import type { Picture } from "../look.ts";

/** A lock file's content. */
export interface Reading {
  readonly resource: Resource;
  readonly path: string;
  readonly record: OwnerRecord | null;
  readonly torn: boolean;
  /** Why this user can't read it; `null` where it was read, or is not there. */
  readonly unreadable: string | null;
}

/** The gateway in question, as far as it can be told without the addon. */
export interface Scene {
  readonly options: ResolvedInspection;
  readonly allowNetworkFilesystem: boolean;
  readonly reserve: readonly number[];
  /** How many gateways were to be compared, and what they share. */
  readonly instances: number;
  readonly isolation: readonly IsolationFinding[];
  readonly resources: readonly Resource[];
  readonly readings: readonly Reading[];
  /** When each lock file, and each directory that has some, was last changed, in ms since 1970: before the doctor made anything there. */
  readonly dates: readonly { readonly path: string; readonly changed: number }[];
  /** What the kernel shows, looked at once. Rejects where there is no addon. */
  readonly picture: () => Promise<Picture>;
}

export interface Answer {
  readonly ok: boolean | null;
  readonly evidence: string;
  readonly next: string | null;
}

/** Something that is wrong, and what to do about it. */
export interface Problem {
  readonly evidence: string;
  readonly next: string;
}

/** `evidence` is what to say if nothing is wrong. */
export function answer(evidence: readonly string[], problems: readonly Problem[] = []): Answer {
  const join = (texts: readonly string[]) => [...new Set(texts)].join("; ");
  if (problems.length === 0) return { ok: true, evidence: join(evidence), next: null };
  return {
    ok: false,
    evidence: join(problems.map((one) => one.evidence)),
    next: join(problems.map((one) => one.next)),
  };
}

/** It could not be found out. */
export function unchecked(evidence: string, next: string | null): Answer {
  return { ok: null, evidence, next };
}
