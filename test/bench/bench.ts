/**
 * Measures whole processes side by side, and prints medians with their spread, and ratios. Arguments: parts to run (none:
 * all); `--json FILE` keeps the figures; `--size toy` only shows that everything still runs. Exit code 1 when a part
 * fails; a target that is missed is told and fails nothing, because the machine may be busy.
 */
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { type Place, SCALES } from "./bench_place.ts";
import { disks } from "./disks_bench.ts";
import { manyImages } from "./many_images_bench.ts";
import { memory } from "./memory_bench.ts";
import { Unavailable } from "./measure.ts";
import { pullDense, pullSparse } from "./pull_bench.ts";
import { formatPart, type PartReport, toJson } from "./report.ts";
import { run } from "./run_bench.ts";
import { start } from "./start_bench.ts";
import { throttled, unthrottled } from "./throttled_bench.ts";

const PARTS: Readonly<Record<string, (place: Place) => Promise<PartReport>>> = {
  pull: pullDense,
  sparse: pullSparse,
  start,
  disks,
  images: manyImages,
  throttled,
  unthrottled,
  memory,
  run,
};

const { values, positionals } = parseArgs({
  options: { json: { type: "string" }, size: { type: "string", default: "full" } },
  allowPositionals: true,
});
const unknown = positionals.find((name) => !Object.hasOwn(PARTS, name));
if (unknown !== undefined || (values.size !== "full" && values.size !== "toy")) {
  console.error(`usage: bench [--json FILE] [--size full|toy] [${Object.keys(PARTS).join("|")}]...`);
  process.exit(64);
}

const directory = await mkdtemp(join(tmpdir(), "bootshim-bench-"));
const facts = {
  date: new Date().toISOString(),
  size: values.size,
  processor: cpus()[0]?.model ?? "unknown",
  cores: availableParallelism(),
  memoryMib: Math.round(totalmem() / 2 ** 20),
  kernel: release(),
  fileSystem: fileSystemOf(directory),
  runtime: `deno ${process.versions["deno"] ?? ""}`,
};
console.log(Object.entries(facts).map(([name, value]) => `${name}: ${value}`).join(", "));

let hasFailed = false;
const reports: PartReport[] = [];
const chosen = Object.entries(PARTS).filter(([name]) =>
  positionals.length === 0 || positionals.includes(name)
);
try {
  for (const [name, measure] of chosen) {
    const report = await inPlace(name, measure);
    reports.push(report);
    console.log(formatPart(report));
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
if (values.json !== undefined) await writeFile(values.json, toJson(reports, facts));
process.exit(hasFailed ? 1 : 0);

async function inPlace(name: string, measure: (place: Place) => Promise<PartReport>): Promise<PartReport> {
  const place = await mkdtemp(join(directory, `${name}-`));
  const scale = SCALES[values.size === "toy" ? "toy" : "full"];
  try {
    const report = await measure({ directory: place, scale });
    // Nothing that small was promised.
    return values.size === "full"
      ? report
      : { ...report, ratios: report.ratios.map(({ atMost: _most, atLeast: _least, ...ratio }) => ratio) };
  } catch (error) {
    hasFailed ||= !(error instanceof Unavailable);
    const why = error instanceof Error ? error.message : String(error);
    return {
      name,
      measures: [],
      ratios: [],
      notes: [error instanceof Unavailable ? `left out: ${why}` : `FAILED: ${why}`],
    };
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

function fileSystemOf(path: string): string {
  try {
    return execFileSync("findmnt", ["-no", "FSTYPE", "-T", path], { encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}
