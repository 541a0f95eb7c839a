import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/content/content_store.ts";
import { shortDigest } from "../../../src/image/digest.ts";
import { randomBlob } from "../../support/blobs.ts";
import { cacheImage, type KitImage, makeImage, presentOf, storeBlobs } from "../../support/cache_kit.ts";
import { runTestProgram } from "../../support/test_program.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const run = (...argv: string[]) => runTestProgram(argv, { directory: temporary() });
const failed = (exitCode: number, stderr: string) => ({
  exitCode,
  stdout: "",
  stderr: expect.stringContaining(stderr),
});

let store: ContentStore;
let image: KitImage;
beforeEach(async () => {
  store = await ContentStore.open({ rootDirectory: join(temporary(), "root"), groupId: null });
  image = await cacheImage({ store }, makeImage());
});

describe("rm", () => {
  it("removes an image by its name", async () => {
    const { exitCode, stdout } = await run("rm", image.name);
    expect([exitCode, stdout]).toEqual([
      0,
      expect.stringMatching(new RegExp(`^removed ${image.name}\nfreed [0-9.]+ KiB\n$`)),
    ]);
    expect(await presentOf({ store }, image.blobs)).toEqual([]);
    expect(await run("rm", image.name)).toEqual(failed(66, "IMAGE_NOT_FOUND"));
  });

  it("removes it by its digest, under all its names, and tells a program all of it", async () => {
    const second = `${image.name}-2`;
    await store.setReference(second, image.root.descriptor);
    const { digest } = image.root.descriptor;
    const removed = JSON.parse((await run("rm", digest, "-o", "json")).stdout);
    expect(removed).toEqual({
      references: [image.name, second],
      digest,
      removed: expect.arrayContaining([{ kind: "blob", digest, sizeBytes: expect.any(Number) }]),
      freedBytes: expect.any(Number),
    });
    expect(removed.removed).toHaveLength(image.blobs.length);
    expect(await store.references()).toEqual([]);
  });

  it("removes one manifest of an index, but no layer of an image", async () => {
    const [layer] = image.layers;
    expect(await run("rm", layer?.descriptor.digest ?? "")).toEqual(failed(64, "it is a part of image"));
    const { digest } = image.manifest.descriptor;
    expect((await run("rm", digest)).stdout).toContain(`removed ${shortDigest(digest)}`);
    expect(await presentOf({ store }, image.blobs)).toEqual([image.root.descriptor.digest]);
    expect(await run("rm", digest)).toEqual(failed(66, "IMAGE_NOT_FOUND"));
    expect(await run("rm", "sha256:12")).toEqual(failed(65, "MANIFEST_INVALID"));
  });
});

describe("pin and unpin", () => {
  it("keep an image whatever is wanted, and let it go again", async () => {
    expect((await run("pin", image.name)).stdout).toBe(`pinned ${image.name}\n`);
    expect(await run("rm", image.name)).toEqual(failed(73, "IN_USE"));
    const kept = JSON.parse((await run("gc", "--max-bytes", "0", "-o", "json")).stdout);
    expect([kept.images, kept.missingBytes > 0]).toEqual([[], true]);
    expect((await run("gc", "--max-bytes", "0")).stdout).toMatch(/still .* over the budget/);
    const unpinned = JSON.parse((await run("unpin", image.name, "-o", "json")).stdout);
    expect(unpinned).toEqual({ reference: image.name, digest: image.root.descriptor.digest, pinned: false });
    await run("gc", "--max-bytes", "0");
    expect(await presentOf({ store }, image.blobs)).toEqual([]);
    expect(await run("pin", image.name)).toEqual(failed(66, "IMAGE_NOT_FOUND"));
  });
});

describe("gc", () => {
  it("says what goes, dry or not, for people and programs", async () => {
    const stray = randomBlob(10);
    await storeBlobs({ store }, [stray]);
    const { digest } = stray.descriptor;
    expect((await run("gc", "--dry-run")).stdout).toBe(
      `would remove blob ${digest} 4 KiB\nwould free 4 KiB\n`,
    );
    expect(await presentOf({ store }, [stray])).toEqual([digest]);
    expect(JSON.parse((await run("gc", "-o", "json")).stdout)).toEqual({
      dryRun: false,
      images: [],
      removed: [{ kind: "blob", digest, sizeBytes: 4096 }],
      freedBytes: 4096,
      missingBytes: 0,
    });
    expect((await run("gc")).stdout).toBe("freed 0 B\n");
  });

  it("gives images up for a budget, which spares the recently used when told so", async () => {
    expect((await run("gc", "--max-bytes", "0", "--min-age", "1h")).stdout).not.toContain("image");
    expect((await run("gc", "--max-bytes", "0", "--dry-run")).stdout).toMatch(
      new RegExp(`^would remove image ${image.name}, last used \\d{4}-.*Z\n`),
    );
  });

  it.each([
    ["--max-bytes", "much", "must be a size"],
    ["--keep-free-bytes", "-1", "must be a size"],
    ["--min-age", "3 moons", "must be a time span"],
  ])("refuses %s %s", async (flag, value, why) => {
    expect(await run("gc", `${flag}=${value}`)).toEqual(failed(64, why));
  });
});
