// Which profiles a user has, by the state directories that are there.

import { readdirSync, statSync } from "node:fs";
import { dirname, isAbsolute } from "node:path";
import { parseAddress } from "../listener/addresses.ts";
import { readRecord } from "../lock/record.ts";
import { locateResources } from "../lock/resources.ts";
import { type Profile, type ProfileOptions, resolveProfile } from "./profile.ts";

export interface FoundProfile extends Profile {
  /** Where its gateway listens, or did. */
  readonly host?: string | undefined;
}

/**
 * The profiles of an app whose state directories are in the home directory, the default one first. Variables that name another
 * place mean one gateway, and so none of these. Port, host and config are those of a profile's record; without one its port is 0, because
 * nobody knows what its config says.
 */
export function findProfiles({ app, home, env }: Pick<ProfileOptions, "app" | "home" | "env">): FoundProfile[] {
  const own = { HOME: env?.HOME, USERPROFILE: env?.USERPROFILE };
  const profile = (name: string, more: Pick<ProfileOptions, "port" | "configPath"> = {}) =>
    resolveProfile({ app, home, env: env === undefined ? {} : own, profile: name, ...more });
  const usual = profile("default");
  const prefix = `.${usual.app}-`;
  const names = entriesOf(dirname(usual.stateDir)).flatMap((name) =>
    name === `.${usual.app}` ? ["default"] : name.startsWith(prefix) ? [name.slice(prefix.length)] : [],
  );
  return names
    .sort((a, b) => Number(b === "default") - Number(a === "default"))
    .flatMap((name) => {
      try {
        const { stateDir } = profile(name);
        if (!statSync(stateDir).isDirectory()) return [];
        const { host, ...more } = recorded(stateDir);
        return [{ ...profile(name, more), ...(host === undefined ? {} : { host }) }];
      } catch {
        return []; // it is no profile's name, or can't be looked at
      }
    });
}

function recorded(stateDir: string): Pick<ProfileOptions, "port" | "configPath"> & Pick<FoundProfile, "host"> {
  const [state] = locateResources({ stateDir, configPath: null, lockDir: null, locks: [] });
  const record = state === undefined ? null : readRecord(state.lockPath).record;
  const configPath = record?.configPath ?? "";
  // Anything may stand in a record.
  return {
    port: record?.port ?? 0,
    host: parseAddress(record?.host ?? "") ?? undefined,
    configPath: isAbsolute(configPath) && !configPath.includes("\0") ? configPath : undefined,
  };
}

function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    return [];
  }
}
