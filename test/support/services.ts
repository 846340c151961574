// Gateways as services: a systemd that is booted for the test file that imports this, the units of examples/ in it, and what clients see.

import { readFileSync } from "node:fs";
import { afterAll, onTestFinished } from "vitest";
import { itWhere } from "./capabilities.ts";
import { bodyOf, until } from "./listener-tools.ts";
import { NODE, PACKAGE, Systemd } from "./systemd.ts";

const booted = await Systemd.boot();
afterAll(async () => {
  if (booted instanceof Systemd) await booted.end();
});
export const itBooted = itWhere(booted instanceof Systemd, String(booted));

export function systemd(): Systemd {
  if (booted instanceof Systemd) return booted;
  throw new Error(booted);
}

export const example = (name: string) =>
  readFileSync(new URL(`../../examples/systemd/${name}`, import.meta.url), "utf8");

/** Units that are stopped and forgotten when the test ends. */
export async function install(units: { readonly [name: string]: string }): Promise<void> {
  const names = Object.keys(units).filter((name) => !name.endsWith(".conf"));
  onTestFinished(() => systemd().remove(...names));
  await systemd().install(units);
}

/** The service of examples/systemd as it stands there, for the paths of this system and `port`. */
export async function installExample(names: readonly string[], port: number, settings = ""): Promise<void> {
  const here = `[Service]
ExecStart=
ExecStart=${NODE} ${PACKAGE}/examples/supervised.mjs
Environment=GATEWAY_PORT=${port} ${settings}
`;
  const units = names.map((name) => [
    [`${name}.service`, example("gateway.service")],
    [`${name}.service.d/here.conf`, here],
  ]);
  await install(Object.fromEntries(units.flat()));
}

/** A service whose program is test/fixtures/service-gateway.mjs. */
export function service(fixture: object, settings: string): string {
  return `[Service]
ExecStart=${NODE} ${PACKAGE}/test/fixtures/service-gateway.mjs '${JSON.stringify(fixture)}'
StateDirectory=gateway
${settings}
`;
}

const RESTARTS = ["NRestarts", "ExecMainStatus", "ActiveState", "Result"] as const;

/** What systemd says about restarts, in the output of the test too. */
export async function restartsOf(unit: string): Promise<object> {
  const shown = await systemd().show(unit, ...RESTARTS);
  console.log(`${unit}: ${RESTARTS.map((name) => `${name}=${shown[name]}`).join(" ")}`);
  return shown;
}

/** Resolves when it is down and systemd will not start it again. */
export async function isDown(unit: string): Promise<void> {
  await systemd().until(unit, ["ActiveState"], ({ ActiveState }) => ["failed", "inactive"].includes(ActiveState));
}

/** The first answer; clients are refused until then. */
export async function firstAnswer(port: number): Promise<string> {
  let answer = "";
  await until(async () => {
    answer = await bodyOf(port).catch(() => "");
    return answer !== "";
  });
  return answer;
}

/** A client that asks again as soon as it was answered, or was not, until it is told to stop. */
export class Visitor {
  /** Answers, and the codes of errors. */
  readonly heard: Set<string> = new Set();
  #isVisiting = true;
  readonly #visits: Promise<void>;

  constructor(port: number) {
    this.#visits = this.#visit(port);
  }

  async #visit(port: number): Promise<void> {
    while (this.#isVisiting) this.heard.add(await bodyOf(port).catch((error) => error.code));
  }

  async stop(): Promise<Set<string>> {
    this.#isVisiting = false;
    await this.#visits;
    return this.heard;
  }
}
