import { MIB, type Place } from "./bench_place.ts";
import { pullAll, pullImage, withBlobServer } from "./blob_server.ts";
import type { Measure, PartReport, Ratio } from "./report.ts";

/** What a pull takes of the host's memory, whatever the image's size: the whole process at its peak. */
export async function memory(
  { directory, scale: { memoryBytes, paceBytesPerSecond } }: Place,
): Promise<PartReport> {
  const eighth = memoryBytes / 8;
  const sizes = [eighth / 8, eighth, memoryBytes];
  const measures: Measure[] = [];
  await withBlobServer({ paceBytesPerSecond: 0, sizesBytes: sizes }, async (server) => {
    for (const [number, sizeBytes] of sizes.entries()) {
      const { peakMib } = await pullImage(server, { directory, number });
      measures.push({
        name: `bootshim pull, one layer of ${sizeBytes / MIB} MiB`,
        unit: "MiB",
        values: [peakMib],
      });
    }
  });
  // No image has so many layers with a role, so it is not the command here, but what it pulls with.
  const many: readonly (readonly [name: string, sizesBytes: readonly number[], pace: number])[] = [
    [
      `8 layers at once, ${memoryBytes / MIB} and 7 of ${eighth / 2 / MIB} MiB`,
      [memoryBytes, ...Array<number>(7).fill(eighth / 2)],
      0,
    ],
    [
      `8 layers of ${eighth / 8 / MIB} MiB at once, throttled`,
      Array<number>(8).fill(eighth / 8),
      paceBytesPerSecond,
    ],
  ];
  const ratios: Ratio[] = [];
  for (const [name, sizesBytes, pace] of many) {
    const { peakMib, loopDelayP99Ms } = await withBlobServer(
      { paceBytesPerSecond: pace, sizesBytes },
      (server) => pullAll(server, { directory }),
    );
    measures.push({ name, unit: "MiB", values: [peakMib] });
    ratios.push({ name: `main loop's delay, 99 of 100: ${name}`, unit: "ms", values: [loopDelayP99Ms] });
  }
  const peak = Math.max(...measures.flatMap(({ values }) => values));
  return {
    name: "memory by an image's size",
    measures,
    ratios: [{ name: "memory at the most", unit: "MiB", values: [peak], atMost: 200 }, ...ratios],
    notes: [],
  };
}
