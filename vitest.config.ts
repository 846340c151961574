import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    reporters: ["default", "./test/support/plain-reporter.ts"],
    globalSetup: ["test/support/build.ts"],
    // Real processes, descriptors and signals: a worker thread would share them with its neighbours.
    pool: "forks",
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
