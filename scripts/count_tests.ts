/**
 * Adds up vitest's JSON reports in a folder: names each failed test with the first line of its failure, then prints the one
 * closing line. Fails when no test ran.
 */
import { readdirSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import process from "node:process";
import { z } from "zod";

const report = z.object({
  numPassedTests: z.int(),
  numFailedTests: z.int(),
  numPendingTests: z.int(),
  numFailedTestSuites: z.int(),
  testResults: z.array(z.object({
    name: z.string(),
    message: z.string().default(""),
    assertionResults: z.array(z.object({
      fullName: z.string(),
      status: z.string(),
      failureMessages: z.array(z.string()).nullish(),
    })),
  })),
});

const [directory = "."] = process.argv.slice(2);
const reports = readdirSync(directory).map((name) =>
  report.parse(JSON.parse(readFileSync(`${directory}/${name}`, "utf8")))
);
const firstLine = (text = "") => text.split("\n", 1)[0];
for (const { name, message, assertionResults } of reports.flatMap(({ testResults }) => testResults)) {
  const file = relative(process.cwd(), name);
  const failures = assertionResults.filter(({ status }) => status === "failed");
  for (const { fullName, failureMessages } of failures) {
    console.log(`failed: ${file}: ${fullName}: ${firstLine(failureMessages?.[0])}`);
  }
  if (failures.length === 0 && message !== "") console.log(`failed: ${file}: ${firstLine(message)}`);
}
const sum = (key: Exclude<keyof z.infer<typeof report>, "testResults">) =>
  reports.reduce((total, each) => total + each[key], 0);
// A suite that does not even load has no failed test of its own.
const failed = Math.max(sum("numFailedTests"), Math.sign(sum("numFailedTestSuites")));
console.log(`${sum("numPassedTests")} passed, ${failed} failed, ${sum("numPendingTests")} skipped`);
process.exit(reports.length > 0 && sum("numPassedTests") === 0 ? 1 : 0);
