import { defineConfig } from "vitest/config";

/** Lanes are folders. The quick ones take as many processes as there are processors. */
const quick = (name: string) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    setupFiles: ["test/support/fuzz_runs.ts"],
    testTimeout: 60_000,
  },
});
/** Those that start real servers, and guests: these one file after the other, as the host has one libvirtd. */
const real = (name: string, { hasGuests = true } = {}) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    fileParallelism: !hasGuests,
    ...(hasGuests ? {} : { maxWorkers: 2 }),
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
      real("integration", { hasGuests: false }),
      real("guest"),
      real("fault", { hasGuests: false }),
      real("fuzz"),
      real("chaos"),
    ],
  },
});
