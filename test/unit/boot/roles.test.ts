import { describe, expect, it } from "vitest";
import type { Role } from "../../../src/boot/prepared_boot.ts";
import { assignRoles, mediaTypeOf } from "../../../src/boot/roles.ts";
import { parseImageManifest } from "../../../src/image/image_manifest.ts";
import {
  descriptorJsonOf,
  type JsonObject,
  manifestDocument,
  manifestJsonOf,
  randomDigest,
} from "../../support/image_documents.ts";
import { refusalOf } from "../../support/failures.ts";

const ROLES: readonly Role[] = ["rootfs", "kernel", "initramfs", "squashfs", "cmdline", "uki", "iso"];
const IRONCORE = "application/vnd.ironcore.image.";

function assign(layers: readonly (string | JsonObject)[]) {
  const { bytes, descriptor } = manifestDocument(manifestJsonOf(layers));
  return assignRoles(parseImageManifest(bytes, descriptor));
}

describe("mediaTypeOf", () => {
  it.each(ROLES)("gives %s a type that is read back as that role", (role) => {
    expect(mediaTypeOf(role)).toBe(`${IRONCORE}${role}`);
    expect(assign([mediaTypeOf(role)]).layers.map((layer) => layer.role)).toEqual([role]);
  });
});

describe("assignRoles", () => {
  it("gives every role to its layer, in the manifest's order", () => {
    const layers = [...ROLES].reverse().map((role, i) =>
      descriptorJsonOf({ mediaType: `${IRONCORE}${role}`, size: i, annotations: { title: role } })
    );
    expect(assign(layers)).toEqual({
      layers: layers.map(({ mediaType, digest, size, annotations }, i) => ({
        role: ROLES[ROLES.length - 1 - i],
        descriptor: { mediaType, digest, sizeBytes: size, annotations },
      })),
      notes: [],
    });
  });

  const LEGACY = [["rootfs", "rootfs"], ["vmlinuz", "kernel"], ["initramfs", "initramfs"], [
    "squashfs",
    "squashfs",
  ]] as const;
  const GARDENLINUX = "application/io.gardenlinux.";

  it.each<[string, Role]>([
    [`${IRONCORE}disk.img`, "rootfs"],
    ...["vnd.ironcore.image.", "vnd.ironcore.image.metal.", "vnd.onmetal.image."].flatMap((prefix) =>
      LEGACY.map(([word, role]): [string, Role] => [`application/${prefix}${word}.v1alpha1.${word}`, role])
    ),
    [`${GARDENLINUX}kernel`, "kernel"],
    [`${GARDENLINUX}initrd`, "initramfs"],
    [`${GARDENLINUX}squashfs`, "squashfs"],
    [`${GARDENLINUX}uki`, "uki"],
    [`${GARDENLINUX}image.archive.format.raw`, "rootfs"],
    [`${GARDENLINUX}image.archive.format.iso`, "iso"],
    [`${GARDENLINUX}image.format.qcow2`, "rootfs"],
  ])("HM12 reads %s as %s, compressed or not", (plainType, role) => {
    for (const suffix of ["", "+gzip", "+zstd", ".gz", ".zst"]) {
      const [digest, mediaType] = [randomDigest(), `${plainType}${suffix}`];
      expect(assign([descriptorJsonOf({ mediaType, digest })])).toEqual({
        layers: [{ role, descriptor: { mediaType, digest, sizeBytes: 7, annotations: {} } }],
        notes: [],
      });
    }
  });

  const TAR = "application/vnd.oci.image.layer.v1.tar";

  it.each<[string, Role]>([
    ["rootfs", "rootfs"],
    ["rootfs.raw", "rootfs"],
    ["disk.img", "rootfs"],
    ["disk.qcow2", "rootfs"],
    ["rootfs.raw.zst", "rootfs"],
    ["kernel", "kernel"],
    ["vmlinuz", "kernel"],
    ["initramfs", "initramfs"],
    ["initrd", "initramfs"],
    ["initrd.img", "initramfs"],
    ["root.squashfs", "squashfs"],
    ["squashfs", "squashfs"],
    ["cmdline", "cmdline"],
    ["uki", "uki"],
    ["iso", "iso"],
  ])("takes a plain layer of title %s for the %s", (title, role) => {
    for (const mediaType of [TAR, `${TAR}+gzip`, `${TAR}+zstd`, "application/octet-stream"]) {
      for (const key of ["title", "org.opencontainers.image.title"]) {
        const layer = descriptorJsonOf({ mediaType, annotations: { [key]: title } });
        expect(assign([layer]).layers.map((each) => [each.role, each.descriptor.digest])).toEqual([
          [role, layer["digest"]],
        ]);
      }
    }
  });

  it("takes the draft's title before the file name, when the first names a role", () => {
    const roleOf = (title: string, fileName: string) => {
      const annotations = { "org.opencontainers.image.title": fileName, title };
      return assign([descriptorJsonOf({ mediaType: TAR, annotations })]).layers[0]?.role;
    };
    expect([roleOf("kernel", "rootfs"), roleOf("my own", "rootfs")]).toEqual(["kernel", "rootfs"]);
  });

  it.each([
    "../../etc/cron.d/rootfs",
    "./rootfs",
    "/rootfs",
    "Rootfs",
    "rootfs ",
    "rootfs\n",
    "constructor",
    "__proto__",
    "",
    "x".repeat(1_000_000),
  ])("HM16 makes no role of title %j", (title) => {
    const kernel = `${IRONCORE}kernel`;
    const { layers, notes } = assign([descriptorJsonOf({ mediaType: TAR, annotations: { title } }), kernel]);
    expect({ roles: layers.map((layer) => layer.role), notes }).toEqual({
      roles: ["kernel"],
      notes: [
        `layer of plain media type "${TAR}" is ignored: its title ${
          JSON.stringify(title.slice(0, 64))
        } names no role`,
      ],
    });
  });

  const CURRENT = `${IRONCORE}kernel`;
  const legacyKernel = `${IRONCORE}vmlinuz.v1alpha1.vmlinuz`;

  it.each([
    ["current before legacy IronCore", CURRENT, legacyKernel],
    [
      "legacy IronCore before legacy IronCore metal",
      legacyKernel,
      `${IRONCORE}metal.vmlinuz.v1alpha1.vmlinuz`,
    ],
    ["current before onmetal", CURRENT, "application/vnd.onmetal.image.vmlinuz.v1alpha1.vmlinuz"],
    ["current before Garden Linux", CURRENT, `${GARDENLINUX}kernel`],
    [
      "Garden Linux before Garden Linux qcow2",
      `${GARDENLINUX}image.archive.format.raw`,
      `${GARDENLINUX}image.format.qcow2`,
    ],
  ])("HM12 takes %s, wherever they stand", (name, winner, loser) => {
    const family = name.split(" before ")[1];
    for (const order of [[winner, loser], [loser, winner]]) {
      const layers = order.map((mediaType) => descriptorJsonOf({ mediaType }));
      const result = assign(layers);
      expect(result.layers.map((layer) => layer.descriptor.mediaType)).toEqual([winner]);
      expect(result.notes).toEqual([
        `layer of ${family} media type "${loser}" is passed over: "${winner}" is the ${
          result.layers[0]?.role
        }`,
      ]);
    }
  });

  it("HM12 takes one blob that is listed by both names once, and says nothing", () => {
    const digest = randomDigest();
    const result = assign(
      [legacyKernel, CURRENT].map((mediaType) => descriptorJsonOf({ mediaType, digest })),
    );
    expect([result.layers.map((layer) => layer.descriptor.mediaType), result.notes]).toEqual([[CURRENT], []]);
  });

  it("HM11 does not mind duplicates among those that are passed over", () => {
    const layers = [legacyKernel, legacyKernel, CURRENT].map((mediaType) => descriptorJsonOf({ mediaType }));
    const result = assign(layers);
    expect([result.layers.map((layer) => layer.descriptor.digest), result.notes.length]).toEqual([
      [layers[2]?.["digest"]],
      2,
    ]);
  });

  it("HM13 lets one digest have two roles", () => {
    const digest = randomDigest();
    const both = ["kernel", "initramfs"].map((role) =>
      descriptorJsonOf({ mediaType: `${IRONCORE}${role}`, digest })
    );
    expect(assign(both).layers.map(({ role, descriptor }) => [role, descriptor.digest])).toEqual([
      ["kernel", digest],
      ["initramfs", digest],
    ]);
  });

  it.each([
    ["twice by one name", `${IRONCORE}rootfs`],
    ["by both names", `${IRONCORE}disk.img`],
  ])("takes one disk that is listed %s once", (_name, second) => {
    const digest = randomDigest();
    const twice = [`${IRONCORE}rootfs`, second].map((mediaType) => descriptorJsonOf({ mediaType, digest }));
    expect(assign(twice).layers.map(({ role, descriptor }) => [role, descriptor.digest])).toEqual([[
      "rootfs",
      digest,
    ]]);
  });

  it.each([
    ["rootfs", "rootfs", "rootfs"],
    ["rootfs", "rootfs", "disk.img"],
    ["kernel", "kernel", "kernel"],
    ["kernel", "vmlinuz.v1alpha1.vmlinuz", "vmlinuz.v1alpha1.vmlinuz"],
    ["kernel", "kernel", "kernel+gzip"],
  ])("HM11 refuses two layers that claim to be the %s: %s and %s", (role, first, second) => {
    const digests = [randomDigest(), randomDigest()];
    const layers = [first, second].map((word, i) =>
      descriptorJsonOf({ mediaType: `${IRONCORE}${word}`, digest: digests[i] })
    );
    expect(refusalOf(() => assign(["cmdline", ...layers]))).toEqual({
      code: "LAYER_DUPLICATE",
      message: `Cannot give role "${role}": layers "${digests[0]}" and "${
        digests[1]
      }" both claim it, must be one`,
      details: { role, digests },
    });
  });

  it("HM05 HM11 passes over unknown layers with a note, whatever their digest", () => {
    const kernel = descriptorJsonOf({ mediaType: `${IRONCORE}kernel` });
    const result = assign([
      descriptorJsonOf({ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip" }),
      kernel,
      descriptorJsonOf({ mediaType: `${IRONCORE}Rootfs`, digest: "blake3:abc" }),
      descriptorJsonOf({ mediaType: "application/x", digest: "sha256:../../x" }),
    ]);
    expect({ roles: result.layers.map((layer) => layer.role), notes: result.notes }).toEqual({
      roles: ["kernel"],
      notes: [
        'layer of unknown media type "application/vnd.oci.image.layer.v1.tar+gzip" is ignored',
        `layer of unknown media type "${IRONCORE}Rootfs" is ignored`,
        'layer of unknown media type "application/x" is ignored',
      ],
    });
  });

  it.each([
    ["sha256:../../x", "MANIFEST_INVALID"],
    [`blake3:${"a".repeat(64)}`, "DIGEST_UNSUPPORTED"],
  ])("HM04 HM05 refuses digest %s of a layer that is needed", (digest, code) => {
    const layer = descriptorJsonOf({ mediaType: `${IRONCORE}kernel`, digest });
    expect(refusalOf(() => assign([layer])).code).toBe(code);
  });

  it("HM16 makes nothing of annotations where the media type tells the role", () => {
    const annotations = {
      "org.opencontainers.image.title": "rootfs",
      "containerd.io/x": "../../etc/cron.d/x\n",
    };
    const layer = descriptorJsonOf({ mediaType: `${IRONCORE}iso`, annotations });
    expect(assign([layer]).layers).toEqual([{
      role: "iso",
      descriptor: { mediaType: `${IRONCORE}iso`, digest: layer["digest"], sizeBytes: 7, annotations },
    }]);
  });

  it.each([
    ["no layers", [], "none", []],
    ["container layers only", ["a/b", "c/d"], "a/b, c/d", ["a/b", "c/d"]],
  ])("HM11 refuses an image with %s", (_name, layers, found, mediaTypes) => {
    expect(refusalOf(() => assign(layers))).toEqual({
      code: "LAYER_MISSING",
      message: `Cannot boot the image: no layer is a disk, kernel, UKI or ISO, found ${found}`,
      details: { mediaTypes, remedy: "is this an operating-system image, and not a container image?" },
    });
  });
});
