import { randomBytes } from "node:crypto";
import { readdir, rm, truncate } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { inspectImage } from "../../../src/agent/inspect.ts";
import { listImages } from "../../../src/agent/images.ts";
import { prepare } from "../../../src/agent/prepare.ts";
import type { BootWishes } from "../../../src/agent/prepare_boot.ts";
import { pullImage } from "../../../src/agent/pull_image.ts";
import type { Role } from "../../../src/boot/prepared_boot.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { bytesWith, efiProgram, ESP_GUID, extDisk, gptDisk } from "../../support/disk_bytes.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { isoImage } from "../../support/iso_bytes.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../../support/os_image.ts";
import { qcow2File } from "../../support/qcow2_bytes.ts";
import { randomWord } from "../../support/random_word.ts";
import { tarOf } from "../../support/tar_bytes.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const KIB = 1024;
const temporary = useTemporaryDirectory();
const WISH = {
  architecture: "amd64",
  variant: "virtualization",
  pull: "missing",
  boot: "auto",
  firmware: "auto",
  cmdline: undefined,
  appends: [],
} as const;

const VERSION = "6.1.0-test (builder@host) #1 SMP";

/** What is in the layers of {@link makeImage}. */
const CONTENTS: Readonly<Record<string, unknown>> = {
  kernel: expect.objectContaining({ kind: "kernel", format: "bzImage", version: VERSION }),
  initramfs: { isInitramfs: true },
  rootfs: expect.objectContaining({
    kind: "partitioned",
    partitions: [expect.objectContaining({ name: "EFI system partition" })],
  }),
};
const SUMMARIES: Readonly<Record<string, unknown>> = {
  kernel: `bzImage for amd64, ${VERSION}`,
  initramfs: null,
  rootfs: "GPT disk: EFI system partition",
};

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
      content: CONTENTS[role],
      summary: SUMMARIES[role],
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
    boot: {
      mode: "disk",
      firmware: "uefi",
      cmdline: commandLine,
      reason: "chosen: the rootfs is a GPT disk with an EFI system partition",
    },
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
      boot: null,
      notes: [expect.stringMatching(/^prepare refuses this image: .* is not valid UTF-8$/)],
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

const own = `console=ttyS0 own=${randomWord()}`;
/** Whose words lie behind much else, as those of a real stub do. */
const uki = () =>
  efiProgram(0x8664, {
    sections: [
      { name: ".text", bytes: new Uint8Array(randomBytes(300 * KIB)) },
      { name: ".cmdline", bytes: own },
      { name: ".osrel", bytes: 'PRETTY_NAME="Demo 1"' },
      { name: ".linux", bytes: randomKernel() },
    ],
  });
const farGpt = () => gptDisk([ESP_GUID], { entriesSector: 1000n });
const ext4 = () => extDisk({ incompat: 0x40 });

describe("inspectImage and prepare agree", () => {
  it.each<[string, Readonly<Partial<Record<Role, Uint8Array>>>, Partial<BootWishes>]>([
    ["a disk whose partition table lies far behind", { rootfs: farGpt() }, {}],
    ["a qcow2 file, whose tables and clusters lie anywhere", { rootfs: qcow2File({ disk: farGpt() }) }, {}],
    [
      "a compressed qcow2 file",
      { rootfs: qcow2File({ disk: farGpt(), form: "packed", clusterBits: 12 }) },
      {},
    ],
    ["a disk that hardly compresses", { rootfs: new Uint8Array(gzipSync(noisyGpt(), { level: 1 })) }, {}],
    ["a disk in a tar", { rootfs: tarOf({ name: "disk.raw", bytes: gptDisk([ESP_GUID]) }) }, {}],
    ["an ISO image whose catalog lies far behind", {
      iso: isoImage({ entries: [{ platform: 0 }], catalogSector: 500 }),
    }, {}],
    ["an ISO image that boots by nothing", { iso: isoImage(), kernel: randomKernel() }, {}],
    ["a unified kernel image", { uki: uki() }, {}],
    ["a unified kernel image as kernel", { kernel: uki(), cmdline: Buffer.from("other=1") }, {}],
    ["one with words of the caller's", { kernel: uki() }, { appends: ["quiet"] }],
    ["a kernel beside a disk, when asked for", { kernel: randomKernel(), rootfs: farGpt() }, {
      boot: "kernel",
    }],
    ["a kernel under uefi", { kernel: randomKernel() }, { firmware: "uefi" }],
    [
      "a kernel with a bare root",
      { kernel: randomKernel(), initramfs: randomInitramfs(), rootfs: ext4() },
      {},
    ],
    ["a squashfs that is a qcow2 file", { kernel: randomKernel(), squashfs: qcow2File({}) }, {}],
    ["a squashfs that is one", { kernel: randomKernel(), squashfs: bytesWith(200 * KIB, { 0: "hsqs" }) }, {}],
    [
      "a squashfs that its end makes something else",
      { kernel: randomKernel(), squashfs: bytesWith(200 * KIB, { 0: "hsqs", [199.5 * KIB]: "conectix" }) },
      {},
    ],
  ])("on %s", async (_name, layers, wishes) => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference } = await publishLayout(join(temporary(), "layout"), [
      osImage(layers, { commandLine: "config=1" }),
    ]);
    const wish = { ...WISH, ...wishes, reference };
    const inspected = await inspectImage(context, wish);
    const { boot: { mode, firmware, cmdline, reason, modes } } = await prepare(context, {
      ...wish,
      machine: null,
    });
    const expected = { modes, boot: { mode, firmware, cmdline, reason } };
    expect(inspected).toMatchObject({ ...expected, modesVerified: false });
    expect(await inspectImage(context, wish)).toMatchObject({ ...expected, modesVerified: true });
  });

  it.each<[string, Readonly<Partial<Record<Role, Uint8Array>>>, string]>([
    ["a VMDK file as rootfs", { rootfs: bytesWith(4 * KIB, { 0: "KDMV" }) }, "FORMAT_MISMATCH"],
    ["a rootfs of half a sector", { rootfs: new Uint8Array(256).fill(1) }, "FORMAT_MISMATCH"],
    ["a rootfs compressed with xz", { rootfs: bytesWith(4 * KIB, { 0: "\xfd7zXZ\0" }) }, "FORMAT_MISMATCH"],
    [
      "a rootfs that is two things",
      { rootfs: Object.assign(gptDisk([ESP_GUID]), { 0: 0x4b, 1: 0x44, 2: 0x4d, 3: 0x56 }) },
      "FORMAT_UNSAFE",
    ],
    [
      "a tar of a file tree",
      {
        rootfs: tarOf({ name: "etc/passwd", bytes: new Uint8Array(600) }, {
          name: "etc/group",
          bytes: new Uint8Array(6),
        }),
      },
      "FORMAT_MISMATCH",
    ],
  ])("that %s is refused, and inspect tells the rest", async (_name, layers, code) => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference, name } = await publishLayout(join(temporary(), "layout"), [
      osImage({ ...layers, kernel: randomKernel(), initramfs: randomInitramfs() }),
    ]);
    const failure = await failureOf(prepare(context, { ...WISH, reference, machine: null }));
    expect(failure.code).toBe(code);
    expect(await inspectImage(context, { ...WISH, reference })).toMatchObject({
      reference: name,
      layers: [{ role: "rootfs", content: { kind: "unusable" } }, { role: "kernel" }, { role: "initramfs" }],
      modes: [
        { mode: "disk", possible: false, why: `the rootfs is refused: ${failure.message}` },
        { mode: "kernel", possible: true },
        { mode: "uki", possible: false },
        { mode: "iso", possible: false },
      ],
      boot: null,
      notes: [`prepare refuses this image: ${failure.message}`],
    });
  });
});

describe("inspectImage of what it cannot see", () => {
  /** An image whose layer cannot be read beyond its first 70,000 bytes. */
  async function inspectCut(
    layers: Readonly<Partial<Record<Role, Uint8Array>>>,
    wishes: Partial<BootWishes> = {},
  ) {
    const context = await openAgent(join(temporary(), "root"));
    const image = osImage(layers);
    const { reference } = await publishLayout(join(temporary(), "layout"), [image]);
    const [layer] = Object.values(image.layers);
    const path = join(reference.directory, "blobs", ...(layer?.descriptor.digest ?? "").split(":"));
    await truncate(path, 70_000);
    return await inspectImage(context, { ...WISH, ...wishes, reference });
  }

  it("says that it does not know, and chooses nothing that comes after it", async () => {
    expect(await inspectCut({ rootfs: farGpt(), kernel: randomKernel() })).toMatchObject({
      modes: [
        { mode: "disk", possible: null, why: "the rootfs cannot be told from its first 64 KiB" },
        { mode: "kernel", possible: true },
        { possible: false },
        { possible: false },
      ],
      boot: null,
      notes: [],
    });
    expect((await inspectCut({ rootfs: farGpt(), kernel: randomKernel() }, { boot: "kernel" })).boot)
      .toMatchObject({
        mode: "kernel",
      });
    expect((await inspectCut({ iso: isoImage({ entries: [{ platform: 0 }], catalogSector: 500 }) })).modes[3])
      .toEqual({
        mode: "iso",
        possible: null,
        why: "whether the ISO image boots cannot be told from its first 64 KiB",
      });
  });

  it("tells no command line for a unified kernel image whose own it did not see", async () => {
    expect((await inspectCut({ uki: uki() })).boot).toMatchObject({ mode: "uki", cmdline: null });
    expect((await inspectCut({ kernel: uki() }, { appends: ["a"] })).boot).toMatchObject({ cmdline: null });
    expect((await inspectCut({ kernel: uki() }, { cmdline: "a=b" })).boot).toMatchObject({ cmdline: "a=b" });
  });
});

/** A disk whose first MiB is noise, but for its tables. */
function noisyGpt(): Uint8Array {
  const disk = gptDisk([ESP_GUID]);
  disk.set(randomBytes(disk.length - 40 * KIB), 40 * KIB);
  disk.set(randomBytes(10 * KIB), 20 * KIB);
  return disk;
}
