/** Adds up vitest's JSON reports in a folder and prints the one closing line; fails when no test ran. */
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { z } from "zod";

const report = z.object({
  numPassedTests: z.int(),
  numFailedTests: z.int(),
  numPendingTests: z.int(),
  numFailedTestSuites: z.int(),
});

const [directory = "."] = process.argv.slice(2);
const reports = readdirSync(directory).map((name) =>
  report.parse(JSON.parse(readFileSync(`${directory}/${name}`, "utf8")))
);
const sum = (key: keyof z.infer<typeof report>) => reports.reduce((total, each) => total + each[key], 0);
// A suite that does not even load has no failed test of its own.
const failed = Math.max(sum("numFailedTests"), Math.sign(sum("numFailedTestSuites")));
console.log(`${sum("numPassedTests")} passed, ${failed} failed, ${sum("numPendingTests")} skipped`);
process.exit(reports.length > 0 && sum("numPassedTests") === 0 ? 1 : 0);
