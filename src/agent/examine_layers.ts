import { type ByteWindow, withHead } from "../boot/byte_window.ts";
import type { LayerFindings, UnusableDisk } from "../boot/boot_verdicts.ts";
import { recogniseDisk } from "../boot/disk_content.ts";
import { type JudgedDisk, judgeDisk } from "../boot/judge_disk.ts";
import { recogniseInitramfs } from "../boot/initramfs_content.ts";
import { recogniseIso } from "../boot/iso_content.ts";
import { recogniseKernel } from "../boot/kernel_content.ts";
import type { Role, RoleLayer } from "../boot/prepared_boot.ts";
import { recogniseUki } from "../boot/uki_content.ts";
import { type ErrorCode, ShimError } from "../errors.ts";
import type { Architecture } from "../image/platform.ts";

/** Opens a window onto a layer's bytes, or for a packed disk onto what is in it. */
export type Look = (layer: RoleLayer) => Promise<ByteWindow>;

export type ExaminedLayers = {
  readonly findings: LayerFindings;
  /** How the rootfs is to be opened; undefined when there is none, and for one that is refused. */
  readonly rootfs: JudgedDisk | undefined;
  /**
   * Why the rootfs must not be given to any reader: FORMAT_MISMATCH, FORMAT_UNSAFE or LIMIT_EXCEEDED. What else the image
   * holds is known all the same.
   */
  readonly refusal: ShimError | undefined;
};

/** Finds out what the layers really hold. Throws what `look` throws, but for what is about a rootfs that is no disk. */
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
  const rootfs = await find("rootfs", judge).catch(takeRefusal);
  const refusal = rootfs instanceof ShimError ? rootfs : undefined;
  const judged = rootfs instanceof ShimError ? undefined : rootfs;
  const kernel = await find("kernel", recogniseKernel);
  const isUki = kernel?.kind === "kernel" && kernel.format === "UKI";
  const findings: LayerFindings = {
    architecture,
    rootfs: refusal ? unusable(refusal) : judged?.content,
    squashfs: await find("squashfs", recogniseDisk),
    kernel,
    kernelUki: isUki ? await find("kernel", recogniseUki) : undefined,
    initramfs: await find("initramfs", recogniseInitramfs),
    uki: await find("uki", recogniseUki),
    iso: await find("iso", recogniseIso),
  };
  return { findings, rootfs: judged, refusal };
}

/** What a gate refuses a disk with. */
const REFUSALS: readonly ErrorCode[] = ["FORMAT_MISMATCH", "FORMAT_UNSAFE", "LIMIT_EXCEEDED"];

function takeRefusal(error: unknown): ShimError {
  if (error instanceof ShimError && REFUSALS.includes(error.code)) return error;
  throw error;
}

function unusable({ message }: ShimError): UnusableDisk {
  return { kind: "unusable", why: message };
}

async function judgeLayer(file: ByteWindow, { descriptor }: RoleLayer): Promise<JudgedDisk> {
  return await judgeDisk(file, { mediaType: descriptor.mediaType });
}
