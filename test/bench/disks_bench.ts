import { rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { z } from "zod";
import { withMounted } from "../support/mounted.ts";
import {
  benchScript,
  buildImage,
  freshDirectory,
  makeGuestPart,
  MIB,
  type Place,
  type Scale,
  writeFileSystem,
} from "./bench_place.ts";
import { inTurns, runToEnd } from "./measure.ts";
import { type PartReport, type Ratio, ratios } from "./report.ts";

const made = z.looseObject({ methods: z.array(z.string()) });

/** Disks of machines, one and many, by each method, against cp of the same disk on the same file system. */
export async function disks({ directory, scale }: Place): Promise<PartReport> {
  const { diskBytes, diskDataBytes, machines } = scale;
  const notes = [
    `cp ${machines} times: ${machines} times that of one, which has its copy removed each time`,
    `by copy: one, as ${machines} of them would not fit`,
  ];
  const here = await measureDisks(directory, scale, ["overlay", "copy"]);
  const onXfs = await measureOnXfs(directory, scale, notes);
  return {
    name: `disks of machines, from one of ${diskBytes / MIB} MiB with ${diskDataBytes / MIB} MiB of data`,
    measures: [...here.measures, ...onXfs.measures],
    ratios: [...here.ratios, ...onXfs.ratios],
    notes,
  };
}

type Measured = Pick<PartReport, "measures" | "ratios">;
type Method = "overlay" | "copy" | "reflink";

async function measureOnXfs(directory: string, scale: Scale, notes: string[]): Promise<Measured> {
  if (process.getuid?.() !== 0) {
    notes.push("without reflink: only root may mount a file system that has it");
    return { measures: [], ratios: [] };
  }
  // Sparse itself. Room for a whole disk is asked for before its first byte; small ones are no file system.
  const sizeMib = Math.max(512, (2 * scale.diskBytes + 4 * scale.diskDataBytes) / MIB);
  const { measures, ratios } = await withMounted(
    "xfs",
    { directory, sizeMib },
    (mountPoint) => measureDisks(mountPoint, scale, ["reflink"]),
  );
  return {
    measures: measures.map((each) => ({ ...each, name: `${each.name}, XFS` })),
    ratios: ratios.map((each) => ({ ...each, name: `${each.name}, XFS` })),
  };
}

async function measureDisks(directory: string, scale: Scale, methods: readonly Method[]): Promise<Measured> {
  const { diskBytes, diskDataBytes, machines, copies } = scale;
  const root = join(directory, "root");
  const disk = join(directory, "disk.raw");
  const name = "bench.example/os/linux:1";
  await writeFileSystem(disk, { sizeBytes: diskBytes, dataBytes: diskDataBytes });
  await freshDirectory(root);
  await buildImage(root, name, {
    kernel: await makeGuestPart("kernel", join(directory, "vmlinuz")),
    initramfs: await makeGuestPart("initramfs", join(directory, "initramfs")),
    rootfs: disk,
  });
  const make = async (method: Method, count: number): Promise<number> => {
    // The whole process, start and finding the image included.
    const script = benchScript("machines_script.ts", [root, name, method, String(count)]);
    const { stdout, seconds } = await runToEnd(script);
    const { methods } = made.parse(JSON.parse(stdout));
    await rm(join(root, "machines"), { recursive: true, force: true });
    if (methods.join() !== method) throw new Error(`wanted ${method}, it became ${methods.join()}`);
    return seconds;
  };
  const cp = async (...flags: string[]): Promise<number> => {
    const copy = join(directory, "copy");
    const { seconds } = await runToEnd({ argv: ["cp", ...flags, disk, copy] });
    await rm(copy);
    return seconds;
  };
  const counts = (method: Method) => method === "copy" ? [1] : [1, machines];
  const subjects: Record<string, () => Promise<number>> = {
    "1 by cp": () => cp(),
    // Where blocks can be shared, cp does so unless it is told not to.
    "1 by cp --reflink=never": () => cp("--reflink=never"),
    "1 by cp --sparse=always": () => cp("--reflink=never", "--sparse=always"),
    ...Object.fromEntries(
      methods.flatMap((method) =>
        counts(method).map((count) => [`${count} by ${method}`, () => make(method, count)])
      ),
    ),
  };
  const values = await inTurns(subjects, copies);
  const many = (name: string) => (values[name] ?? []).map((seconds) => seconds * machines);
  return {
    measures: Object.entries(values).map(([name, values]) => ({ name, unit: "s" as const, values })),
    ratios: methods.filter((method) => method !== "copy").flatMap((method): Ratio[] => {
      const ours = values[`${machines} by ${method}`] ?? [];
      return [
        {
          name: `cp ${machines} times / ${machines} machines by ${method}`,
          values: ratios(many("1 by cp --reflink=never"), ours),
          atLeast: 50,
        },
        {
          name: `cp --sparse=always ${machines} times / ${machines} machines by ${method}`,
          values: ratios(many("1 by cp --sparse=always"), ours),
        },
      ];
    }),
  };
}
