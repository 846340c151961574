import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

const SPEED = "test/speed/*.test.ts";
/** Other people's programs, which are the same on every Node: supervisors that are booted, linters of what is in examples/. */
const LAB = ["test/supervisor/{systemd,systemd-*,pm2}.test.ts", "test/examples.test.ts"];
/** Of figures and plots, which are the same on every Node. */
const BENCH = "test/bench/*.test.ts";
/** They wait for deadlines of many seconds, which are the same on every Node. */
const PATIENT = ["test/handover/{steps,limits}.test.ts"];
/** They count threads, fill the table of locks of the kernel, or have a limit of time that a neighbour's load can exceed. */
const ALONE = [
  "test/gateway-{contention,leaving,loss,standby}.test.ts",
  "test/listener/{bind,hand-off-odd}.test.ts",
  "test/lock/{owner,wait-*}.test.ts",
];

export default defineConfig({
  test: {
    reporters: ["default", "./test/support/plain-reporter.ts"],
    globalSetup: ["test/support/build.ts"],
    // Real processes, descriptors and signals: a worker thread would share them with its neighbours.
    pool: "forks",
    testTimeout: 30_000,
    hookTimeout: 30_000,
    projects: [
      {
        extends: true,
        test: {
          name: "suite",
          include: ["test/**/*.test.ts"],
          exclude: [SPEED, BENCH, ...ALONE, ...LAB, ...PATIENT],
          maxWorkers: Math.max(2, availableParallelism() - 1),
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { name: "bench", include: [BENCH], maxWorkers: 2, sequence: { groupOrder: 0 } },
      },
      {
        extends: true,
        test: { name: "lab", include: [...LAB, ...PATIENT], maxWorkers: 2, sequence: { groupOrder: 0 } },
      },
      {
        extends: true,
        test: { name: "alone", include: ALONE, fileParallelism: false, sequence: { groupOrder: 1 } },
      },
      {
        // After the others, one by one: whoever measures microseconds wants to be alone.
        extends: true,
        test: { name: "speed", include: [SPEED], fileParallelism: false, sequence: { groupOrder: 2 } },
      },
    ],
  },
});
