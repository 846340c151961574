// A process of its own whose addon a test calls; see test/fixtures/native-calls.mjs.

import type { SpawnOptions } from "node:child_process";
import { fixturePath, TestProcess } from "./processes.ts";

export class Caller extends TestProcess {
  constructor(through: readonly string[], options: SpawnOptions, passed: readonly number[]) {
    const [command = process.execPath, ...args] = [...through, process.execPath, fixturePath("native-calls.mjs")];
    super(command, args, options, passed);
  }

  // biome-ignore lint/suspicious/noExplicitAny: each call has its own result
  async call(name: string, ...args: readonly unknown[]): Promise<any> {
    this.send(JSON.stringify([name, ...args]));
    return (await this.next(name)).result;
  }
}

/** Run by the command `through`, and with the descriptors `passed` from 3 on. */
export async function startCaller(
  through: readonly string[] = [],
  options: SpawnOptions = {},
  passed: readonly number[] = [],
): Promise<Caller> {
  const caller = new Caller(through, options, passed);
  await caller.next("ready");
  return caller;
}
