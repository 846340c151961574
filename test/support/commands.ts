// The command, as an operator runs it: a process of its own, with a home directory of its own.

import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Ajv2020 } from "ajv/dist/2020.js";
import { expect, onTestFinished } from "vitest";
import { temporaryDirectory } from "./temporary.ts";

export const CLI: string = fileURLToPath(new URL("../../dist/gateway-lock.cjs", import.meta.url));
const SCHEMAS = fileURLToPath(new URL("../../docs/schemas", import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** An environment that names no gateway, no supervisor and no colours. */
export function plainEnvironment(home: string): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, HOME: home };
}

export class Command {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = "";
  stderr = "";

  constructor(args: readonly string[], { env, ...options }: SpawnOptions = {}) {
    this.child = spawn(process.execPath, [CLI, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      ...options,
      env: { ...plainEnvironment(temporaryDirectory()), ...env },
    });
    this.child.stdout?.setEncoding("utf8").on("data", (text) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding("utf8").on("data", (text) => {
      this.stderr += text;
    });
    this.ended = new Promise((resolve, reject) => {
      this.child.on("error", reject);
      this.child.on("close", (code, signal) => resolve({ code, signal, stdout: this.stdout, stderr: this.stderr }));
    });
    onTestFinished(async () => {
      this.child.kill("SIGKILL");
      await this.ended;
    });
  }
}

export async function run(args: readonly string[], options: SpawnOptions = {}): Promise<Ended> {
  return await new Command(args, options).ended;
}

/** Runs it with --json: the object on its standard output, which is all that is there and as docs/schemas says. */
export async function runForJson(
  args: readonly string[],
  options: SpawnOptions = {},
  // biome-ignore lint/suspicious/noExplicitAny: each command has its own fields
): Promise<Ended & { readonly json: any }> {
  const ended = await run(["--json", ...args], options);
  expect(ended.stdout, ended.stderr).toMatch(/^\{[^\n]*\}\n$/);
  const json = JSON.parse(ended.stdout);
  const name = args.find((arg) => !arg.startsWith("-"));
  expectValid(json, "error" in json ? "error" : (name as string));
  expect(("error" in json ? json.error : json).exitCode).toBe(ended.code);
  return { ...ended, json };
}

/** Stricter than what is published: a field that no schema knows is one that nobody has documented. */
export function expectValid(value: unknown, schema: string): void {
  const validate = ajv.getSchema(`${schema}.json`);
  expect(validate?.(value), JSON.stringify(validate?.errors, null, 1)).toBe(true);
}

const ajv = new Ajv2020({ strict: true, strictTypes: false, allErrors: true });
for (const name of readdirSync(SCHEMAS))
  ajv.addSchema(closed(JSON.parse(readFileSync(join(SCHEMAS, name), "utf8"))) as object, name);

function closed(schema: unknown): unknown {
  if (typeof schema !== "object" || schema === null) return schema;
  if (Array.isArray(schema)) return schema.map(closed);
  const parts = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
  return "properties" in parts ? { additionalProperties: false, ...parts } : parts;
}
