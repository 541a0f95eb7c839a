import { execFile } from "node:child_process";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { z } from "zod";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const COMMAND = fileURLToPath(new URL("../../scripts/bench", import.meta.url));
const temporaryDirectory = useTemporaryDirectory();

const figure = z.object({ name: z.string(), median: z.number(), min: z.number(), max: z.number() });
const report = z.object({
  size: z.literal("toy"),
  parts: z.array(z.object({
    name: z.string(),
    measures: z.array(figure).min(1),
    ratios: z.array(figure).min(1),
    notes: z.array(z.string()),
  })),
});

it("bench: every part still runs, tells its figures, and leaves nothing behind", async () => {
  const directory = temporaryDirectory();
  const work = join(directory, "work");
  await mkdir(work);
  const json = join(directory, "bench.json");
  const { stdout } = await promisify(execFile)(COMMAND, ["--size", "toy", "--json", json], {
    env: { ...process.env, TMPDIR: work },
  });
  const { parts } = report.parse(JSON.parse(await readFile(json, "utf8")));
  expect(parts).toHaveLength(9);
  for (const { name, measures } of parts) {
    expect(stdout).toContain(name);
    for (const { median } of measures) expect(median).toBeGreaterThan(0);
  }
  expect(await readdir(work)).toEqual([]);
}, 240_000);
