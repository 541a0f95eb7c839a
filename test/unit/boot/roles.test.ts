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

  it("knows the disk by the specification's name", () => {
    const digest = randomDigest();
    const mediaType = `${IRONCORE}disk.img`;
    expect(assign([descriptorJsonOf({ mediaType, digest })])).toEqual({
      layers: [{ role: "rootfs", descriptor: { mediaType, digest, sizeBytes: 7, annotations: {} } }],
      notes: [],
    });
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

  it("HM16 makes nothing of annotations", () => {
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
