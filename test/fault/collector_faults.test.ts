/** Collection and removal on a file system that fails or stops: nothing that is needed is ever lost, and again it works. */
import { cp, mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import type { Collector } from "../../src/content/collector.ts";
import { nodeFileSystem } from "../../src/host/file_system.ts";
import { digestEncoded } from "../../src/image/digest.ts";
import { randomBlob } from "../support/blobs.ts";
import {
  cacheImage,
  type CacheKit,
  digestsOf,
  makeImage,
  openCache,
  presentOf,
  storeBlobs,
  userOf,
} from "../support/cache_kit.ts";
import { FaultyFileSystem } from "../support/faulty_file_system.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const shared = randomBlob(3000);
const [old, kept, machine, stray] = [
  makeImage({ layers: [shared, randomBlob(40_000)] }),
  makeImage({ layers: [shared] }),
  makeImage(),
  makeImage(),
];
const partial = randomBlob(10);
const users = [userOf("vm-1", machine)];
let template = "";

/** `old` and `kept` have names, `machine` a machine, `stray` nothing; an old partial, and an unpacked disk of `stray`. */
beforeEach(async () => {
  template = join(temporary(), "template");
  const cache = await openCache(template, { users });
  for (const image of [old, kept]) await cacheImage(cache, image);
  for (const image of [machine, stray]) await storeBlobs(cache, image.blobs);
  const derived = join(template, "derived", "sha256");
  await mkdir(derived, { recursive: true });
  const [layer] = stray.layers;
  for (const ending of ["raw", "json"]) {
    await writeFile(
      join(derived, `${digestEncoded(layer?.descriptor.digest ?? partial.descriptor.digest)}.${ending}`),
      "x",
    );
    const path = join(
      template,
      "ingest",
      `sha256-${digestEncoded(partial.descriptor.digest)}.${ending === "raw" ? "partial" : "json"}`,
    );
    await writeFile(path, "x");
    await utimes(path, 1000, 1000);
  }
  await writeFile(join(template, "leases", "dead.json"), "");
  // Named last, used longest ago.
  const files = await readdir(join(template, "references"));
  expect(files).toHaveLength(2);
  await cache.store.setPinned(kept.name, true);
});

async function copyRoot(label: string): Promise<string> {
  const rootDirectory = join(temporary(), label);
  await cp(template, rootDirectory, { recursive: true, preserveTimestamps: true });
  return rootDirectory;
}

const namesIn = async ({ store }: CacheKit) => (await store.references()).map((each) => each.name).sort();
const filesIn = async (rootDirectory: string) =>
  (await readdir(rootDirectory, { recursive: true })).filter((name) => !name.startsWith("locks/")).sort();

const actions: readonly [string, (collector: Collector) => Promise<unknown>][] = [
  ["collecting within a budget", (collector) => collector.collect({ maxBytes: 1 })],
  ["removing an image", async (collector) => {
    await collector.remove({ names: [old.name] });
    await collector.collect();
  }],
];

describe.each(actions)("%s", (_action, act) => {
  it("DC31 CO13 with a failure or a kill at any operation", async () => {
    const counting = new FaultyFileSystem(nodeFileSystem);
    const whole = await copyRoot("counted");
    await act((await openCache(whole, { users, fileSystem: counting })).collector);
    const expected = await filesIn(whole);
    const count = counting.operations.length;
    expect(count).toBeGreaterThan(100);
    for (const errno of ["ENOSPC", "EIO", "EMFILE", "EROFS", "killed"]) {
      // Every operation for a kill. Failures that return take the same ways out, so in the short lane they share them.
      const isShared = errno !== "killed" && process.env["BOOTSHIM_FUZZ_RUNS"] === undefined;
      const step = isShared ? 4 : 1;
      const offset = isShared ? ["ENOSPC", "EIO", "EMFILE", "EROFS"].indexOf(errno) : 0;
      for (let at = offset; at < count; at += step) {
        const rootDirectory = await copyRoot(`${errno}-${at}`);
        const fileSystem = new FaultyFileSystem(nodeFileSystem, { at, errno });
        await openCache(rootDirectory, { users, fileSystem }).then(({ collector }) => act(collector)).catch(
          () => {},
        );
        const what = `${errno} at ${at}: ${fileSystem.operations[at]}`;
        const cache = await openCache(rootDirectory, { users });
        const names = await namesIn(cache);
        expect([what, [[kept.name], [kept.name, old.name].sort()]]).toEqual([
          what,
          expect.arrayContaining([names]),
        ]);
        expect([what, layoutProblems(rootDirectory, { isAfterKill: true, areImagesWhole: true })]).toEqual([
          what,
          [],
        ]);
        const needed = [...kept.blobs, machine.manifest, machine.config, ...machine.layers];
        expect([what, await presentOf(cache, needed)]).toEqual([what, digestsOf(needed)]);
        await act(cache.collector);
        expect([what, await filesIn(rootDirectory)]).toEqual([what, expected]);
      }
    }
  });
});

it("CO13 eight collections at once leave the same as one, and what is leased meanwhile stays", async () => {
  const one = await copyRoot("one");
  await (await openCache(one, { users })).collector.collect({ maxBytes: 1 });
  const many = await copyRoot("many");
  const caches = await Promise.all(Array.from({ length: 8 }, () => openCache(many, { users })));
  await Promise.all(caches.map(({ collector }) => collector.collect({ maxBytes: 1 })));
  expect(await filesIn(many)).toEqual(await filesIn(one));
  expect(layoutProblems(many, { areImagesWhole: true })).toEqual([]);
});
