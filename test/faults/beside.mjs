// Runs a command beside gateways that were acquired before: { owners, command }. As the first process of a pid namespace: its end is everybody's.

import { spawn } from "node:child_process";
import { Partner } from "./partners.mjs";

const { owners, command } = JSON.parse(process.argv[2]);
for (const options of owners) {
  const { event, message } = await new Partner("owner", options).next();
  if (event !== "owns") throw new Error(`no owner: ${message}`);
}
const [file, ...args] = command;
spawn(file, args, { stdio: "inherit" }).once("exit", (code) => process.exit(code ?? 1));
