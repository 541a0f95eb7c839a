/**
 * A cache of many images, by real commands. `BOOTSHIM_MANY_IMAGES=10000` makes it full size, and each command must end
 * within 2 seconds then, or 3 where it tells of every image and file that it would give up; figures are printed.
 */
import { performance } from "node:perf_hooks";
import { join } from "node:path";
import { expect, it } from "vitest";
import { bootshimJson } from "../support/bootshim_command.ts";
import { nameOfImage, writeManyImages } from "../support/many_images.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const COUNT = Number(process.env["BOOTSHIM_MANY_IMAGES"] ?? 300);
const IS_FULL_SIZE = COUNT >= 10_000;

it(`DC30 ${COUNT} images: listed, prepared from and collected without hashing them`, async () => {
  const root = join(temporary(), "root");
  await writeManyImages(root, COUNT);
  const run = async (argv: string[], limitSeconds = 2): Promise<unknown> => {
    const startMs = performance.now();
    const result = await bootshimJson(argv, { root });
    const seconds = (performance.now() - startMs) / 1000;
    console.info(`${COUNT} images, ${argv.slice(0, 3).join(" ")}: ${seconds.toFixed(2)} s`);
    expect(seconds).toBeLessThan(IS_FULL_SIZE ? limitSeconds : Infinity);
    return result;
  };
  expect(await run(["version"])).toBeDefined();
  expect(await run(["images"])).toHaveLength(COUNT);
  const reference = nameOfImage(COUNT - 1);
  for (let time = 0; time < 2; time++) {
    expect(await run(["prepare", reference, "--pull", "never"])).toMatchObject({
      cached: true,
      boot: { mode: "kernel", cmdline: `console=ttyS0 number=${COUNT - 1}` },
    });
  }
  expect(await run(["gc", "--dry-run"])).toMatchObject({ images: [], removed: [], freedBytes: 0 });
  expect(await run(["gc", "--dry-run", "--max-bytes", "1MiB"], 3)).toMatchObject({ dryRun: true });
});
