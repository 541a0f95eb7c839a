import { rm } from "node:fs/promises";
import { join } from "node:path";
import {
  benchScript,
  buildImage,
  freshDirectory,
  makeGuestPart,
  type Place,
  writeDisk,
} from "./bench_place.ts";
import { inTurns, runToEnd } from "./measure.ts";
import { median, type PartReport } from "./report.ts";

type Made = { readonly elapsedMs: number; readonly methods: readonly string[] };

/** Disks of machines, 1 and many, by each method, against cp of the same disk. */
export async function disks({ directory, scale }: Place): Promise<PartReport> {
  const { diskBytes, diskDataBytes, machines, copies } = scale;
  const root = join(directory, "root");
  const disk = join(directory, "disk.raw");
  const name = "bench.example/os/linux:1";
  await writeDisk(disk, { sizeBytes: diskBytes, dataBytes: diskDataBytes });
  await freshDirectory(root);
  await buildImage(root, name, {
    kernel: await makeGuestPart("kernel", join(directory, "vmlinuz")),
    initramfs: await makeGuestPart("initramfs", join(directory, "initramfs")),
    rootfs: disk,
  });
  const notes: string[] = [];
  const make = async (method: string, count: number): Promise<number> => {
    const { stdout } = await runToEnd(benchScript("machines_script.ts", [root, name, method, String(count)]));
    const { elapsedMs, methods }: Made = JSON.parse(stdout);
    await rm(join(root, "machines"), { recursive: true, force: true });
    if (method !== "auto" && methods.some((each) => each !== method)) {
      const note = `this file system has no ${method}: it became ${methods.join()}`;
      if (!notes.includes(note)) notes.push(note);
    }
    return elapsedMs / 1000;
  };
  const cp = async (...flags: string[]): Promise<number> => {
    const copy = join(directory, "copy");
    const { seconds } = await runToEnd({ argv: ["cp", ...flags, disk, copy] });
    await rm(copy);
    return seconds;
  };
  const values = await inTurns({
    "1 by overlay": () => make("overlay", 1),
    "1 by copy": () => make("copy", 1),
    "1 by cp": () => cp(),
    "1 by cp --sparse=always": () => cp("--sparse=always"),
    [`${machines} by overlay`]: () => make("overlay", machines),
  }, copies);
  const reflink = await make("reflink", 1);
  const hasReflink = notes.length === 0;
  const many = values[`${machines} by overlay`] ?? [];
  const manyByCp = (values["1 by cp"] ?? []).map((seconds) => seconds * machines);
  return {
    name: `disks of machines, from one of ${diskBytes / 2 ** 20} MiB with ${
      diskDataBytes / 2 ** 20
    } MiB of data`,
    measures: [
      ...Object.entries(values).map(([name, values]) => ({ name, unit: "s" as const, values })),
      ...(hasReflink ? [{ name: "1 by reflink", unit: "s" as const, values: [reflink] }] : []),
    ],
    ratios: [
      {
        name: `cp ${machines} times / ${machines} machines by overlay`,
        values: manyByCp.map((seconds) => seconds / median(many)),
        atLeast: 50,
      },
    ],
    notes: [
      ...notes,
      `cp ${machines} times: ${machines} times that of one, which has its copy removed each time`,
    ],
  };
}
