/** Every shape of image, prepared by the real command from an image layout and from a real registry. */
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { prepareDocument } from "../../src/agent/prepare_document.ts";
import { bootshim, bootshimJson } from "../support/bootshim_command.ts";
import { makeGuestPart } from "../support/guest_image.ts";
import { type Shape, shapes } from "../support/image_shapes.ts";
import { randomWord } from "../support/random_word.ts";
import { runTool } from "../support/real_files.ts";
import { type RegistryServer, startRegistryServer } from "../support/registry_server.ts";
import {
  type BuiltShape,
  pushShape,
  ShapeBuilder,
  type ShapeParts,
  WISHES,
  writeShape,
} from "../support/shape_builder.ts";

let work: string;
let root: string;
/** A root into which nothing is fetched. */
let stranger: string;
let registry: RegistryServer;
let parts: ShapeParts;
const word = randomWord();

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "bootshim-shapes-"));
  root = join(work, "root");
  stranger = join(work, "stranger");
  registry = await startRegistryServer();
  const part = async (kind: Parameters<typeof makeGuestPart>[0]) =>
    new Uint8Array(await readFile(await makeGuestPart(kind, kind === "kernel" ? {} : { word })));
  parts = {
    disk: await part("disk-uefi"),
    kernel: await part("kernel"),
    initramfs: await part("initramfs"),
    squashfs: await part("rootfs-squashfs"),
    fileSystem: await part("rootfs-ext4"),
    uki: await part("uki"),
    iso: await part("iso"),
    cmdline: `console=ttyS0 panic=-1 shim.word=${word}`,
  };
});

afterAll(async () => {
  await registry.stop();
  await rm(work, { recursive: true, force: true });
});

/** The shape as a layout of its own, and what it is called there. */
async function lay(
  { name, build }: Shape,
): Promise<{ built: BuiltShape; layout: string; reference: string }> {
  const built = build(parts);
  const layout = join(work, (name.split(":")[0] ?? "").replace(" ", "-"));
  await writeShape(layout, built);
  return { built, layout, reference: `oci:${layout}:${built.tag}` };
}

async function prepare(...argv: readonly string[]) {
  return prepareDocument.parse(await bootshimJson(["prepare", ...argv], { root }));
}

async function codeOfPrepare(...argv: readonly string[]): Promise<unknown> {
  const { stderr } = await bootshim(["prepare", ...argv, "-o", "json"], { root });
  return JSON.parse(stderr).error.code;
}

/** What is to be read out of a shape, whatever it boots as. */
function readingOf({ digest, manifestDigest, layers }: Awaited<ReturnType<typeof prepare>>) {
  return { digest, manifestDigest, layers: layers.map(({ role, digest }) => ({ role, digest })) };
}

function expectedReading({ root, choices, expected }: BuiltShape) {
  return { digest: root.descriptor.digest, manifestDigest: choices[0], layers: expected.layers };
}

describe("prepare", () => {
  it.each(shapes)("$name", async (shape) => {
    const { built, layout, reference } = await lay(shape);
    const document = await prepare(reference);
    expect(readingOf(document)).toEqual(expectedReading(built));
    expect(document.boot.mode).toBe(shape.boot);
    const cmdlines = built.expected.layers.some(({ role }) => role === "cmdline")
      ? parts.cmdline
      : built.expected.commandLine?.trimEnd() ?? "";
    const isBareRoot = shape.name.startsWith("bare root");
    // A UKI's own counts, which the guest made into it.
    const expected = shape.boot === "uki"
      ? expect.stringContaining("console=ttyS0")
      : isBareRoot
      ? `${cmdlines} root=/dev/vda rw`
      : cmdlines;
    expect(document.boot.cmdline).toEqual(expected);
    if (shape.refused) {
      expect(await codeOfPrepare(reference, "--boot", shape.refused.mode)).toBe(shape.refused.code);
    }
    // By its digest it is the same image, and nothing of it is fetched again.
    expect(await prepare(`oci:${layout}@${built.root.descriptor.digest}`)).toMatchObject({
      ...readingOf(document),
      cached: true,
    });
  });

  it("refuses what a shape does not offer, and tells what it does", async () => {
    for (const shape of shapes.filter(({ name }) => /^shape (02|14)/.test(name))) {
      const { built, reference } = await lay(shape);
      for (const [place, { architecture, variant }] of WISHES.entries()) {
        if (built.choices[place] !== null) continue;
        const { stderr } = await bootshim(
          ["prepare", reference, "--arch", architecture, "--variant", variant, "-o", "json"],
          { root },
        );
        expect(JSON.parse(stderr)).toMatchObject({
          error: {
            code: "PLATFORM_NOT_FOUND",
            details: { offered: [{ architecture: "amd64", digest: built.choices[0] }] },
          },
        });
      }
    }
  });

  it("draft: refuses the metal image's kernel in a tar, and says so before and after it is fetched", async () => {
    const shape = shapes.find(({ name }) => name.startsWith("draft"));
    if (!shape) throw new Error("There is no draft");
    const { reference } = await lay(shape);
    const why =
      "the kernel layer is no kernel: it is a tar archive compressed by gzip, must be the kernel itself";
    const modes = expect.arrayContaining([{ mode: "kernel", possible: false, why }]);
    expect(await bootshimJson(["inspect", reference, "--variant", "metal"], { root })).toMatchObject({
      modes,
    });
    const { stderr } = await bootshim(["prepare", reference, "--variant", "metal", "-o", "json"], { root });
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: "FORMAT_MISMATCH", details: { modes } } });
  });

  it("shape 16: the machine's disk is writable by its group, and by nobody else", async () => {
    const shape = shapes.find(({ name }) => name.startsWith("shape 16"));
    if (!shape) throw new Error("There is no shape 16");
    const { reference } = await lay(shape);
    const { machine } = await prepare(reference, "--machine", "vm-16");
    const [disk] = machine?.disks ?? [];
    expect(disk).toMatchObject({ role: "rootfs", readOnly: false });
    expect((await stat(disk?.path ?? "")).mode & 0o777).toBe(0o660);
  });
});

describe("inspect, in a registry", () => {
  /** Into a repository of its own. */
  async function push({ name }: Pick<Shape, "name">, built: BuiltShape): Promise<string> {
    const repository = `os/${(name.split(":")[0] ?? "").replace(" ", "-").toLowerCase()}`;
    expect(await pushShape(`http://${registry.host}/v2/${repository}`, built)).toBe(201);
    return `${registry.host}/${repository}`;
  }

  /** What `prepare` says of how it boots, by a cache that has it; and `inspect`, by one that has nothing. */
  async function requireAgreement(reference: string, ...wish: readonly string[]) {
    const inspected = await bootshimJson(["inspect", reference, ...wish], { root: stranger });
    const { boot: { modes, mode, firmware, cmdline, reason } } = await prepare(reference, ...wish);
    expect(inspected).toMatchObject({
      modes,
      modesVerified: false,
      boot: { mode, firmware, cmdline, reason },
    });
  }

  it.each(shapes.filter(({ isPushable }) => isPushable))("$name", async (shape) => {
    const built = shape.build(parts);
    const { expected, choices } = built;
    const name = await push(shape, built);
    const { digest } = built.root.descriptor;
    // The digest decides; the tag is only a label, and may be wrong.
    for (const label of [built.tag, `no-such-tag@${digest}`]) {
      const inspected = await bootshimJson(["inspect", `${name}:${label}`], { root: stranger });
      expect(inspected).toMatchObject({
        digest,
        manifestDigest: choices[0],
        layers: expected.layers,
        commandLine: expected.commandLine ?? null,
        notes: expected.notes,
      });
    }
    await requireAgreement(`${name}:${built.tag}`);
    expect(await readdir(join(stranger, "images/blobs/sha256"))).toEqual([]);
  });

  it.each(["zlib", "zstd", "none"])(
    "says how a qcow2 file that qemu-img made boots: %s",
    async (compression) => {
      const raw = join(work, "disk.raw");
      const qcow2 = join(work, `disk-${compression}.qcow2`);
      await writeFile(raw, parts.disk);
      const packed = compression === "none" ? [] : ["-c", "-o", `compression_type=${compression}`];
      await runTool("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", ...packed, raw, qcow2]);
      const builder = new ShapeBuilder();
      const layer = builder.layer(
        "application/vnd.ironcore.image.rootfs",
        new Uint8Array(await readFile(qcow2)),
      );
      const built = builder.finish(builder.manifest([layer]), [], { layers: [] });
      const name = await push({ name: `qcow2-${compression}: made by qemu-img` }, built);
      await requireAgreement(`${name}:1`);
    },
  );

  it("tells an ISO image's boot by each firmware, and the words of a unified kernel image", async () => {
    const disc = shapes.find(({ name }) => name.startsWith("disc"));
    const metal = shapes.find(({ name }) => name.startsWith("shape 06"));
    if (!disc || !metal) throw new Error("There is no such shape");
    const iso = `${await push({ name: "firmware" }, disc.build(parts))}:1`;
    for (const firmware of ["bios", "uefi"]) await requireAgreement(iso, "--firmware", firmware);
    const built = metal.build(parts);
    const reference = `${await push({ name: "words" }, built)}:${built.tag}`;
    await requireAgreement(reference, "--boot", "uki");
    const { stdout } = await bootshim(["inspect", reference], { root: stranger });
    // The kernel's version, and what the unified kernel image says of itself.
    expect(stdout).toMatch(/-- bzImage for amd64, \d+\.\d+/);
    expect(stdout).toMatch(/-- squashfs file system\n/);
    expect(stdout).toMatch(/-- unified kernel image for amd64/);
  });

  it.each(shapes.filter(({ isPushable }) => !isPushable))(
    "cannot be tried with $name: this registry does not take it",
    async ({ build }) => {
      const url = `http://${registry.host}/v2/os/refused`;
      expect(await pushShape(url, build(parts))).toBeGreaterThanOrEqual(400);
    },
  );
});
