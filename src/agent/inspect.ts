import { type ByteWindow, windowOf } from "../boot/byte_window.ts";
import { type BootDecision, foreseeBoot, type ForeseenMode } from "../boot/decide_boot.ts";
import { describeLayer, type LayerDescription } from "../boot/describe_layer.ts";
import { PACKING_HEAD_BYTES, recognisePacking } from "../boot/disk_packing.ts";
import type { BootMode, Firmware, Role } from "../boot/prepared_boot.ts";
import { unpackDiskHead } from "../content/unpack_disk.ts";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { describeOffer } from "../image/select_manifest.ts";
import type { AgentContext } from "./agent_context.ts";
import { bootCommandLine, bootedUki } from "./boot_command_line.ts";
import { readStatedCommandLine, type StatedCommandLine } from "./cmdline_layer.ts";
import { type ExaminedLayers, examineLayers, type Look } from "./examine_layers.ts";
import { layerWindow } from "./layer_window.ts";
import { withSource } from "./open_source.ts";
import type { BootWishes } from "./prepare_boot.ts";
import { type ImageWish, type ResolvedImage, resolveImage } from "./resolve_image.ts";

/** What there is behind a reference, what would be chosen, and how it would boot. */
export type InspectedImage = {
  readonly reference: string;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly entries: readonly (ReturnType<typeof describeOffer> & { readonly isChosen: boolean })[];
  readonly manifestDigest: Digest;
  readonly layers: readonly InspectedLayer[];
  /** As the image states it; a cmdline layer comes before the configuration. */
  readonly commandLine: string | null;
  /** What `prepare` would find in the layers, see {@link modesVerified}; null where the seen bytes do not tell. */
  readonly modes: readonly ForeseenMode[];
  /** How `prepare` would boot it. Null when it would refuse, and when that cannot be told: modes and notes say why. */
  readonly boot: ForeseenBoot | null;
  /** False when a layer is not cached: then the modes come from small parts of it, which nobody has checked yet. */
  readonly modesVerified: boolean;
  readonly notes: readonly string[];
};

export type InspectedLayer = LayerDescription & {
  readonly role: Role;
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly isCached: boolean;
};

export type ForeseenBoot = {
  readonly mode: BootMode;
  readonly firmware: Firmware;
  /** Null for a unified kernel image whose own was not seen. */
  readonly cmdline: string | null;
  readonly reason: string;
};

/**
 * Looks at an image without fetching a layer: index, manifests, configuration and small parts of layers are read, and
 * nothing is stored.
 *
 * @throws {ShimError} as `resolveImage`
 */
export async function inspectImage(
  context: AgentContext,
  wish: ImageWish & BootWishes,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<InspectedImage> {
  return await withSource(context, wish, async (source) => {
    const image = await resolveImage(context, wish, { source, signal: options.signal });
    return await describeImage(context, image, { wish, signal: options.signal });
  });
}

type Request = { readonly wish: ImageWish & BootWishes; readonly signal: AbortSignal | undefined };

async function describeImage(
  context: AgentContext,
  image: ResolvedImage,
  { wish, signal }: Request,
): Promise<InspectedImage> {
  const examined = await examineLayers(image.layers, {
    architecture: wish.architecture,
    look: lookAt(context, image, signal),
  });
  const { findings } = examined;
  const layers: InspectedLayer[] = [];
  for (const { role, descriptor } of image.layers) {
    const { mediaType, digest, sizeBytes } = descriptor;
    const isCached = await context.content.hasBlob(descriptor);
    layers.push({ role, mediaType, digest, sizeBytes, isCached, ...describeLayer(role, findings) });
  }
  const notes = [...image.notes];
  const stated = await orNote(notes, () => readStatedCommandLine(context, image, { signal }));
  const { modes, decision } = foreseeBoot(findings, wish);
  return {
    reference: image.name,
    digest: image.root.digest,
    mediaType: image.root.mediaType,
    entries: image.offers.map((offer) => ({
      ...describeOffer(offer),
      isChosen: offer.descriptor.digest === image.chosen.descriptor.digest,
    })),
    manifestDigest: image.chosen.descriptor.digest,
    layers,
    commandLine: stated?.layer ?? stated?.config ?? null,
    modes,
    boot: await orNote(notes, () => Promise.resolve(bootOf(examined, { wish, stated, decision }))) ?? null,
    modesVerified: layers.every((layer) => layer.isCached),
    notes,
  };
}

type Decided = {
  readonly wish: BootWishes;
  readonly stated: StatedCommandLine | undefined;
  readonly decision: BootDecision | null;
};

/** @throws {ShimError} what `prepare` refuses the image with */
function bootOf(
  { findings, refusal }: ExaminedLayers,
  { wish, stated, decision }: Decided,
): ForeseenBoot | null {
  if (refusal) throw refusal;
  if (!decision || !stated) return null;
  const { mode, firmware } = decision;
  const uki = bootedUki({ decision, findings });
  if (uki?.isTextUnseen && (mode === "uki" || wish.cmdline === undefined)) {
    return { mode, firmware, cmdline: null, reason: decision.reason };
  }
  return { mode, firmware, ...bootCommandLine(stated, { wish, decision, findings }) };
}

/** What stops `prepare` does not stop a look: it is told, and the rest of the image beside it. */
async function orNote<T>(notes: string[], action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    const isAboutImage = error instanceof ShimError &&
      ["CMDLINE_INVALID", "FORMAT_MISMATCH", "FORMAT_UNSAFE", "LIMIT_EXCEEDED"].includes(error.code);
    if (!isAboutImage) throw error;
    notes.push(`prepare refuses this image: ${error.message}`);
    return undefined;
  }
}

/** What is read of a packed disk, so that enough of the disk comes out, however little it was compressed. */
const PACKED_HEAD_BYTES = 128 * 1024;

/** Looks into the cache, else at the source where that may be asked. A blob in two roles is looked at once. */
function lookAt(context: AgentContext, image: ResolvedImage, signal: AbortSignal | undefined): Look {
  const windows = new Map<Digest, ByteWindow>();
  const open = async (descriptor: Descriptor): Promise<ByteWindow> => {
    const known = windows.get(descriptor.digest);
    if (known) return known;
    const window = await context.content.hasBlob(descriptor)
      ? context.content.blobWindow(descriptor)
      : image.source
      ? layerWindow(await image.source(), descriptor, { signal })
      : windowOf(new Uint8Array(), descriptor.sizeBytes);
    windows.set(descriptor.digest, window);
    return window;
  };
  return async ({ role, descriptor }) => {
    if (role !== "rootfs") return await open(descriptor);
    const unpacked = await context.derived.find(descriptor);
    if (unpacked) return context.derived.diskWindow(descriptor, unpacked);
    const file = await open(descriptor);
    const packing = recognisePacking(descriptor.mediaType, await file.read(0, PACKING_HEAD_BYTES));
    return packing ? await unpackDiskHead(packing, await file.read(0, PACKED_HEAD_BYTES)) : file;
  };
}
