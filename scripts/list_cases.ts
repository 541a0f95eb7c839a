/**
 * Prints for every case to survive which tests carry its id, and how they went. Arguments: families (RP AU …; none: all).
 * Runs the tests of these families; with `--reports DIR` it reads vitest's JSON reports there instead. Exits 1 when a case
 * has no test, or one that did not pass.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { z } from "zod";
import { CASE_TITLES } from "../test/support/case_ids.ts";

const LANES = ["unit", "contract", "golden", "fault", "fuzz", "integration", "guest"];
const root = join(import.meta.dirname ?? ".", "..");

const report = z.object({
  testResults: z.array(z.object({
    name: z.string(),
    assertionResults: z.array(z.object({ fullName: z.string(), status: z.string() })),
  })),
});

type Outcome = { readonly file: string; readonly name: string; readonly status: string };

const { values, positionals } = parseArgs({
  options: { reports: { type: "string" }, lane: { type: "string", multiple: true } },
  allowPositionals: true,
});
const families = positionals.map((family) => family.toUpperCase());
const ids = Object.keys(CASE_TITLES).filter((id) =>
  families.length === 0 || families.includes(id.slice(0, 2))
);
if (ids.length === 0) throw new Error(`There is no such family: ${families.join(" ")}`);

/** Runs the tests whose names have an id of these families. */
function runLanes(directory: string): void {
  const pattern = `\\b(${[...new Set(ids.map((id) => id.slice(0, 2)))].join("|")})[0-9]{2}\\b`;
  for (const lane of values.lane ?? LANES) {
    console.error(`running lane ${lane}`);
    spawnSync(join(root, "scripts/deno"), [
      ...["run", "-A", "node_modules/vitest/vitest.mjs", "run", "--project", lane, "-t", pattern],
      ...["--reporter=json", `--outputFile.json=${join(directory, `${lane}.json`)}`],
    ], { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  }
}

function readReports(directory: string): Outcome[] {
  return readdirSync(directory).filter((name) => name.endsWith(".json")).flatMap((name) =>
    report.parse(JSON.parse(readFileSync(join(directory, name), "utf8"))).testResults
  ).flatMap(({ name, assertionResults }) =>
    assertionResults.map(({ fullName, status }) => ({ file: relative(root, name), name: fullName, status }))
  );
}

function gather(): Outcome[] {
  if (values.reports !== undefined) return readReports(values.reports);
  const directory = mkdtempSync(join(tmpdir(), "bootshim-cases-"));
  try {
    runLanes(directory);
    return readReports(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const ran = gather().filter(({ status }) => status === "passed" || status === "failed");
let gaps = 0;
for (const id of ids) {
  const tests = ran.filter(({ name }) => new RegExp(`\\b${id}\\b`).test(name));
  const failed = tests.filter(({ status }) => status !== "passed");
  const result = tests.length === 0 ? "MISSING" : failed.length > 0 ? "FAILED" : "ok";
  if (result !== "ok") gaps += 1;
  const files = [...new Set(tests.map(({ file }) => file.replace(/^test\//, "")))];
  console.log(`${id}  ${result.padEnd(7)}  ${String(tests.length).padStart(3)}  ${CASE_TITLES[id]}`);
  for (const file of files) console.log(`                    ${file}`);
  for (const { name } of failed) console.log(`                    FAILED: ${name}`);
}
console.log(`${ids.length - gaps} of ${ids.length} cases hold`);
process.exit(gaps > 0 ? 1 : 0);
