import { type ByteWindow, withHead } from "../boot/byte_window.ts";
import type { LayerFindings } from "../boot/decide_boot.ts";
import { type JudgedDisk, judgeDisk } from "../boot/judge_disk.ts";
import { recogniseInitramfs } from "../boot/initramfs_content.ts";
import { recogniseIso } from "../boot/iso_content.ts";
import { recogniseKernel } from "../boot/kernel_content.ts";
import type { Role, RoleLayer } from "../boot/prepared_boot.ts";
import { recogniseUki } from "../boot/uki_content.ts";
import type { Architecture } from "../image/platform.ts";

/** Opens a window onto a layer's bytes, or for a packed disk onto what is in it. */
export type Look = (layer: RoleLayer) => Promise<ByteWindow>;

export type ExaminedLayers = {
  readonly findings: LayerFindings;
  /** How the rootfs is to be opened; undefined when there is none. */
  readonly rootfs: JudgedDisk | undefined;
};

/**
 * Finds out what the layers really hold.
 *
 * @throws {ShimError} FORMAT_MISMATCH, FORMAT_UNSAFE, LIMIT_EXCEEDED for a rootfs that no reader should be given; what
 *   `look` throws
 */
export async function examineLayers(
  layers: readonly RoleLayer[],
  { architecture, look, judge = judgeLayer }: {
    readonly architecture: Architecture;
    readonly look: Look;
    /** Asks the gate about the rootfs; from a cache, it may know the answer. */
    readonly judge?: (file: ByteWindow, layer: RoleLayer) => Promise<JudgedDisk>;
  },
): Promise<ExaminedLayers> {
  /** What `recognise` finds in the layer of a role, or undefined when there is none. */
  async function find<T>(role: Role, recognise: (file: ByteWindow, layer: RoleLayer) => Promise<T>) {
    const layer = layers.find((each) => each.role === role);
    return layer && await recognise(withHead(await look(layer)), layer);
  }
  const rootfs = await find("rootfs", judge);
  const findings: LayerFindings = {
    architecture,
    roles: rolesOf(layers),
    rootfs: rootfs?.content,
    kernel: await find("kernel", recogniseKernel),
    initramfs: await find("initramfs", recogniseInitramfs),
    uki: await find("uki", recogniseUki),
    iso: await find("iso", recogniseIso),
  };
  return { findings, rootfs };
}

async function judgeLayer(file: ByteWindow, { descriptor }: RoleLayer): Promise<JudgedDisk> {
  return await judgeDisk(file, { mediaType: descriptor.mediaType });
}

export function rolesOf(layers: readonly RoleLayer[]): ReadonlySet<Role> {
  return new Set(layers.map((layer) => layer.role));
}
