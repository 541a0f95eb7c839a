import { defineConfig } from "vitest/config";

/** Lanes are folders. Those that start real servers and guests run one file after the other: the host has one libvirtd. */
const quick = (name: string) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    setupFiles: ["test/support/fuzz_runs.ts"],
    testTimeout: 60_000,
  },
});
const real = (name: string) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    fileParallelism: false,
    setupFiles: ["test/support/fuzz_runs.ts"],
    maxConcurrency: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});

export default defineConfig({
  test: {
    pool: "forks",
    passWithNoTests: false,
    projects: [
      quick("unit"),
      quick("contract"),
      quick("golden"),
      real("integration"),
      real("fault"),
      real("fuzz"),
      real("chaos"),
    ],
  },
});
