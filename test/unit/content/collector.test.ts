import { chmod, mkdir, readdir, readFile, stat, truncate, unlink, utimes, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { dirname } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { Collector, PARTIAL_AGE_MS } from "../../../src/content/collector.ts";
import { nodeFileSystem } from "../../../src/host/file_system.ts";
import { takeLock } from "../../../src/host/flock.ts";
import { type Digest, digestEncoded } from "../../../src/image/digest.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../../src/image/media_type.ts";
import { type Blob, blobOf, randomBlob, randomManifest } from "../../support/blobs.ts";
import {
  cacheImage,
  type CacheKit,
  digestsOf,
  inRoot,
  type KitImage,
  makeImage,
  openCache,
  presentOf,
  storeBlobs,
  userOf,
} from "../../support/cache_kit.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { layoutProblems } from "../../support/layout_checker.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const YEARS_MS = 10 * 365 * 24 * 60 * 60 * 1000;

let cache: CacheKit;
beforeEach(async () => {
  cache = await openCache(temporary());
});

const recordOf = (image: KitImage) =>
  inRoot(cache, "references", `${createHash("sha256").update(image.name).digest("hex")}.json`);
const useAt = (image: KitImage, time: Date) => utimes(recordOf(image), time, time);
const blobPath = ({ descriptor }: Blob) => cache.store.blobPath(descriptor.digest);
const sorted = (digests: readonly Digest[]) => [...digests].sort();
const kept = async (blobs: readonly Blob[]) =>
  expect(await presentOf(cache, blobs)).toEqual(digestsOf(blobs));
const gone = async (blobs: readonly Blob[]) => expect(await presentOf(cache, blobs)).toEqual([]);

describe("collect", () => {
  it("removes what nobody needs, and a dry run tells the same and removes nothing", async () => {
    const image = await cacheImage(cache, makeImage());
    const stray = makeImage();
    await storeBlobs(cache, stray.blobs);
    const told = await cache.collector.collect({ isDryRun: true });
    await kept([...image.blobs, ...stray.blobs]);
    const done = await cache.collector.collect();
    expect(done).toEqual(told);
    expect(done.removals.map((each) => [each.kind, each.digest])).toEqual(
      sorted(digestsOf(stray.blobs)).map((digest) => ["blob", digest]),
    );
    expect(done.freedBytes).toBeGreaterThanOrEqual(5000);
    await kept(image.blobs);
    await gone(stray.blobs);
    expect((await cache.collector.collect()).removals).toEqual([]);
    expect(layoutProblems(cache.rootDirectory)).toEqual([]);
  });

  it("keeps what a name stood for until it stands for something else", async () => {
    const [before, after] = [makeImage(), makeImage()];
    await cacheImage(cache, before);
    await storeBlobs(cache, after.blobs);
    await cache.store.setReference(before.name, after.root.descriptor);
    await cache.collector.collect();
    await gone(before.blobs);
    await kept(after.blobs);
  });

  it("DC25 keeps all that a machine was made from, though its image has no name any more", async () => {
    const image = await cacheImage(cache, makeImage());
    const extra = randomBlob(100);
    await storeBlobs(cache, [extra]);
    await cache.store.removeReference(image.name);
    cache.users.push({ ...userOf("vm-1", image), digests: [extra.descriptor.digest] });
    await cache.collector.collect();
    const [root, ...below] = image.blobs;
    await kept([...below, extra]);
    if (root) await gone([root]); // the machine names only the manifest
    cache.users.pop();
    await cache.collector.collect();
    await gone(image.blobs);
  });

  it("keeps the blobs of entries that other tools wrote", async () => {
    const image = makeImage();
    await storeBlobs(cache, image.blobs);
    const { mediaType, digest, sizeBytes } = image.root.descriptor;
    const manifests = [
      { mediaType, digest, size: sizeBytes, annotations: { "org.opencontainers.image.ref.name": "1" } },
      { mediaType: "x/y", digest: "md5:1", size: -1 },
      { nothing: "at all" },
      { mediaType, digest: `sha256:${"0".repeat(64)}`, size: 1 },
    ];
    await writeFile(inRoot(cache, "images", "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
    await cache.collector.collect();
    await kept(image.blobs);
  });

  it("keeps what a document names wherever it names it, and is not stopped by one that says nonsense", async () => {
    const layer = randomBlob(3000);
    const lies = [
      // A layer that another image calls a manifest, with a size of its own.
      { mediaType: OCI_MANIFEST, digest: layer.descriptor.digest, sizeBytes: 7, annotations: {} },
      { mediaType: OCI_INDEX, digest: randomBlob(1).descriptor.digest, sizeBytes: 7, annotations: {} },
    ];
    const image = await cacheImage(cache, makeImage({ layers: [layer], more: lies }));
    const inner = randomBlob(10);
    const odd = blobOf(
      new TextEncoder().encode(JSON.stringify({
        schemaVersion: 9,
        mediaType: OCI_MANIFEST,
        deep: { er: [{ digest: inner.descriptor.digest }, { digest: "sha256:../../x" }, { digest: 5 }] },
      })),
      { mediaType: OCI_MANIFEST },
    );
    await storeBlobs(cache, [inner, odd]);
    const named = await cacheImage(cache, makeImage({ more: [odd.descriptor] }));
    await cache.collector.collect();
    await kept([...image.blobs, ...named.blobs, inner, odd]);
  });

  it("DC22 goes by no clock: ten years forth or back remove nothing that is needed, and spare nothing that is not", async () => {
    for (const time of [new Date(Date.now() - YEARS_MS), new Date(Date.now() + YEARS_MS)]) {
      const [image, machine, leased, stray] = [makeImage(), makeImage(), makeImage(), makeImage()];
      await cacheImage(cache, image);
      for (const each of [machine, leased, stray]) await storeBlobs(cache, each.blobs);
      cache.users.push(userOf(`vm-${randomWord()}`, machine));
      const all = [image, machine, leased, stray].flatMap((each) => each.blobs);
      for (const blob of all) await utimes(blobPath(blob), time, time);
      await useAt(image, time);
      await cache.leases.withLease(async (lease) => {
        await lease.add([leased.root.descriptor]);
        for (const name of await readdir(inRoot(cache, "leases"))) {
          await utimes(inRoot(cache, "leases", name), time, time);
        }
        await cache.collector.collect();
        await kept([...image.blobs, ...machine.blobs, ...leased.blobs]);
        await gone(stray.blobs);
      });
      await cache.collector.collect();
      await gone(leased.blobs);
    }
  });

  it("spares what is younger than the least age", async () => {
    const stray = makeImage();
    await storeBlobs(cache, stray.blobs);
    await cache.collector.collect({ minAgeMs: 60_000 });
    await kept(stray.blobs);
    const hourAgo = new Date(Date.now() - 3_600_000);
    for (const blob of stray.blobs) await utimes(blobPath(blob), hourAgo, hourAgo);
    await cache.collector.collect({ minAgeMs: 60_000 });
    await gone(stray.blobs);
  });

  it("removes records and a half-written index that a crash left", async () => {
    const image = await cacheImage(cache, makeImage());
    const other = await cacheImage(cache, makeImage());
    const record = await readFile(recordOf(other));
    await cache.store.removeReference(other.name);
    await writeFile(recordOf(other), record);
    await writeFile(`${recordOf(image)}.new`, "{");
    await writeFile(inRoot(cache, "images", ".index.json.new"), "{");
    await cache.collector.collect();
    expect(layoutProblems(cache.rootDirectory)).toEqual([]);
    await kept(image.blobs);
    await gone(other.blobs);
  });
});

describe("CO12 when something cannot be read, nothing is removed", () => {
  let image: KitImage;
  let stray: Blob;
  beforeEach(async () => {
    image = await cacheImage(cache, makeImage());
    stray = randomBlob(100);
    await storeBlobs(cache, [stray]);
  });
  const spoil = async (blob: Blob, change: (path: string) => Promise<unknown>) => {
    await chmod(blobPath(blob), 0o600);
    await change(blobPath(blob));
  };
  const flip = async (path: string) => {
    const bytes = await readFile(path);
    bytes[10] = (bytes[10] ?? 0) ^ 1;
    await writeFile(path, bytes);
  };
  it.each<[string, string, () => Promise<unknown>]>([
    [
      "a manifest that is cut short",
      "CONTENT_CORRUPT",
      () => spoil(image.manifest, (path) => truncate(path, 20)),
    ],
    ["a manifest with a wrong bit", "CONTENT_CORRUPT", () => spoil(image.manifest, flip)],
    ["an index with a wrong bit", "CONTENT_CORRUPT", () => spoil(image.root, flip)],
    ["a manifest that is a directory", "CONTENT_CORRUPT", async () => {
      await unlink(blobPath(image.manifest));
      await mkdir(blobPath(image.manifest));
    }],
    ["a name whose index is gone", "CACHE_LAYOUT_INVALID", () => unlink(blobPath(image.root))],
    ["a machine whose manifest is gone", "CACHE_LAYOUT_INVALID", () => {
      cache.users.push(userOf("vm-1", makeImage()));
      return Promise.resolve();
    }],
    [
      "an index.json of a newer version",
      "CACHE_LAYOUT_INVALID",
      () => writeFile(inRoot(cache, "images", "index.json"), '{"schemaVersion":3}'),
    ],
    [
      "a record without entry that cannot be read",
      "CACHE_LAYOUT_INVALID",
      () => writeFile(inRoot(cache, "references", `${"0".repeat(64)}.json`), "{"),
    ],
  ])("%s", async (_case, code, damage) => {
    await damage();
    const before = await readdir(dirname(blobPath(stray)));
    for (const isDryRun of [true, false]) {
      expect(await codeOf(cache.collector.collect({ isDryRun, maxBytes: 0 }))).toBe(code);
    }
    expect(await readdir(dirname(blobPath(stray)))).toEqual(before);
  });

  it("a lease of a living owner that is garbage", async () => {
    await cache.leases.withLease(async (lease) => {
      await lease.add([stray.descriptor]);
      const [name = ""] = await readdir(inRoot(cache, "leases"));
      await writeFile(inRoot(cache, "leases", name), "garbage");
      expect(await codeOf(cache.collector.collect({ maxBytes: 0 }))).toBe("CACHE_LAYOUT_INVALID");
    });
    await kept([stray, ...image.blobs]);
  });

  it("users that cannot be asked", async () => {
    const users = () => Promise.reject(new Error("no"));
    const collector = new Collector({ rootDirectory: cache.rootDirectory, users });
    await expect(collector.collect({ maxBytes: 0 })).rejects.toThrow("no");
    await kept([stray, ...image.blobs]);
  });

  it("DC05 a damaged index is made anew first, and then all of it is kept", async () => {
    await writeFile(inRoot(cache, "images", "index.json"), "");
    await cache.collector.collect();
    await kept(image.blobs);
    await gone([stray]);
  });

  it("DC05 a damaged index without records: nothing is removed, again and again", async () => {
    await unlink(recordOf(image));
    await writeFile(inRoot(cache, "images", "index.json"), "");
    for (let time = 0; time < 2; time++) {
      expect(await codeOf(cache.collector.collect())).toBe("CACHE_LAYOUT_INVALID");
    }
    await kept([...image.blobs, stray]);
  });
});

describe("leases", () => {
  it("CO10 CO11 keep what is there and what comes, with all that a document leads to, until they are dropped", async () => {
    const there = makeImage();
    const coming = randomBlob(1000);
    await storeBlobs(cache, there.blobs);
    const other = await openCache(cache.rootDirectory);
    await cache.leases.withLease(async (lease) => {
      await lease.add([there.root.descriptor]);
      await lease.add([coming.descriptor]);
      await other.collector.collect();
      await storeBlobs(cache, [coming]);
      await other.collector.collect();
      await kept([...there.blobs, coming]);
    });
    expect(await readdir(inRoot(cache, "leases"))).toEqual([]);
    await other.collector.collect();
    await gone([...there.blobs, coming]);
  });

  it("are written once for an image that is there whole, and say of each of its documents that it is in use", async () => {
    const image = makeImage();
    await cacheImage(cache, image);
    const other = await openCache(cache.rootDirectory);
    await cache.leases.withLease(async (lease) => {
      const store = cache.store.underLease(lease);
      for (const { descriptor } of [image.root, image.manifest]) await store.readDocument(descriptor);
      for (const { descriptor } of image.blobs) expect(await store.hasBlob(descriptor)).toBe(true);
      const [name = ""] = await readdir(inRoot(cache, "leases"));
      const written: unknown = JSON.parse(await readFile(inRoot(cache, "leases", name), "utf8"));
      const { mediaType, digest, sizeBytes } = image.root.descriptor;
      expect(written).toEqual({ schemaVersion: 1, needs: [{ mediaType, digest, size: sizeBytes }] });
      for (const { descriptor } of [image.root, image.manifest]) {
        const removing = other.collector.remove({ names: [], digest: descriptor.digest });
        expect(await codeOf(removing)).toBe("IN_USE");
      }
      expect(await codeOf(other.collector.remove({ names: [image.name] }))).toBe("IN_USE");
      await other.collector.collect({ maxBytes: 0 });
      await kept(image.blobs);
    });
    await other.collector.remove({ names: [image.name] });
    await gone(image.blobs);
  });

  it("DC21 a dead owner's lease keeps nothing and is removed, a living one's stays", async () => {
    const [dead, living] = [randomBlob(10), randomBlob(10)];
    await storeBlobs(cache, [dead, living]);
    const { mediaType, digest, sizeBytes } = dead.descriptor;
    const needs = [{ mediaType, digest, size: sizeBytes }];
    await writeFile(inRoot(cache, "leases", "left.json"), JSON.stringify({ schemaVersion: 1, needs }));
    await cache.leases.withLease(async (lease) => {
      await lease.add([living.descriptor]);
      await cache.collector.collect();
      expect(await readdir(inRoot(cache, "leases"))).toHaveLength(1);
    });
    await gone([dead]);
    await kept([living]);
  });

  it("is held by many at once, and none waits for a collection that does not run", async () => {
    const blobs = Array.from({ length: 30 }, () => randomBlob(10));
    await storeBlobs(cache, blobs);
    const all = Promise.withResolvers<void>();
    let leased = 0;
    await Promise.all(blobs.map((blob) =>
      cache.leases.withLease(async (lease) => {
        await lease.add([blob.descriptor]);
        // What nobody has leased yet may be collected.
        if (++leased === blobs.length) all.resolve();
        await all.promise;
        await cache.collector.collect();
        await kept([blob]);
      })
    ));
    await cache.collector.collect();
    await gone(blobs);
  });
});

describe("a budget", () => {
  const LAYER_BYTES = 64 * 1024;
  let images: KitImage[];
  beforeEach(async () => {
    images = [];
    for (let number = 0; number < 4; number++) {
      const image = await cacheImage(cache, makeImage({ layers: [randomBlob(LAYER_BYTES)] }));
      await useAt(image, new Date(2020, 0, 10 - number));
      images.push(image);
    }
  });
  const names = async () => (await cache.store.references()).map((each) => each.name);
  /** What everything takes now, and a little. */
  const roomFor = async (count: number) => {
    let bytes = 0;
    for (const image of images.slice(0, count)) {
      for (const blob of image.blobs) bytes += (await stat(blobPath(blob))).blocks * 512;
    }
    return bytes + 1000;
  };

  it("gives up the least recently used images until it is kept, and no more", async () => {
    const maxBytes = await roomFor(2);
    const told = await cache.collector.collect({ isDryRun: true, maxBytes });
    expect(told.images.map((each) => each.name)).toEqual([images[3]?.name, images[2]?.name]);
    expect(await cache.collector.collect({ maxBytes })).toEqual(told);
    expect(await names()).toEqual([images[0]?.name, images[1]?.name]);
    await gone([...images[2]?.blobs ?? [], ...images[3]?.blobs ?? []]);
    expect(layoutProblems(cache.rootDirectory)).toEqual([]);
    expect((await cache.collector.collect({ maxBytes })).images).toEqual([]);
  });

  it("spares what is pinned, used by a machine, or leased, and tells what is missing then", async () => {
    const [first, second, third, fourth] = images;
    if (!first || !second || !third || !fourth) throw new Error("four images were made");
    await cache.store.setPinned(fourth.name, true);
    cache.users.push(userOf("vm-1", third));
    await cache.leases.withLease(async (lease) => {
      await lease.add([second.manifest.descriptor]);
      const done = await cache.collector.collect({ maxBytes: 0 });
      expect(done.images.map((each) => each.name)).toEqual([first.name]);
      expect(done.missingBytes).toBeGreaterThan(3 * LAYER_BYTES);
    });
    await kept([...second.blobs, ...third.blobs, ...fourth.blobs]);
    await cache.store.setPinned(fourth.name, false);
    await cache.collector.collect({ maxBytes: 0 });
    await gone([...second.blobs, ...fourth.blobs]);
    await kept(third.blobs);
  });

  it("counts a shared layer only when nobody needs it any more", async () => {
    const [oldest, newest] = [images[3], images[0]];
    if (!oldest || !newest) throw new Error("images were made");
    const sharing = await cacheImage(cache, makeImage({ layers: oldest.layers }));
    await useAt(sharing, new Date(2020, 0, 9, 12));
    await cache.collector.collect({ maxBytes: await roomFor(3) + 30_000 });
    // Giving up the oldest alone frees next to nothing, so the next one goes as well.
    expect(await names()).not.toContain(images[2]?.name);
    await kept(sharing.blobs);
  });

  it("keeps so much free on the file system, by what it says is free", async () => {
    const fileSystem = { ...nodeFileSystem, availableBytes: () => Promise.resolve(1_000_000) };
    const small = await openCache(cache.rootDirectory, { fileSystem });
    expect((await small.collector.collect({ keepFreeBytes: 1_000_000 })).images).toEqual([]);
    const done = await small.collector.collect({ keepFreeBytes: 1_000_001 });
    expect(done.images.map((each) => each.name)).toEqual([images[3]?.name]);
    expect(done.missingBytes).toBe(0);
  });

  it("spares images that were used within the least age", async () => {
    const recent = images[3];
    if (!recent) throw new Error("images were made");
    await useAt(recent, new Date());
    await cache.collector.collect({ maxBytes: 0, minAgeMs: 60_000 });
    expect(await names()).toEqual([recent.name]);
  });
});

describe("files that are no blobs", () => {
  const key = (blob: Blob) => `sha256-${digestEncoded(blob.descriptor.digest)}`;
  const age = async (path: string, ageMs: number) => {
    const time = new Date(Date.now() - ageMs);
    await utimes(path, time, time);
  };

  it("DC21 removes interrupted transfers of a day ago whose lock is free, and no other", async () => {
    const [old, young, busy, leased] = [randomBlob(10), randomBlob(10), randomBlob(10), randomBlob(10)];
    for (const blob of [old, young, busy, leased]) {
      for (const ending of ["partial", "json"]) {
        const path = inRoot(cache, "ingest", `${key(blob)}.${ending}`);
        await writeFile(path, "x");
        if (blob !== young) await age(path, PARTIAL_AGE_MS + 1000);
      }
    }
    const lock = await takeLock(inRoot(cache, "locks", `blob-${key(busy)}`), {
      mode: "exclusive",
      timeoutMs: 0,
    });
    await cache.leases.withLease(async (lease) => {
      await lease.add([leased.descriptor]);
      const told = await cache.collector.collect({ isDryRun: true });
      expect(told.removals.map((each) => each.kind)).toEqual(["partial", "partial"]);
      expect((await cache.collector.collect()).removals.map((each) => each.digest)).toEqual([
        old.descriptor.digest,
      ]);
    });
    await lock.release();
    expect((await readdir(inRoot(cache, "ingest"))).sort()).toEqual(
      [young, busy, leased].flatMap((blob) => [`${key(blob)}.json`, `${key(blob)}.partial`]).sort(),
    );
  });

  it("removes unpacked disks whose layer nobody needs, unless somebody unpacks there", async () => {
    const image = await cacheImage(cache, makeImage());
    const [stray, busy] = [randomBlob(10), randomBlob(10)];
    const directory = inRoot(cache, "derived", "sha256");
    await mkdir(directory, { recursive: true });
    for (const blob of [...image.layers, stray, busy]) {
      for (const ending of ["raw", "json"]) {
        await writeFile(`${directory}/${digestEncoded(blob.descriptor.digest)}.${ending}`, "x");
      }
    }
    const path = inRoot(cache, "locks", `derived-${key(busy)}`);
    const lock = await takeLock(path, { mode: "exclusive", timeoutMs: 0 });
    const done = await cache.collector.collect();
    await lock.release();
    expect(done.removals.map((each) => [each.kind, each.digest])).toEqual([[
      "derived",
      stray.descriptor.digest,
    ]]);
    expect((await readdir(directory)).sort()).toEqual(
      [...image.layers, busy].flatMap((blob) => {
        const name = digestEncoded(blob.descriptor.digest);
        return [`${name}.json`, `${name}.raw`];
      }).sort(),
    );
  });
});

describe("remove", () => {
  const remove = (names: readonly string[], digest?: Digest) => cache.collector.remove({ names, digest });

  it("forgets the name and removes what nobody else needs", async () => {
    const shared = randomBlob(2000);
    const image = await cacheImage(cache, makeImage({ layers: [shared, randomBlob(10)] }));
    const other = await cacheImage(cache, makeImage({ layers: [shared] }));
    const stray = randomBlob(10);
    await storeBlobs(cache, [stray]);
    const { removals, leftWhy } = await remove([image.name]);
    expect(leftWhy).toBeNull();
    expect(removals).toHaveLength(image.blobs.length - 1);
    await gone(image.blobs.filter((blob) => blob !== shared));
    await kept([...other.blobs, stray]); // what nobody needed before is the collector's
    expect(layoutProblems(cache.rootDirectory)).toEqual([]);
  });

  it("is refused while a machine is made from it, unless another name keeps the image", async () => {
    const image = await cacheImage(cache, makeImage());
    cache.users.push(userOf("vm-1", image));
    const error = await failureOf(remove([image.name]));
    expect([error.code, error.details["machines"]]).toEqual(["IN_USE", ["vm-1"]]);
    const second = `${image.name}-2`;
    await cache.store.setReference(second, image.root.descriptor);
    await remove([image.name]);
    await kept(image.blobs);
    expect(await codeOf(remove([second]))).toBe("IN_USE");
    expect(await codeOf(remove([], image.manifest.descriptor.digest))).toBe("IN_USE");
  });

  it("is refused while it is pinned, or an operation under way needs it", async () => {
    const image = await cacheImage(cache, makeImage());
    await cache.store.setPinned(image.name, true);
    expect((await failureOf(remove([image.name]))).message).toContain("it is pinned");
    await cache.store.setPinned(image.name, false);
    await cache.leases.withLease(async (lease) => {
      await lease.add([image.manifest.descriptor]);
      expect(await codeOf(remove([image.name]))).toBe("IN_USE");
    });
    await remove([image.name]);
    await gone(image.blobs);
  });

  it("gives one manifest of an index up, and leaves the others and the name", async () => {
    const layer = randomBlob(100);
    const second = randomManifest({ layers: [layer.descriptor] });
    const image = makeImage({ more: [second.descriptor] });
    await storeBlobs(cache, [second, layer]);
    await cacheImage(cache, image);
    await remove([], second.descriptor.digest);
    await gone([second, layer]);
    await kept(image.blobs);
    expect(await cache.store.findReference(image.name)).toBeDefined();
  });

  it("gives a document up that no name leads to", async () => {
    const image = makeImage();
    await storeBlobs(cache, image.blobs);
    await remove([], image.root.descriptor.digest);
    await gone(image.blobs);
  });

  it("forgets a damaged image, and leaves its files to the collector", async () => {
    const image = await cacheImage(cache, makeImage());
    const other = await cacheImage(cache, makeImage());
    await unlink(blobPath(image.root));
    const { removals, leftWhy } = await remove([image.name]);
    expect([removals, leftWhy]).toEqual([[], expect.stringContaining("not in the cache")]);
    await cache.collector.collect();
    await gone(image.blobs);
    await kept(other.blobs);
  });
});

describe("remove by the digest of a layer", () => {
  const layerOf = ({ layers }: KitImage) => layers.map((layer) => layer.descriptor.digest)[0] as Digest;

  it("refuses what a machine reads, though no name leads to it any more", async () => {
    const image = await cacheImage(cache, makeImage());
    cache.users.push(userOf("vm-1", image));
    await cacheImage(cache, makeImage({ name: image.name }));
    expect(await codeOf(cache.collector.remove({ names: [], digest: layerOf(image) }))).toBe("IN_USE");
    await kept(image.layers);
  });

  it("refuses what an operation under way has looked at, though its lease names only the root", async () => {
    const image = await cacheImage(cache, makeImage());
    await cache.leases.withLease(async (lease) => {
      const store = cache.store.underLease(lease);
      for (const { descriptor } of [image.root, image.manifest]) await store.readDocument(descriptor);
      for (const { descriptor } of image.layers) await store.locateBlob(descriptor);
      await cacheImage(cache, makeImage({ name: image.name }));
      expect(await codeOf(cache.collector.remove({ names: [], digest: layerOf(image) }))).toBe("IN_USE");
      await kept(image.layers);
    });
  });
});
