import { defineConfig } from "vitest/config";

const SPEED = "test/speed/*.test.ts";

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
        test: { name: "suite", include: ["test/**/*.test.ts"], exclude: [SPEED], sequence: { groupOrder: 0 } },
      },
      {
        // After the others, one by one: whoever measures microseconds wants to be alone.
        extends: true,
        test: { name: "speed", include: [SPEED], fileParallelism: false, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
