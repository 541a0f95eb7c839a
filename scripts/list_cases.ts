/**
 * Prints for every case to survive the tests that carry its id, by name and with how they went, then what was skipped and
 * why. Arguments: families (RP AU …; none: all). Runs the tests of these families; with `--reports DIR` it reads vitest's
 * JSON reports there instead, DIR/LANE.json for each lane. `--lane` names lanes; none: all. Exits 1 when a case has no
 * test that passed, or one that failed or was skipped without a reason, and when a lane failed in any other way.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { z } from "zod";
import { CASE_TITLES } from "../test/support/case_ids.ts";

const LANES = ["unit", "contract", "golden", "fault", "fuzz", "integration", "guest"];
const root = join(import.meta.dirname ?? ".", "..");

const report = z.object({
  success: z.boolean(),
  testResults: z.array(z.object({
    name: z.string(),
    status: z.string(),
    message: z.string().default(""),
    assertionResults: z.array(
      z.object({ fullName: z.string(), title: z.string(), status: z.string() }),
    ),
  })),
});

type Report = z.infer<typeof report>;
/** How a lane's process ended; undefined when somebody else ran it. */
type Lane = { readonly name: string; readonly exitCode?: number | null };
type Outcome = {
  readonly file: string;
  readonly name: string;
  readonly title: string;
  readonly status: string;
};

const { values, positionals } = parseArgs({
  options: { reports: { type: "string" }, lane: { type: "string", multiple: true } },
  allowPositionals: true,
});
const families = positionals.map((family) => family.toUpperCase());
const ids = Object.keys(CASE_TITLES).filter((id) =>
  families.length === 0 || families.includes(id.slice(0, 2))
);
const lanes = values.lane ?? LANES;
if (ids.length === 0) throw new Error(`There is no such family: ${families.join(" ")}`);

/** Runs the tests whose names have an id of these families. */
function runLanes(directory: string): Lane[] {
  const pattern = `\\b(${[...new Set(ids.map((id) => id.slice(0, 2)))].join("|")})[0-9]{2}\\b`;
  return lanes.map((name) => {
    console.error(`running lane ${name}`);
    const { status } = spawnSync(join(root, "scripts/deno"), [
      ...["run", "-A", "node_modules/vitest/vitest.mjs", "run", "--project", name, "-t", pattern],
      // Full sizes take their time.
      ...["--testTimeout=1800000", "--reporter=json", `--outputFile.json=${join(directory, `${name}.json`)}`],
    ], { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
    return { name, exitCode: status };
  });
}

function readReport(path: string): Report {
  return report.parse(JSON.parse(readFileSync(path, "utf8")));
}

function outcomesOf({ testResults }: Report): Outcome[] {
  return testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.map(({ fullName, title, status }) => ({
      file: relative(root, name),
      name: fullName,
      title,
      status,
    }))
  );
}

/** What is wrong with a lane beyond its failed tests: a runner that died, a file that does not load. */
function laneProblems(directory: string, { name, exitCode }: Lane): string[] {
  const path = join(directory, `${name}.json`);
  if (!existsSync(path)) return [`lane ${name} left no report`];
  const { success, testResults } = readReport(path);
  const hasFailed = testResults.some(({ assertionResults }) =>
    assertionResults.some(({ status }) => status === "failed")
  );
  const unloaded = testResults.filter(({ status, assertionResults }) =>
    status === "failed" && !assertionResults.some((each) => each.status === "failed")
  );
  const isBad = !success || (exitCode !== undefined && exitCode !== 0);
  return [
    ...unloaded.map(({ name: file, message }) =>
      `lane ${name}: ${relative(root, file)} failed outside its tests: ${message.split("\n", 1)[0]}`
    ),
    ...isBad && !hasFailed && unloaded.length === 0
      ? [`lane ${name} failed though none of its tests did (exit code ${exitCode ?? "unknown"})`]
      : [],
  ];
}

function gather(): { outcomes: readonly Outcome[]; problems: readonly string[] } {
  const directory = values.reports ?? mkdtempSync(join(tmpdir(), "bootshim-cases-"));
  try {
    const ended = values.reports === undefined ? runLanes(directory) : lanes.map((name) => ({ name }));
    const files = readdirSync(directory).filter((name) => name.endsWith(".json"));
    return {
      outcomes: files.flatMap((name) => outcomesOf(readReport(join(directory, name)))),
      problems: ended.flatMap((lane) => laneProblems(directory, lane)),
    };
  } finally {
    if (values.reports === undefined) rmSync(directory, { recursive: true });
  }
}

/** The condition that stands before the test in its file. */
function skipReasonOf({ file, title }: Outcome): string | undefined {
  const literal = title.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const source = readFileSync(join(root, file), "utf8");
  const [, verb, condition] =
    new RegExp(`\\.(skipIf|runIf)\\(([^\\n]+)\\)\\(\\s*["'\`]${literal}["'\`]`).exec(source) ?? [];
  if (condition === undefined) return undefined;
  return verb === "runIf" ? `runs only if ${condition}` : `does not run if ${condition}`;
}

const { outcomes, problems } = gather();
let gaps = 0;
const skips: string[] = [];
for (const id of ids) {
  const tests = outcomes.filter(({ name }) => new RegExp(`\\b${id}\\b`).test(name));
  const passed = tests.filter(({ status }) => status === "passed");
  const failed = tests.filter(({ status }) => status === "failed");
  const skipped = tests.filter(({ status }) => status !== "passed" && status !== "failed");
  const isExcused = skipped.every((test) => skipReasonOf(test) !== undefined);
  const result = failed.length > 0
    ? "FAILED"
    : !isExcused || (passed.length === 0 && skipped.length > 0)
    ? "SKIPPED"
    : passed.length === 0
    ? "MISSING"
    : "ok";
  if (result !== "ok") gaps += 1;
  console.log(`${id}  ${result.padEnd(7)}  ${String(tests.length).padStart(3)}  ${CASE_TITLES[id]}`);
  for (const { file, name, status } of tests) {
    console.log(`      ${status.padEnd(7)}  ${file.replace(/^test\//, "")}: ${name}`);
  }
  for (const test of skipped) skips.push(`${id}  ${test.name}: ${skipReasonOf(test) ?? "NO REASON STATED"}`);
}
for (const skip of skips) console.log(`skipped: ${skip}`);
for (const problem of problems) console.log(`FAILED: ${problem}`);
console.log(`${ids.length - gaps} of ${ids.length} cases hold, ${skips.length} tests skipped`);
process.exit(gaps > 0 || problems.length > 0 ? 1 : 0);
