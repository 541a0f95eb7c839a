/**
 * Every shape of image that is known, by its number in the list of shapes, and both editions of the specification.
 * Built from parts that the caller gives, so that each of them can be booted.
 */
import { gzipSync } from "node:zlib";
import type { ErrorCode } from "../../src/errors.ts";
import type { BootMode } from "../../src/boot/prepared_boot.ts";
import { type BuiltShape, entryOf, ShapeBuilder, type ShapeParts } from "./shape_builder.ts";
import { draft, gardenLinux, linux, specified, twoArchitectures } from "./whole_indexes.ts";

export type Shape = {
  readonly name: string;
  /** How the image for amd64 and virtualization boots by itself. */
  readonly boot: BootMode;
  /** The part that brings the initramfs whose /init talks when the image boots by itself. */
  readonly speaker: "disk" | "initramfs" | "uki" | "iso";
  /** What a mode that looks possible at first sight is refused with. */
  readonly refused?: { readonly mode: BootMode; readonly code: ErrorCode };
  /** Whether Debian's docker-registry takes these media types. */
  readonly isPushable: boolean;
  readonly build: (parts: ShapeParts) => BuiltShape;
};

const IRONCORE = "application/vnd.ironcore.image.";
const OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
const ARTIFACTS = "application/vnd.ironcore.image.artifacts.v1+json";
const TITLE = "org.opencontainers.image.title";

const legacy = (word: string) => `${IRONCORE}${word}.v1alpha1.${word}`;

/** What today's virtualization images carry for a boot that they do not need. */
function machineboot({ cmdline }: ShapeParts): string {
  return `gl.url=/dev/disk/by-id/virtio-machineboot gl.live=1 ignition.platform.id=qemu ${cmdline}`;
}

export const shapes: readonly Shape[] = [
  {
    name: "shape 01: the command-line tool's index, one silent manifest for each architecture",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: (parts) => {
      const builder = new ShapeBuilder();
      const { disk, initramfs, kernel, cmdline } = parts;
      const { index, choices } = twoArchitectures(builder, { rootfs: disk, initramfs, kernel }, {
        commandLine: cmdline,
      });
      return builder.finish(index, choices, {
        layers: [["rootfs", disk], ["initramfs", initramfs], ["kernel", kernel]],
        commandLine: cmdline,
      });
    },
  },
  {
    name: "shape 02: a lone legacy manifest, its architecture in an extra key of the configuration",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: ({ disk, initramfs, kernel, cmdline }) => {
      const builder = new ShapeBuilder();
      const titled = (word: string, bytes: Uint8Array) =>
        builder.layer(legacy(word), bytes, { [TITLE]: `kvm-gardener_prod-amd64-1443.3.${word}` });
      const manifest = builder.manifest(
        [titled("rootfs", disk), titled("initramfs", initramfs), titled("vmlinuz", kernel)],
        {
          config: builder.config(`${IRONCORE}config.v1alpha1+json`, {
            commandLine: cmdline,
            "os-release": "1443.3",
            arch: "amd64",
          }),
        },
      );
      return builder.finish(manifest, [manifest, manifest, null, null], {
        layers: [["rootfs", disk], ["initramfs", initramfs], ["kernel", kernel]],
        commandLine: cmdline,
        tag: "1443.3-amd64",
      });
    },
  },
  {
    name: "shape 03: a virtual machine's disk and a metal machine's network boot in one manifest",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: ({ disk, squashfs, initramfs, kernel, cmdline }) => {
      const builder = new ShapeBuilder();
      const manifest = builder.manifest([
        builder.layer(legacy("rootfs"), disk),
        builder.layer(legacy("squashfs"), squashfs),
        builder.layer(legacy("initramfs"), initramfs),
        builder.layer(legacy("vmlinuz"), kernel),
      ], { config: builder.config(`${IRONCORE}config.v1alpha1+json`, { commandLine: cmdline }) });
      return builder.finish(manifest, [manifest, manifest, manifest, manifest], {
        layers: [["rootfs", disk], ["squashfs", squashfs], ["initramfs", initramfs], ["kernel", kernel]],
        commandLine: cmdline,
      });
    },
  },
  {
    name: "shape 04: a disk with a dummy for kernel and initramfs, one blob of zeros in both roles",
    boot: "disk",
    speaker: "disk",
    refused: { mode: "kernel", code: "BOOT_MODE_IMPOSSIBLE" },
    isPushable: true,
    build: ({ disk }) => {
      const builder = new ShapeBuilder();
      const dummy = new Uint8Array(1024 * 1024);
      const manifest = builder.manifest([
        builder.layer(legacy("rootfs"), disk),
        builder.layer(legacy("initramfs"), dummy),
        builder.layer(legacy("vmlinuz"), dummy),
      ]);
      return builder.finish(manifest, [manifest, manifest, manifest, manifest], {
        layers: [["rootfs", disk], ["initramfs", dummy], ["kernel", dummy]],
      });
    },
  },
  {
    name: "shape 05: today's virtualization image, a disk and a command line for another way to boot",
    boot: "disk",
    speaker: "disk",
    refused: { mode: "kernel", code: "BOOT_MODE_IMPOSSIBLE" },
    isPushable: true,
    build: (parts) => {
      const builder = new ShapeBuilder();
      const commandLine = machineboot(parts);
      const { index, choices } = twoArchitectures(builder, { rootfs: parts.disk }, { commandLine });
      return builder.finish(index, choices, {
        layers: [["rootfs", parts.disk]],
        commandLine,
        tag: "1877.0-kvm",
      });
    },
  },
  {
    name: "shape 06: today's metal image, no disk and no command line",
    boot: "kernel",
    speaker: "initramfs",
    refused: { mode: "disk", code: "BOOT_MODE_IMPOSSIBLE" },
    isPushable: true,
    build: ({ squashfs, initramfs, kernel, uki }) => {
      const builder = new ShapeBuilder();
      const { index, choices } = twoArchitectures(builder, { squashfs, initramfs, kernel, uki });
      return builder.finish(index, choices, {
        layers: [["squashfs", squashfs], ["initramfs", initramfs], ["kernel", kernel], ["uki", uki]],
        tag: "1877.0-metal",
      });
    },
  },
  {
    name: "shape 07: kernel and initramfs only, in a plain OCI configuration's manifest",
    boot: "kernel",
    speaker: "initramfs",
    isPushable: true,
    build: ({ kernel, initramfs }) => {
      const builder = new ShapeBuilder();
      const manifest = builder.manifest(
        [builder.layer(`${IRONCORE}kernel`, kernel), builder.layer(`${IRONCORE}initramfs`, initramfs)],
        { config: builder.config(OCI_CONFIG, {}) },
      );
      return builder.finish(manifest, [manifest, manifest, manifest, manifest], {
        layers: [["kernel", kernel], ["initramfs", initramfs]],
      });
    },
  },
  {
    name: "shape 08: a unified kernel image only",
    boot: "uki",
    speaker: "uki",
    isPushable: true,
    build: ({ uki }) => {
      const builder = new ShapeBuilder();
      const manifest = builder.manifest([builder.layer(`${IRONCORE}uki`, uki)], {
        config: builder.config("application/vnd.oci.empty.v1+json", {}),
        changes: { artifactType: "application/vnd.example.uki" },
      });
      const index = builder.index([entryOf(manifest, linux("amd64"))]);
      return builder.finish(index, [manifest, manifest, null, null], { layers: [["uki", uki]] });
    },
  },
  {
    name: "shape 09: Garden Linux's own index, told apart by canonical names",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: (parts) => gardenLinux(new ShapeBuilder(), parts),
  },
  {
    name: "shape 10: a command line that ends in a newline",
    boot: "kernel",
    speaker: "initramfs",
    isPushable: true,
    build: ({ kernel, initramfs, cmdline }) => {
      const builder = new ShapeBuilder();
      const commandLine = `${cmdline}\n`;
      const { index, choices } = twoArchitectures(builder, { kernel, initramfs }, { commandLine });
      return builder.finish(index, choices, {
        layers: [["kernel", kernel], ["initramfs", initramfs]],
        commandLine,
      });
    },
  },
  {
    name: "shape 11: documents that state neither media type nor schema version",
    boot: "kernel",
    speaker: "initramfs",
    isPushable: false,
    build: ({ kernel, initramfs }) => {
      const builder = new ShapeBuilder();
      const changes = { mediaType: undefined, schemaVersion: undefined };
      const manifest = builder.manifest(
        [builder.layer(`${IRONCORE}kernel`, kernel), builder.layer(`${IRONCORE}initramfs`, initramfs)],
        { changes },
      );
      const index = builder.index([entryOf(manifest, linux("amd64"))], changes);
      return builder.finish(index, [manifest, manifest, null, null], {
        layers: [["kernel", kernel], ["initramfs", initramfs]],
      });
    },
  },
  {
    name: "shape 12: other spellings of the architectures",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: ({ disk }) => {
      const builder = new ShapeBuilder();
      const { index, choices } = twoArchitectures(builder, { rootfs: disk }, { words: ["x86_64", "arch64"] });
      return builder.finish(index, choices, { layers: [["rootfs", disk]] });
    },
  },
  {
    name: "shape 13: a disk that its producer compressed",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: ({ disk }) => {
      const builder = new ShapeBuilder();
      const compressed = new Uint8Array(gzipSync(disk));
      const manifest = builder.manifest([builder.layer(`${IRONCORE}rootfs+gzip`, compressed)]);
      return builder.finish(manifest, [manifest, manifest, manifest, manifest], {
        layers: [["rootfs", compressed]],
      });
    },
  },
  {
    name: "shape 14: Docker's list and manifest",
    boot: "kernel",
    speaker: "initramfs",
    isPushable: true,
    build: ({ kernel, initramfs }) => {
      const builder = new ShapeBuilder();
      const manifest = builder.manifest(
        [builder.layer(`${IRONCORE}kernel`, kernel), builder.layer(`${IRONCORE}initramfs`, initramfs)],
        {
          mediaType: DOCKER_MANIFEST,
          config: builder.config("application/vnd.docker.container.image.v1+json", {
            architecture: "amd64",
            os: "linux",
          }),
        },
      );
      const index = builder.index([entryOf(manifest, linux("amd64"))], {}, DOCKER_LIST);
      return builder.finish(index, [manifest, manifest, null, null], {
        layers: [["kernel", kernel], ["initramfs", initramfs]],
      });
    },
  },
  {
    name: "shape 15: named by tag and digest",
    boot: "kernel",
    speaker: "initramfs",
    isPushable: true,
    build: ({ kernel, initramfs, cmdline }) => {
      const builder = new ShapeBuilder();
      const { index, choices } = twoArchitectures(builder, { kernel, initramfs }, { commandLine: cmdline });
      return builder.finish(index, choices, {
        layers: [["kernel", kernel], ["initramfs", initramfs]],
        commandLine: cmdline,
      });
    },
  },
  {
    name: "shape 16: a raw disk that its machine must be able to write",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: (parts) => {
      const builder = new ShapeBuilder();
      const { index, choices } = twoArchitectures(builder, { rootfs: parts.disk });
      return builder.finish(index, choices, { layers: [["rootfs", parts.disk]] });
    },
  },
  {
    name:
      "edition A: the specification's first text, with a manifest type and a command-line layer of its own",
    boot: "disk",
    speaker: "disk",
    isPushable: false,
    build: (parts) => specified(new ShapeBuilder(), parts, { mediaType: ARTIFACTS, withCmdline: true }),
  },
  {
    name: "edition B: the specification's current text",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: (parts) =>
      specified(new ShapeBuilder(), parts, {
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        withCmdline: false,
      }),
  },
  {
    name: "draft: the variant in the platform, plain layers told by their titles",
    boot: "disk",
    speaker: "disk",
    isPushable: true,
    build: (parts) => draft(new ShapeBuilder(), parts),
  },
  {
    name: "bare root: a kernel whose root is a file system without partitions",
    boot: "kernel",
    speaker: "initramfs",
    refused: { mode: "disk", code: "BOOT_MODE_IMPOSSIBLE" },
    isPushable: true,
    build: ({ kernel, initramfs, fileSystem, cmdline }) => {
      const builder = new ShapeBuilder();
      const roles = { rootfs: fileSystem, initramfs, kernel };
      const { index, choices } = twoArchitectures(builder, roles, { commandLine: cmdline });
      return builder.finish(index, choices, {
        layers: [["rootfs", fileSystem], ["initramfs", initramfs], ["kernel", kernel]],
        commandLine: cmdline,
      });
    },
  },
  {
    name: "disc: an ISO image only",
    boot: "iso",
    speaker: "iso",
    refused: { mode: "kernel", code: "BOOT_MODE_IMPOSSIBLE" },
    isPushable: true,
    build: ({ iso }) => {
      const builder = new ShapeBuilder();
      const { index, choices } = twoArchitectures(builder, { iso });
      return builder.finish(index, choices, { layers: [["iso", iso]] });
    },
  },
];
