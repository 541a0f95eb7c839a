import type { ByteWindow } from "../boot/byte_window.ts";
import { mergeCommandLine } from "../boot/command_line.ts";
import {
  type BootDecision,
  type BootWish,
  decideBoot,
  type LayerFindings,
  modeVerdicts,
  requireLayersFor,
} from "../boot/decide_boot.ts";
import { recogniseDisk, refuseContainer } from "../boot/disk_content.ts";
import { isInitramfs, recogniseKernel } from "../boot/kernel_content.ts";
import type { BootDisk, ModeVerdict, PreparedBoot, Role, RoleLayer } from "../boot/prepared_boot.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Architecture } from "../image/platform.ts";
import type { AgentContext } from "./agent_context.ts";
import type { ImageWish, ResolvedImage } from "./resolve_image.ts";
import type { PulledImage } from "./pull_image.ts";

/** How the caller wants the image booted. */
export type BootWishes = BootWish & {
  readonly cmdline: string | undefined;
  readonly appends: readonly string[];
};

/** The serial that published images look for: /dev/disk/by-id/virtio-machineboot. */
const BOOT_DISK_SERIAL = "machineboot";

/**
 * Refuses before any large transfer what the manifest alone shows to be impossible.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE
 */
export function requireBootable(image: ResolvedImage, wish: BootWish): void {
  requireLayersFor(rolesOf(image.layers), wish);
}

/**
 * Decides the boot from the verified bytes of the cached layers.
 *
 * @throws {ShimError} BOOT_MODE_IMPOSSIBLE, CMDLINE_INVALID, FORMAT_MISMATCH
 */
export async function prepareBoot(
  context: AgentContext,
  pulled: PulledImage,
  wish: ImageWish & BootWishes,
): Promise<PreparedBoot> {
  const { image } = pulled;
  const findings = await examineLayers(
    image.layers,
    wish.architecture,
    (descriptor) => Promise.resolve(context.content.blobWindow(descriptor)),
  );
  const decision = decideBoot(findings, wish);
  const pathOf = (role: Role) => pulled.layers.find((layer) => layer.role === role)?.path ?? null;
  const isKernelMode = decision.mode === "kernel";
  return {
    architecture: wish.architecture,
    variant: wish.variant,
    mode: decision.mode,
    firmware: decision.firmware,
    kernel: isKernelMode ? pathOf("kernel") : null,
    initramfs: decision.usesInitramfs ? pathOf("initramfs") : null,
    uki: null,
    iso: null,
    cmdline: mergeCommandLine({
      replacement: wish.cmdline,
      layer: await readCommandLine(context, image),
      config: image.config.commandLine,
      appends: wish.appends,
      hasRootDisk: isKernelMode && decision.diskRoles.includes("rootfs"),
    }),
    reason: decision.reason,
    modes: decision.modes,
    disks: bootDisks(pulled, decision),
  };
}

/** Opens a window onto a layer. */
type Look = (descriptor: Descriptor) => Promise<ByteWindow>;

/** For `inspect`: what each mode's verdict would be. */
export async function verdictsOf(
  image: ResolvedImage,
  wish: ImageWish & BootWish,
  look: Look,
): Promise<readonly ModeVerdict[]> {
  return modeVerdicts(await examineLayers(image.layers, wish.architecture, look), wish);
}

/** Looks at what the layers really hold, through windows of a few KiB. */
async function examineLayers(
  layers: readonly RoleLayer[],
  architecture: Architecture,
  look: Look,
): Promise<LayerFindings> {
  const windowOf = async (role: Role) => {
    const layer = layers.find((each) => each.role === role);
    return layer && await look(layer.descriptor);
  };
  const [rootfs, kernel, initramfs] = [
    await windowOf("rootfs"),
    await windowOf("kernel"),
    await windowOf("initramfs"),
  ];
  const disk = rootfs && await recogniseDisk(rootfs);
  if (disk) refuseContainer(disk);
  return {
    architecture,
    roles: rolesOf(layers),
    rootfs: disk,
    kernel: kernel && await recogniseKernel(kernel),
    initramfs: initramfs && { isInitramfs: await isInitramfs(initramfs) },
  };
}

function rolesOf(layers: readonly RoleLayer[]): ReadonlySet<Role> {
  return new Set(layers.map((layer) => layer.role));
}

async function readCommandLine(context: AgentContext, image: ResolvedImage): Promise<string | undefined> {
  const layer = image.layers.find((each) => each.role === "cmdline");
  if (!layer) return undefined;
  const { bytes } = await context.content.readDocument(layer.descriptor);
  return new TextDecoder().decode(bytes);
}

function bootDisks(pulled: PulledImage, decision: BootDecision): BootDisk[] {
  return decision.diskRoles.flatMap((role, index) => {
    const layer = pulled.layers.find((each) => each.role === role);
    if (!layer) return [];
    return [{
      role,
      path: layer.path,
      format: "raw" as const,
      virtualSizeBytes: layer.descriptor.sizeBytes,
      readOnly: role === "squashfs",
      serial: index === 0 ? BOOT_DISK_SERIAL : null,
    }];
  });
}
