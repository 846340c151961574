// Containers made of namespaces: pids, network, mounts and host name of their own; the files are this machine's.

import { spawnSync } from "node:child_process";
import { isLinux } from "./capabilities.ts";
import { fixturePath, TestProcess } from "./processes.ts";

const SET_UP = 'echo "$1" > /proc/sys/kernel/hostname; ip link set lo up; eval "$2"; shift 2; exec "$@"';

/** `command` as the first process of a container, after the shell has done what `setUp` says in it. */
export function contained(hostname: string, command: readonly string[], setUp: string = ""): readonly string[] {
  const namespaces = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--uts"];
  return ["unshare", ...namespaces, "sh", "-ec", SET_UP, "sh", hostname, setUp, ...command];
}

function works([command = "", ...args]: readonly string[]): boolean {
  return spawnSync(command, args, { stdio: "ignore" }).status === 0;
}

export const canContain: boolean = isLinux && works(contained("one", ["true"]));

/** `test/fixtures/<fixture>` with one JSON argument, as the first process of a container. It ends when it is killed from outside. */
export function startContained(
  hostname: string,
  fixture: string,
  argument: unknown = {},
  setUp: string = "",
): TestProcess {
  const command = [process.execPath, fixturePath(fixture), JSON.stringify(argument)];
  const [unshare = "", ...args] = contained(hostname, command, setUp);
  return new TestProcess(unshare, args);
}
