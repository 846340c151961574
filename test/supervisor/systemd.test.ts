// Gateways as services of a real systemd, which is booted for this file: what it starts, how often, and what clients see meanwhile.

import { afterAll, expect } from "vitest";
import { itWhere } from "../support/capabilities.ts";
import { bodyOf, until } from "../support/listener-tools.ts";
import { NODE, PACKAGE, Systemd } from "../support/systemd.ts";
import { freePort } from "../support/temporary.ts";

const booted = await Systemd.boot();
afterAll(async () => {
  if (booted instanceof Systemd) await booted.end();
});
const itBooted = itWhere(booted instanceof Systemd, String(booted));

function systemd(): Systemd {
  if (booted instanceof Systemd) return booted;
  throw new Error(booted);
}

/** What systemd has to say about restarts: in the output of the test, and to be compared. */
async function restartsOf(unit: string): Promise<object> {
  const shown = await systemd().show(unit, "NRestarts", "ExecMainStatus", "ActiveState", "Result");
  console.log(
    `${unit}: ${Object.entries(shown)
      .map((pair) => pair.join("="))
      .join(" ")}`,
  );
  return shown;
}

async function settled(unit: string): Promise<void> {
  await until(async () => ["failed", "inactive"].includes((await systemd().show(unit, "ActiveState")).ActiveState));
}

itBooted("a duplicate with Restart=always starts once and stays down, and the healthy one serves", async () => {
  const lab = systemd();
  const port = await freePort();
  const service = `[Service]
ExecStart=${NODE} ${PACKAGE}/test/fixtures/service-gateway.mjs '${JSON.stringify({ stateDir: "/var/lib/a", port })}'
Restart=always
RestartSec=100ms
RestartPreventExitStatus=78
`;
  await lab.install({ "first.service": service, "second.service": service });
  await lab.systemctl("start", "first.service");
  await until(async () => /serves/.test((await lab.journal("first.service")).join("\n")));

  await lab.systemctl("start", "second.service");
  await settled("second.service");

  expect(await restartsOf("second.service")).toEqual({
    NRestarts: "0",
    ExecMainStatus: "78",
    ActiveState: "failed",
    Result: "exit-code",
  });
  expect(await restartsOf("first.service")).toMatchObject({ NRestarts: "0", ActiveState: "active" });
  expect(await bodyOf(port)).toMatch(/^pid \d+$/);
});
