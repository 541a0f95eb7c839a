import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { benchScript, bootshim, buildImage, makeGuestPart, type Place } from "./bench_place.ts";
import { startService } from "../support/service.ts";
import { inTurns, runToEnd } from "./measure.ts";
import { type PartReport, ratios } from "./report.ts";

/** What a prepared image costs a second time, by command and by the service's API, and what a start alone costs. */
export async function start({ directory, scale: { rounds, prepares } }: Place): Promise<PartReport> {
  const root = join(directory, "root");
  const name = "bench.example/os/linux:1";
  await mkdir(root);
  await buildImage(root, name, {
    kernel: await makeGuestPart("kernel", join(directory, "vmlinuz")),
    initramfs: await makeGuestPart("initramfs", join(directory, "initramfs")),
    rootfs: await makeGuestPart("rootfs-ext4", join(directory, "rootfs")),
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
  const preparedMs = await prepareByApi(root, name, prepares);
  return {
    name: "warm prepare",
    measures: [
      ...Object.entries(values).map(([name, values]) => ({ name, unit: "ms" as const, values })),
      { name: "prepare by the API, over its socket", unit: "ms", values: preparedMs },
    ],
    ratios: [
      {
        name: "bootshim prepare / empty script",
        values: ratios(values["bootshim prepare, warm"], values["empty script"]),
        atMost: 4,
      },
      {
        name: "bootshim version / empty script",
        values: ratios(values["bootshim version"], values["empty script"]),
      },
      { name: "prepare by the API, median", values: preparedMs, unit: "ms", atMost: 5 },
    ],
    notes: [],
  };
}

/** Milliseconds of each request, answers read whole. */
async function prepareByApi(root: string, reference: string, count: number): Promise<number[]> {
  const service = await startService({ root });
  try {
    const values: number[] = [];
    const prepare = async () => {
      const startMs = performance.now();
      const { status, text } = await service.ask("/v1/prepare", { body: { reference } });
      if (status !== 200) throw new Error(`the service answered ${status}: ${text.slice(0, 300)}`);
      return performance.now() - startMs;
    };
    // The first meets code that has not run yet.
    await prepare();
    for (let number = 0; number < count; number++) values.push(await prepare());
    return values;
  } finally {
    await service.stop();
  }
}
