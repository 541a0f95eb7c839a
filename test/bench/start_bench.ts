import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { benchScript, bootshim, buildImage, makeGuestPart, type Place } from "./bench_place.ts";
import { inTurns, runToEnd } from "./measure.ts";
import { type PartReport, ratios } from "./report.ts";

/** What a prepared image costs a second time, by command and in a running process, and what a start alone costs. */
export async function start({ directory, scale: { rounds, prepares } }: Place): Promise<PartReport> {
  const root = join(directory, "root");
  const name = "bench.example/os/linux:1";
  await mkdir(root);
  await buildImage(root, name, {
    kernel: await makeGuestPart("kernel", join(directory, "vmlinuz")),
    initramfs: await makeGuestPart("initramfs", join(directory, "initramfs")),
  });
  const empty = join(directory, "empty.ts");
  await writeFile(empty, "export {};\n");
  const runtime = benchScript("empty.ts", []).argv.slice(0, -1);
  const subjects = {
    "empty script": { argv: [...runtime, empty] },
    "bootshim version": bootshim(root, ["version"]),
    "bootshim prepare, warm": bootshim(root, ["prepare", name]),
  };
  // The first start of all compiles, and keeps what it compiled.
  for (const command of Object.values(subjects)) await runToEnd(command);
  const values = await inTurns(
    {
      "empty script": async () => (await runToEnd(subjects["empty script"])).seconds * 1000,
      "bootshim version": async () => (await runToEnd(subjects["bootshim version"])).seconds * 1000,
      "bootshim prepare, warm": async () =>
        (await runToEnd(subjects["bootshim prepare, warm"])).seconds * 1000,
    },
    rounds * 3,
  );
  const { stdout } = await runToEnd(benchScript("prepare_script.ts", [root, name, String(prepares)]));
  const preparedMs: number[] = JSON.parse(stdout);
  return {
    name: "warm prepare",
    measures: [
      ...Object.entries(values).map(([name, values]) => ({ name, unit: "ms" as const, values })),
      { name: "prepare in a running process", unit: "ms", values: preparedMs },
    ],
    ratios: [
      {
        name: "bootshim prepare / empty script",
        values: ratios(values["bootshim prepare, warm"], values["empty script"]),
        atMost: 4,
      },
      { name: "prepare in a running process, median", values: preparedMs, unit: "ms", atMost: 5 },
    ],
    notes: [],
  };
}
