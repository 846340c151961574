// Handovers in a unit of a real systemd: the successor becomes its main process, or the owner says why it can't and goes on.

import { chmodSync, writeFileSync } from "node:fs";
import { describe, expect } from "vitest";
import { bodyOf } from "../support/listener-tools.ts";
import { install, itBooted, restartsOf, service, systemd, Visitor } from "../support/services.ts";
import { NODE, PACKAGE } from "../support/systemd.ts";
import { freePort } from "../support/temporary.ts";

const UNIT = "handover.service";

interface Unit {
  readonly port: number;
  readonly fixture: object;
}

/** Whose ExecReload= starts a successor and leaves it behind. */
async function start(settings: string): Promise<Unit> {
  const port = await freePort();
  const options = { stateDir: "/var/lib/gateway", port, handover: true };
  const fixture = { options };
  await install({
    [UNIT]: service(
      fixture,
      `Type=notify\nExecReload=/bin/sh /run/successor.sh\nRestart=always\nRestartSec=0.1\n${settings}`,
    ),
  });
  const script = systemd().path("/run/successor.sh");
  writeFileSync(script, `${NODE} ${PACKAGE}/test/fixtures/service-gateway.mjs '${JSON.stringify(fixture)}' &\n`);
  chmodSync(script, 0o755);
  await systemd().systemctl("start", UNIT);
  return { port, fixture };
}

const mainPid = async () => (await systemd().show(UNIT, "MainPID")).MainPID;

describe("a unit that is reloaded", () => {
  itBooted(
    "has another main process, twice, without an end or a refused client, and is restarted when that one dies",
    async () => {
      const { port } = await start("NotifyAccess=all");
      const pids = [await mainPid()];
      const visitor = new Visitor(port);
      for (let time = 0; time < 2; time++) {
        const before = pids.at(-1);
        await systemd().systemctl("reload", UNIT);
        await systemd().until(UNIT, ["MainPID", "ActiveState"], ({ MainPID, ActiveState }) => {
          expect(ActiveState).not.toBe("failed");
          return MainPID !== before && MainPID !== "0";
        });
        const after = await mainPid();
        expect(await bodyOf(port)).toBe(`pid ${after}`);
        pids.push(after);
      }
      console.log(`main processes: ${pids.join(", ")}`);
      expect(new Set(pids).size).toBe(3);
      expect([...(await visitor.stop())].sort()).toEqual(pids.map((pid) => `pid ${pid}`).sort());
      expect(await restartsOf(UNIT)).toMatchObject({ NRestarts: "0", ActiveState: "active" });

      process.kill(await systemd().mainProcessOf(UNIT), "SIGKILL");
      await systemd().until(
        UNIT,
        ["NRestarts", "ActiveState"],
        ({ NRestarts, ActiveState }) => NRestarts === "1" && ActiveState === "active",
      );
      await systemd().systemctl("stop", UNIT);
      expect(await restartsOf(UNIT)).toMatchObject({ ActiveState: "inactive", Result: "success" });
    },
  );

  itBooted("without NotifyAccess=all goes on as it was, and the successor is told why", async () => {
    const { port } = await start("NotifyAccess=main");
    const before = await mainPid();
    await systemd().systemctl("reload", UNIT);
    await expect
      .poll(async () => (await systemd().journal(UNIT)).filter((line) => line.includes("did not hand over")))
      .toEqual([
        expect.stringContaining(
          `GatewayLockWarning: the running gateway did not hand over: it is the unit ${UNIT}, whose end would come with its own: set NotifyAccess=all there (it is main), so that the successor can be made the main process; it is left in control`,
        ),
      ]);
    expect(await mainPid()).toBe(before);
    expect(await bodyOf(port)).toBe(`pid ${before}`);
    expect(await restartsOf(UNIT)).toMatchObject({ NRestarts: "0", ActiveState: "active" });
  });

  itBooted("is not handed over to a process that is not part of it", async () => {
    const { port, fixture } = await start("NotifyAccess=all");
    const before = await mainPid();
    const { status, stderr } = await systemd().run(
      NODE,
      `${PACKAGE}/test/fixtures/service-gateway.mjs`,
      JSON.stringify(fixture),
    );
    expect(stderr).toMatch(
      /^HANDOVER_FAILED: the running gateway did not hand over: it is the unit handover\.service, whose end would come with its own, and the successor \(pid \d+\) is not part of that: start it from within, by ExecReload= say\n/,
    );
    expect(status).toBe(75);
    expect(await bodyOf(port)).toBe(`pid ${before}`);
  });
});
