/** The larger shapes: whole indexes of several manifests. */
import { gzipSync } from "node:zlib";
import { type BuiltShape, CONFIG, entryOf, type ShapeBuilder, type ShapeParts } from "./shape_builder.ts";
import { tarOf } from "./tar_bytes.ts";

const IRONCORE = "application/vnd.ironcore.image.";
const GARDENLINUX = "application/io.gardenlinux.";
const TITLE = "org.opencontainers.image.title";

/** What an index entry says of its platform. */
export const linux = (architecture: string, variant?: string) => ({
  platform: { architecture, os: "linux", variant },
});

/** Two silent manifests, as the command-line tool's index has them; the second one's layers are filler. */
export function twoArchitectures(
  builder: ShapeBuilder,
  roles: Readonly<Record<string, Uint8Array>>,
  { commandLine, words = ["amd64", "arm64"] }: { commandLine?: string; words?: readonly [string, string] } =
    {},
) {
  const config = builder.config(CONFIG, commandLine === undefined ? {} : { commandLine });
  const amd64 = builder.manifest(
    Object.entries(roles).map(([role, bytes]) => builder.layer(`${IRONCORE}${role}`, bytes)),
    { config },
  );
  const arm64 = builder.manifest(Object.keys(roles).map((role) => builder.layer(`${IRONCORE}${role}`)));
  const index = builder.index([entryOf(amd64, linux(words[0])), entryOf(arm64, linux(words[1]))]);
  return { index, choices: [amd64, amd64, arm64, arm64] };
}

/** The manifests of both variants, each with its own words about itself, as the specification's examples have them. */
export function specified(
  builder: ShapeBuilder,
  parts: ShapeParts,
  { mediaType, withCmdline }: { mediaType: string; withCmdline: boolean },
): BuiltShape {
  const bytes: Readonly<Record<string, Uint8Array>> = {
    "disk.img": parts.disk,
    kernel: parts.kernel,
    initramfs: parts.initramfs,
    squashfs: parts.squashfs,
    ...(withCmdline ? { cmdline: new TextEncoder().encode(parts.cmdline) } : {}),
    uki: parts.uki,
    iso: parts.iso,
  };
  const manifestOf = (architecture: string, variant: string) => {
    const isOurs = architecture === "amd64";
    const words = Object.keys(bytes).filter((word) => variant === "virtualization" || word !== "disk.img");
    return builder.manifest(
      words.map((word) => builder.layer(`${IRONCORE}${word}`, isOurs ? bytes[word] : undefined)),
      {
        mediaType,
        config: builder.config(CONFIG, withCmdline ? {} : { commandLine: parts.cmdline }),
        changes: { annotations: { variant, architecture, [TITLE]: `demo-${variant}` } },
      },
    );
  };
  const manifests = ["amd64", "arm64"].flatMap((architecture) =>
    ["virtualization", "metal"].map((variant) => ({
      architecture,
      manifest: manifestOf(architecture, variant),
    }))
  );
  // The entries tell no variants, and metal comes first: only the manifests themselves place them.
  const index = builder.index(
    manifests.toReversed().map(({ architecture, manifest }) => entryOf(manifest, linux(architecture))),
  );
  return builder.finish(index, manifests.map(({ manifest }) => manifest), {
    layers: [
      ["rootfs", parts.disk],
      ["kernel", parts.kernel],
      ["initramfs", parts.initramfs],
      ["squashfs", parts.squashfs],
      ...(withCmdline ? [["cmdline", new TextEncoder().encode(parts.cmdline)] as const] : []),
      ["uki", parts.uki],
      ["iso", parts.iso],
    ],
    ...(withCmdline ? {} : { commandLine: parts.cmdline }),
  });
}

/** Upstream's index: entries by canonical name, clouds among them; logs and lists of packages beside the parts. */
export function gardenLinux(builder: ShapeBuilder, parts: ShapeParts): BuiltShape {
  const entry = (
    cname: string,
    architecture: string,
    bytes: Readonly<Record<string, Uint8Array | undefined>>,
  ) => {
    const name = `${cname}-${architecture}-1877.0-0123abcd`;
    const layers = Object.entries(bytes).map(([word, content]) =>
      builder.layer(`${GARDENLINUX}${word}`, content, { [TITLE]: `${name}.${word}` })
    );
    const annotations = {
      cname: name,
      architecture,
      feature_set: `base,_slim,${cname.split(/[-_]/)[0]},log`,
    };
    const manifest = builder.manifest(layers, {
      config: builder.config("application/vnd.oci.image.config.v1+json", {}),
      changes: { annotations },
    });
    const platform = { architecture, os: "gardenlinux", "os.version": "1877.0" };
    return { manifest, entry: entryOf(manifest, { platform, annotations }) };
  };
  const qcow2 = "image.format.qcow2";
  const raw = "image.archive.format.raw";
  const cloud = entry("ali-gardener_prod", "amd64", { [qcow2]: undefined, log: undefined });
  const kvmArm = entry("kvm-gardener_prod", "arm64", { [raw]: undefined });
  const kvm = entry("kvm-gardener_prod", "amd64", {
    manifest: undefined,
    [raw]: parts.disk,
    [qcow2]: undefined,
  });
  const aws = entry("aws-gardener_prod", "arm64", { [raw]: undefined });
  const metal = entry("metal_pxe", "amd64", {
    kernel: parts.kernel,
    initrd: parts.initramfs,
    squashfs: parts.squashfs,
  });
  const metalArm = entry("metal_pxe", "arm64", { kernel: undefined, initrd: undefined, squashfs: undefined });
  const index = builder.index([cloud, aws, kvmArm, kvm, metalArm, metal].map((each) => each.entry));
  return builder.finish(index, [kvm.manifest, metal.manifest, kvmArm.manifest, metalArm.manifest], {
    layers: [["rootfs", parts.disk]],
    notes: [
      `layer of unknown media type "${GARDENLINUX}manifest" is ignored`,
      `layer of Garden Linux qcow2 media type "${GARDENLINUX}${qcow2}" is passed over: "${GARDENLINUX}${raw}" is the rootfs`,
    ],
    tag: "1877.0",
  });
}

/** Issue 101's draft: the variant in the platform, plain layers whose titles tell the roles. */
export function draft(builder: ShapeBuilder, parts: ShapeParts): BuiltShape {
  const plain = (title: string, bytes?: Uint8Array) =>
    builder.layer("application/vnd.oci.image.layer.v1.tar+gzip", bytes, { title });
  const packed = (name: string, bytes: Uint8Array) => new Uint8Array(gzipSync(tarOf({ name, bytes })));
  const disk = packed("disk.raw", parts.disk);
  const virtualization = builder.manifest([plain("rootfs", disk)]);
  const virtualizationArm = builder.manifest([plain("rootfs")]);
  // As the media type says; nothing here can boot a kernel in a tar.
  const metal = builder.manifest([
    plain("rootfs", packed("rootfs.ext4", parts.fileSystem)),
    plain("initramfs", packed("initrd", parts.initramfs)),
    plain("kernel", packed("vmlinuz", parts.kernel)),
  ]);
  const metalArm = builder.manifest(["rootfs", "initramfs", "kernel"].map((title) => plain(title)));
  const index = builder.index([
    entryOf(metal, linux("amd64", "baremetal")),
    entryOf(virtualization, linux("amd64", "virtualization")),
    entryOf(metalArm, linux("arm64", "baremetal")),
    entryOf(virtualizationArm, linux("arm64", "virtualization")),
  ]);
  return builder.finish(index, [virtualization, metal, virtualizationArm, metalArm], {
    layers: [["rootfs", disk]],
  });
}
