import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { inspectImage } from "../../../src/agent/inspect.ts";
import { listImages } from "../../../src/agent/images.ts";
import { pullImage } from "../../../src/agent/pull_image.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { ESP_GUID, gptDisk } from "../../support/disk_bytes.ts";
import { codeOf } from "../../support/failures.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../../support/os_image.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const WISH = {
  architecture: "amd64",
  variant: "virtualization",
  pull: "missing",
  boot: "auto",
  firmware: "auto",
} as const;

async function makeImage() {
  const commandLine = `console=ttyS0 word=${randomWord()}`;
  const virtual = osImage(
    { kernel: randomKernel(), initramfs: randomInitramfs(), rootfs: gptDisk([ESP_GUID]) },
    { commandLine, variant: "virtualization" },
  );
  const arm = osImage({ kernel: randomKernel() }, { architecture: "arm64" });
  const layout = await publishLayout(join(temporary(), "layout"), [virtual, arm]);
  const layers = (isCached: boolean) =>
    Object.entries(virtual.layers).map(([role, { descriptor: { mediaType, digest, sizeBytes } }]) => ({
      role,
      mediaType,
      digest,
      sizeBytes,
      isCached,
    }));
  const expected = (isCached: boolean) => ({
    reference: layout.name,
    digest: layout.index.descriptor.digest,
    mediaType: layout.index.descriptor.mediaType,
    entries: [
      {
        architecture: "amd64",
        os: "linux",
        variant: "virtualization",
        digest: virtual.manifest.descriptor.digest,
        isChosen: true,
      },
      {
        architecture: "arm64",
        os: "linux",
        variant: null,
        digest: arm.manifest.descriptor.digest,
        isChosen: false,
      },
    ],
    manifestDigest: virtual.manifest.descriptor.digest,
    layers: layers(isCached),
    commandLine,
    modes: [
      { mode: "disk", possible: true, why: "the rootfs is a GPT disk with an EFI system partition" },
      { mode: "kernel", possible: true, why: "the kernel is a valid bzImage with initramfs" },
      { mode: "uki", possible: false, why: expect.any(String) },
      { mode: "iso", possible: false, why: expect.any(String) },
    ],
    modesVerified: isCached,
    notes: [],
  });
  return { ...layout, expected };
}

describe("inspectImage", () => {
  it("tells all of an image that is not cached, and stores nothing", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference, expected } = await makeImage();
    expect(await inspectImage(context, { ...WISH, reference })).toEqual(expected(false));
    expect(await readdir(join(temporary(), "root/images/blobs/sha256"))).toEqual([]);
    expect(await listImages(context)).toEqual([]);
  });

  it("tells the same of a cached image, from the cache alone", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference, expected } = await makeImage();
    await pullImage(context, { ...WISH, reference });
    await rm(reference.directory, { recursive: true });
    for (const pull of ["missing", "never"] as const) {
      expect(await inspectImage(context, { ...WISH, reference, pull })).toEqual(expected(true));
    }
  });

  it("tells the command line of a cmdline layer, which is stronger than the configuration's, fetched or cached", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const line = `console=ttyS0 word=${randomWord()}\n`;
    const image = osImage({ kernel: randomKernel(), cmdline: new TextEncoder().encode(line) }, {
      commandLine: `word=${randomWord()}`,
    });
    const { reference } = await publishLayout(join(temporary(), "layout"), [image]);
    expect((await inspectImage(context, { ...WISH, reference })).commandLine).toBe(line);
    expect(await readdir(join(temporary(), "root/images/blobs/sha256"))).toEqual([]);
    await pullImage(context, { ...WISH, reference });
    await rm(reference.directory, { recursive: true });
    expect((await inspectImage(context, { ...WISH, reference, pull: "never" })).commandLine).toBe(line);
  });

  it("tells of a cmdline layer that is no text, without taking it for a command line", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const image = osImage({ kernel: randomKernel(), cmdline: new Uint8Array([0xff, 0xfe, 0x41]) });
    const { reference } = await publishLayout(join(temporary(), "layout"), [image]);
    expect(await inspectImage(context, { ...WISH, reference })).toMatchObject({
      commandLine: null,
      notes: [expect.stringContaining("is not valid UTF-8")],
    });
  });

  it("asks nobody under never", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference } = await makeImage();
    expect(await codeOf(inspectImage(context, { ...WISH, reference, pull: "never" }))).toBe(
      "IMAGE_NOT_FOUND",
    );
  });
});
