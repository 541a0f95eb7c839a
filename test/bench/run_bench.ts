import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  bootshim,
  buildImage,
  freshDirectory,
  makeGuestPart,
  type Place,
  requireProgram,
} from "./bench_place.ts";
import { inTurns, runToEnd, runToText } from "./measure.ts";
import type { PartReport } from "./report.ts";

/** What stands between `run` and the guest's first line, beside what QEMU itself takes with the same files. */
export async function run({ directory, scale: { rounds } }: Place): Promise<PartReport> {
  await requireProgram("qemu-system-x86_64");
  const root = await freshDirectory(join(directory, "root"));
  const name = "bench.example/os/linux:1";
  const cmdline = join(directory, "cmdline");
  await writeFile(cmdline, "console=ttyS0 panic=-1");
  await buildImage(root, name, {
    kernel: await makeGuestPart("kernel", join(directory, "vmlinuz")),
    initramfs: await makeGuestPart("initramfs", join(directory, "initramfs")),
    rootfs: await makeGuestPart("rootfs-ext4", join(directory, "rootfs")),
    cmdline,
  });
  const byHand = (await runToEnd(bootshim(root, ["qemu", name]))).stdout;
  const first = /Linux version/;
  const subjects = {
    "QEMU by hand": () => runToText({ argv: ["sh", "-c", `exec ${byHand.trim()}`] }, first),
    "bootshim run": () => runToText(bootshim(root, ["run", name, "--quiet"]), first),
  };
  for (const each of Object.values(subjects)) await each();
  const values = await inTurns(subjects, rounds);
  return {
    name: "from the command to the guest's first line",
    measures: Object.entries(values).map(([name, values]) => ({ name, unit: "s", values })),
    ratios: [{
      name: "more than QEMU by hand",
      values: values["bootshim run"].map((seconds, round) =>
        (seconds - (values["QEMU by hand"][round] ?? NaN)) * 1000
      ),
      unit: "ms",
      atMost: 300,
    }],
    notes: [],
  };
}
