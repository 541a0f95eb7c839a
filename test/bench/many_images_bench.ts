import { join } from "node:path";
import { nameOfImage, writeManyImages } from "../support/many_images.ts";
import { bootshim, freshDirectory, type Place } from "./bench_place.ts";
import { inTurns, runToEnd } from "./measure.ts";
import { type PartReport, ratios } from "./report.ts";

/** What other images in the cache cost a command that wants one of them. */
export async function manyImages({ directory, scale: { images, rounds } }: Place): Promise<PartReport> {
  const [few, many] = [join(directory, "few"), join(directory, "many")];
  await writeManyImages(await freshDirectory(few), 1);
  await writeManyImages(await freshDirectory(many), images);
  const timed = async (root: string, args: readonly string[]) =>
    (await runToEnd(bootshim(root, [...args, "-o", "json"]))).seconds * 1000;
  const prepare = (number: number) => ["prepare", nameOfImage(number), "--pull", "never"];
  // What is hashed at its first use is hashed by then.
  await timed(few, prepare(0));
  await timed(many, prepare(images - 1));
  const values = await inTurns({
    "prepare, 1 image": () => timed(few, prepare(0)),
    [`prepare, ${images} images`]: () => timed(many, prepare(images - 1)),
    [`images, ${images} images`]: () => timed(many, ["images"]),
    [`gc --dry-run, ${images} images`]: () => timed(many, ["gc", "--dry-run"]),
  }, rounds);
  return {
    name: `${images} cached images`,
    measures: Object.entries(values).map(([name, values]) => ({ name, unit: "ms", values })),
    ratios: [
      {
        name: `prepare among ${images} images / among 1`,
        values: ratios(values[`prepare, ${images} images`] ?? [], values["prepare, 1 image"] ?? []),
      },
      ...["prepare", "images", "gc --dry-run"].map((command) => ({
        name: command,
        values: values[`${command}, ${images} images`] ?? [],
        unit: "ms" as const,
        atMost: 2000,
      })),
    ],
    notes: [],
  };
}
