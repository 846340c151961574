// A whole record, as an owner of ours writes it.

import type { OwnerFields } from "../../lib/lock/record.ts";

export const GONE_PID: number = 2 ** 31 - 1; // above every pid_max

export const FIELDS: OwnerFields = {
  pid: GONE_PID,
  startTime: 4711,
  ownerId: "7f4b9a0e-53a9-4a6e-9d2b-6d3c0c1f2a11",
  createdAt: "2026-01-02T03:04:05.678Z",
  configPath: "/srv/gäteway/gateway.json",
  stateDir: "/srv/gäteway",
  port: 18789,
  host: "127.0.0.1",
  url: "ws://127.0.0.1:18789",
  phase: "ready",
  hostname: "host",
  bootId: null,
  pidNamespace: null,
  supervisor: null,
  runtime: "node 24.0.0",
  version: "0.1.0",
  configLock: "exclusive",
  metadata: { note: 'quotes " and \\ and ,"check":"0123456789abcdef"}' },
};
