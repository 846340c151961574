// Where a filesystem ignores case, another spelling is the same place: to checkIsolation and to the kernel.

import { expect } from "vitest";
import type { GatewayOptions } from "../../lib/options.ts";
import { itWhere } from "../support/capabilities.ts";
import { canMountFuse } from "../support/locks.ts";
import { fixturePath, TestProcess } from "../support/processes.ts";
import { freePort, temporaryDirectory } from "../support/temporary.ts";

type Places = Omit<GatewayOptions, "port">;

const PAIRS: readonly (readonly [one: Places, other: Places, shared: readonly string[]])[] = [
  [{ stateDir: "State" }, { stateDir: "sTATE" }, ["config", "state"]],
  [{ stateDir: "State" }, { stateDir: "STATE/./" }, ["config", "state"]],
  [{ stateDir: "New/Deep" }, { stateDir: "nEW/dEEP" }, ["config", "state"]],
  [{ stateDir: "Été" }, { stateDir: "éTÉ" }, ["config", "state"]],
  [{ stateDir: "a", configPath: "Etc/My.json" }, { stateDir: "b", configPath: "eTC/mY.JSON" }, ["config"]],
  [{ stateDir: "a", configPath: "Etc/New.json" }, { stateDir: "b", configPath: "etc/NEW.json" }, ["config"]],
  [{ stateDir: "a", configPath: "State/my.json" }, { stateDir: "state", configPath: "STATE/MY.json" }, ["config"]],
  [{ stateDir: "a", locks: ["Work"] }, { stateDir: "b", locks: ["WORK"] }, ["workspace"]],
  [{ stateDir: "a", locks: ["State"] }, { stateDir: "sTATE" }, ["workspace"]],
  [{ stateDir: "a", locks: ["Etc/My.json"] }, { stateDir: "b", configPath: "ETC/MY.JSON" }, ["config"]],
  [{ stateDir: "State" }, { stateDir: "State2" }, []],
  [{ stateDir: "a", configPath: "Etc/My.json" }, { stateDir: "b", configPath: "Etc/Your.json" }, []],
  [{ stateDir: "a", locks: ["Work"] }, { stateDir: "b", locks: ["Etc"] }, []],
];

itWhere(canMountFuse, "needs root, FUSE and Python")(
  "names that differ in case only are one place, predicted and enforced",
  async () => {
    const root = temporaryDirectory();
    // Of a type that is known to be local; what is behind it lies in memory, and ignores case.
    const mounted = ["--mount", "env", "FOLDS=1", "python3", fixturePath("memory-fuse.py"), root, "fuse.bindfs"];
    const gateways = new TestProcess("unshare", [
      ...[...mounted, process.execPath, fixturePath("isolation-pairs.mjs"), JSON.stringify({ root, linked: false })],
    ]);
    await gateways.next("ready");
    const below = async ({ stateDir, configPath, locks = [] }: Places): Promise<GatewayOptions> => ({
      stateDir: `${root}/${stateDir}`,
      ...(configPath === undefined ? {} : { configPath: `${root}/${configPath}` }),
      locks: locks.map((path) => `${root}/${path}`),
      port: await freePort(),
    });
    for (const [one, other, shared] of PAIRS) {
      gateways.send(JSON.stringify({ a: await below(one), b: await below(other) }));
      const { predicted, meanwhile, first, second } = await gateways.next("pair");
      const kinds = predicted.map(({ kind }: { kind: string }) => kind);
      expect({ one, other, kinds, first }).toEqual({ one, other, kinds: shared, first: null });
      expect(meanwhile).toEqual(predicted);
      expect(second === null ? null : second.code).toBe(shared.length === 0 ? null : "ALREADY_LISTENING");
    }
  },
);
