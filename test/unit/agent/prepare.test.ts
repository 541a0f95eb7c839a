import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { prepare } from "../../../src/agent/prepare.ts";
import { prepareDocument } from "../../../src/agent/prepare_document.ts";
import { prepareBoot } from "../../../src/agent/prepare_boot.ts";
import { pullImage } from "../../../src/agent/pull_image.ts";
import { fromDescriptor } from "../../../src/image/descriptor.ts";
import { openAgent } from "../../support/agent_kit.ts";
import { blobOf } from "../../support/blobs.ts";
import { bytesWith, efiProgram } from "../../support/disk_bytes.ts";
import { codeOf, failureOf } from "../../support/failures.ts";
import { writeForeignLayout } from "../../support/foreign_layout.ts";
import { manifestDocument } from "../../support/image_documents.ts";
import { osImage, publishLayout, randomInitramfs, randomKernel } from "../../support/os_image.ts";
import { qcow2File } from "../../support/qcow2_bytes.ts";
import { randomWord } from "../../support/random_word.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();
const WISH = {
  architecture: "amd64",
  variant: "virtualization",
  pull: "missing",
  boot: "auto",
  firmware: "auto",
  cmdline: undefined,
  appends: [],
  machine: null,
} as const;

describe("prepare without a machine", () => {
  it("gives the whole document, and the same one when all is cached", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const word = randomWord();
    const image = osImage({ kernel: randomKernel(), initramfs: randomInitramfs() }, {
      commandLine: `console=ttyS0 word=${word}\n`,
      variant: "kvm",
    });
    const { reference, name, index } = await publishLayout(join(temporary(), "layout"), [image]);
    const phases: string[] = [];
    const document = await prepare(context, { ...WISH, reference, appends: ["quiet"] }, {
      onProgress: ({ phase }) => phases.push(phase),
    });
    const layers = Object.entries(image.layers).map(([role, { descriptor }]) => ({
      role,
      mediaType: descriptor.mediaType,
      digest: descriptor.digest,
      sizeBytes: descriptor.sizeBytes,
      path: context.content.blobPath(descriptor.digest),
    }));
    const [kernel, initramfs] = layers;
    const blobs = [index, image.manifest, image.config, ...Object.values(image.layers)];
    expect(prepareDocument.parse(document)).toEqual({
      reference: name,
      digest: index.descriptor.digest,
      manifestDigest: image.manifest.descriptor.digest,
      architecture: "amd64",
      variant: "virtualization",
      cached: false,
      transferredBytes: blobs.reduce((sum, { bytes }) => sum + bytes.length, 0),
      layers,
      boot: {
        mode: "kernel",
        firmware: "none",
        kernel: kernel?.path,
        initramfs: initramfs?.path,
        uki: null,
        iso: null,
        cmdline: `console=ttyS0 word=${word} quiet`,
        reason: expect.stringContaining("the kernel is a valid bzImage with initramfs"),
        modes: expect.arrayContaining([{
          mode: "kernel",
          possible: true,
          why: "the kernel is a valid bzImage with initramfs",
        }]),
      },
      machine: null,
    });
    expect([phases[0], phases.at(-1), [...new Set(phases)]]).toEqual([
      "resolving",
      "preparing",
      ["resolving", "pulling", "preparing"],
    ]);
    expect(await prepare(context, { ...WISH, reference, appends: ["quiet"] })).toEqual({
      ...document,
      cached: true,
      transferredBytes: 0,
    });
  });

  it("notes a layer that is nobody's, and goes on", async () => {
    const notes: string[] = [];
    const context = await openAgent(join(temporary(), "root"), { notes });
    const kernel = blobOf(randomKernel(), { mediaType: "application/vnd.ironcore.image.kernel" });
    const config = blobOf(new TextEncoder().encode("{}"), {
      mediaType: "application/vnd.ironcore.image.config.v1+json",
    });
    const manifest = manifestDocument({
      schemaVersion: 2,
      config: fromDescriptor(config.descriptor),
      layers: [
        { ...fromDescriptor(kernel.descriptor), mediaType: "application/x-unknown" },
        fromDescriptor(kernel.descriptor),
      ],
    });
    const directory = join(temporary(), "layout");
    await writeForeignLayout(directory, { entries: [{ ...manifest, tag: "1" }], blobs: [kernel, config] });
    const { boot } = await prepare(context, {
      ...WISH,
      reference: { transport: "oci", directory, tag: "1" },
    });
    expect(boot.mode).toBe("kernel");
    expect(notes).toEqual(['layer of unknown media type "application/x-unknown" is ignored']);
  });

  it("refuses before any transfer what the manifest alone shows to be impossible", async () => {
    const context = await openAgent(join(temporary(), "root"));
    const { reference } = await publishLayout(join(temporary(), "layout"), [
      osImage({ kernel: randomKernel() }),
    ]);
    const failure = await failureOf(prepare(context, { ...WISH, reference, boot: "disk" }));
    expect(failure.code).toBe("BOOT_MODE_IMPOSSIBLE");
    expect(await readdir(join(temporary(), "root/images/blobs/sha256"))).toEqual([]);
  });
});

describe("prepare a unified kernel image", () => {
  const uki = (cmdline?: string) =>
    efiProgram(0x8664, {
      sections: [
        { name: ".linux", bytes: randomKernel() },
        ...(cmdline === undefined ? [] : [{ name: ".cmdline", bytes: cmdline }]),
      ],
    });
  const OTHER = `word=${randomWord()}`;

  async function bootOf(
    role: "uki" | "kernel",
    bytes: Uint8Array,
    wishes: Partial<typeof WISH> | object = {},
  ) {
    const context = await openAgent(join(temporary(), randomWord()));
    const image = osImage({ [role]: bytes }, { commandLine: OTHER });
    const { reference } = await publishLayout(join(temporary(), randomWord()), [image]);
    return (await prepare(context, { ...WISH, reference, ...wishes })).boot;
  }

  it("has its own command line count, and says that the image's other one does not", async () => {
    const own = `console=ttyS0 word=${randomWord()}`;
    for (const role of ["uki", "kernel"] as const) {
      expect(await bootOf(role, uki(`${own}\n`))).toMatchObject({
        mode: role,
        firmware: "uefi",
        cmdline: own,
        reason: expect.stringMatching(/; its own command line counts, the image's other one does not$/),
      });
    }
  });

  it("as a kernel takes what the caller says, added to its own or in its place", async () => {
    const own = `console=ttyS0 word=${randomWord()}`;
    expect((await bootOf("kernel", uki(own), { appends: ["quiet"] })).cmdline).toBe(`${own} quiet`);
    const replaced = await bootOf("kernel", uki(own), { cmdline: "a=b" });
    expect([replaced.cmdline, replaced.reason]).toEqual(["a=b", expect.not.stringContaining("counts")]);
  });

  it("as a uki takes no other, and says so to whoever gave one", async () => {
    expect(await bootOf("uki", uki("own=1"), { appends: ["quiet"] })).toMatchObject({
      cmdline: "own=1",
      reason: expect.stringMatching(
        /; its own command line counts, the image's other one and --cmdline and --append do not$/,
      ),
    });
  });

  it("as a kernel without one gets the image's", async () => {
    const { cmdline, reason } = await bootOf("kernel", uki());
    expect([cmdline, reason]).toEqual([OTHER, expect.not.stringContaining("counts")]);
  });

  it("adds nothing to one that cannot be read: CMDLINE_INVALID", async () => {
    const unreadable = uki("a\x1b[2J");
    expect((await bootOf("kernel", unreadable)).cmdline).toBe("");
    expect(await codeOf(bootOf("kernel", unreadable, { appends: ["quiet"] }))).toBe("CMDLINE_INVALID");
  });
});

describe("prepare with a squashfs", () => {
  async function preparedWith(squashfs: Uint8Array) {
    const context = await openAgent(join(temporary(), "root"));
    const { reference } = await publishLayout(join(temporary(), "layout"), [
      osImage({ kernel: randomKernel(), squashfs }),
    ]);
    const wish = { ...WISH, reference };
    return await prepareBoot(context, await pullImage(context, wish), { wish });
  }

  it.each([
    ["squashfs", bytesWith(8192, { 0: "hsqs" })],
    ["erofs", bytesWith(8192, { 1024: "\xe2\xe1\xf5\xe0" })],
  ])("gives the guest one that is %s, as a disk that it cannot write", async (_name, squashfs) => {
    const { disks, reason } = await preparedWith(squashfs);
    expect(disks).toMatchObject([{ role: "squashfs", format: "raw", readOnly: true, serial: "machineboot" }]);
    expect(reason).toBe("chosen: the kernel is a valid bzImage and no initramfs");
  });

  it.each([
    ["a qcow2 file", qcow2File({}), "it is a qcow2 file"],
    ["a VMDK file", bytesWith(4096, { 0: "KDMV" }), "it is a vmdk file"],
    ["compressed", new Uint8Array(gzipSync(bytesWith(8192, { 0: "hsqs" }))), "it is a gzip file"],
    ["noise", new Uint8Array(randomBytes(1024 * 1024)).fill(1, 0, 8), "it is no file system"],
    [
      "two things",
      bytesWith(8192, { 0: "hsqs", [8192 - 512]: "conectix" }),
      "it is a vhd file and at once squashfs",
    ],
  ])("leaves out one that is %s, and says so", async (_name, squashfs, why) => {
    const { disks, reason } = await preparedWith(squashfs);
    expect(disks).toEqual([]);
    expect(reason).toBe(
      "chosen: the kernel is a valid bzImage and no initramfs, " +
        `and a squashfs layer that is none (${why}), which is left out`,
    );
  });
});
