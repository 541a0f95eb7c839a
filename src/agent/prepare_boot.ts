import { type BootDecision, type BootWish, decideBoot, requireLayersFor } from "../boot/decide_boot.ts";
import { PACKING_HEAD_BYTES, recognisePacking } from "../boot/disk_packing.ts";
import type { JudgedDisk } from "../boot/judge_disk.ts";
import type { BootDisk, LocalLayer, PreparedBoot, Role } from "../boot/prepared_boot.ts";
import type { UnpackedDisk } from "../content/derived_disks.ts";
import type { Architecture } from "../image/platform.ts";
import type { AgentContext } from "./agent_context.ts";
import { bootCommandLine, type CommandLineWishes } from "./boot_command_line.ts";
import { readStatedCommandLine } from "./cmdline_layer.ts";
import { type ExaminedLayers, examineLayers } from "./examine_layers.ts";
import { judgeBlob, knownDisk } from "./judge_blob.ts";
import type { OperationOptions } from "./progress.ts";
import type { PulledImage } from "./pull_image.ts";
import type { ImageWish, ResolvedImage } from "./resolve_image.ts";

/** How the caller wants the image booted. */
export type BootWishes = BootWish & CommandLineWishes;

/** The serial that published images look for: /dev/disk/by-id/virtio-machineboot. */
const BOOT_DISK_SERIAL = "machineboot";

/**
 * Refuses before any large transfer what the manifest alone shows to be impossible.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE; LIMIT_EXCEEDED when a boot file is larger than any
 */
export function requireBootable({ layers }: ResolvedImage, wish: BootWish): void {
  requireLayersFor(new Map(layers.map(({ role, descriptor }) => [role, descriptor.sizeBytes])), wish);
}

/**
 * Decides the boot from the verified bytes of the cached layers; a packed disk is unpacked first, once for all machines.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE, CMDLINE_INVALID, FORMAT_MISMATCH, FORMAT_UNSAFE, LIMIT_EXCEEDED, NO_SPACE
 */
export async function prepareBoot(
  context: AgentContext,
  pulled: PulledImage,
  { wish, ...options }: { readonly wish: ImageWish & BootWishes } & OperationOptions,
): Promise<PreparedBoot> {
  const { image } = pulled;
  const { examined: { findings, rootfs, refusal }, packed } = await examineCached(context, pulled, {
    ...options,
    architecture: wish.architecture,
  });
  // Also where another mode is possible: what was published as the system's disk is not left out in silence.
  if (refusal) throw refusal;
  const decision = decideBoot(findings, wish);
  const { mode } = decision;
  const stated = await readStatedCommandLine(context, image);
  const { cmdline, reason } = bootCommandLine(stated, { wish, decision, findings });
  const pathOf = (role: Role) => pulled.layers.find((layer) => layer.role === role)?.path ?? null;
  return {
    architecture: wish.architecture,
    variant: wish.variant,
    mode,
    firmware: decision.firmware,
    kernel: mode === "kernel" ? pathOf("kernel") : null,
    initramfs: decision.usesInitramfs ? pathOf("initramfs") : null,
    uki: mode === "uki" ? pathOf("uki") : null,
    iso: mode === "iso" ? pathOf("iso") : null,
    cmdline,
    reason,
    modes: decision.modes,
    disks: bootDisks(pulled, { decision, packed, rootfs }),
  };
}

type ExaminedImage = {
  readonly examined: ExaminedLayers;
  /** Undefined when the rootfs is the disk itself, or there is none. */
  readonly packed: UnpackedDisk | undefined;
};

async function examineCached(
  context: AgentContext,
  pulled: PulledImage,
  { architecture, ...options }: OperationOptions & { readonly architecture: Architecture },
): Promise<ExaminedImage> {
  const { layers } = pulled.image;
  const before = context.findings.find(layers, architecture);
  // Kept are only findings about layers of which none is packed: the unpacked disk must be there anew each time.
  if (before) return { examined: before, packed: undefined };
  const layer = layers.find(({ role }) => role === "rootfs");
  // Known are only disks that are none packed, so nothing of it has to be read.
  const known = layer && await knownDisk(context, layer);
  const packed = known ? undefined : await unpackRootfs(context, pulled, options);
  const examined = await examineLayers(layers, {
    architecture,
    look: ({ role, descriptor }) =>
      Promise.resolve(
        role === "rootfs" && packed
          ? context.derived.diskWindow(descriptor, packed)
          : context.content.blobWindow(descriptor),
      ),
    ...(packed ? {} : { judge: async (_file, rootfs) => known ?? await judgeBlob(context, rootfs) }),
  });
  if (!packed) context.findings.keep(layers, architecture, examined);
  return { examined, packed };
}

/** Undefined when the layer is the disk itself, or there is none. */
async function unpackRootfs(
  context: AgentContext,
  { layers }: PulledImage,
  { signal }: OperationOptions,
): Promise<UnpackedDisk | undefined> {
  const layer = layers.find((each) => each.role === "rootfs");
  if (!layer) return undefined;
  const { descriptor } = layer;
  const head = await context.content.blobWindow(descriptor).read(0, PACKING_HEAD_BYTES);
  const packing = recognisePacking(descriptor.mediaType, head);
  return packing ? await context.derived.unpackedDisk(descriptor, packing, { signal }) : undefined;
}

type DiskSources = {
  readonly decision: BootDecision;
  readonly packed: UnpackedDisk | undefined;
  readonly rootfs: JudgedDisk | undefined;
};

function bootDisks(pulled: PulledImage, { decision, packed, rootfs }: DiskSources): BootDisk[] {
  return decision.diskRoles.flatMap((role, index) => {
    const layer = pulled.layers.find((each) => each.role === role);
    if (!layer) return [];
    const serial = index === 0 ? BOOT_DISK_SERIAL : null;
    if (role === "squashfs" || !rootfs) return [squashfsDisk(layer, serial)];
    const { format, virtualSizeBytes } = rootfs;
    return [{ role, path: packed?.path ?? layer.path, format, virtualSizeBytes, readOnly: false, serial }];
  });
}

function squashfsDisk({ path, descriptor }: LocalLayer, serial: string | null): BootDisk {
  return {
    role: "squashfs",
    path,
    format: "raw",
    virtualSizeBytes: descriptor.sizeBytes,
    readOnly: true,
    serial,
  };
}
