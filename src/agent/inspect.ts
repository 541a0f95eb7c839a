import { windowOf } from "../boot/byte_window.ts";
import { type BootWish, modeVerdicts } from "../boot/decide_boot.ts";
import { HEAD_BYTES } from "../boot/disk_content.ts";
import { PACKING_HEAD_BYTES, recognisePacking } from "../boot/disk_packing.ts";
import type { ModeVerdict, Role } from "../boot/prepared_boot.ts";
import { unpackDiskHead } from "../content/unpack_disk.ts";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { describeOffer } from "../image/select_manifest.ts";
import type { AgentContext } from "./agent_context.ts";
import { cmdlineLayer, decodeCmdlineLayer } from "./cmdline_layer.ts";
import { examineLayers } from "./examine_layers.ts";
import { withSource } from "./open_source.ts";
import { type ImageWish, type ResolvedImage, resolveImage } from "./resolve_image.ts";

/** What there is behind a reference, what would be chosen, and how it would boot. */
export type InspectedImage = {
  readonly reference: string;
  readonly digest: Digest;
  readonly mediaType: string;
  readonly entries: readonly (ReturnType<typeof describeOffer> & { readonly isChosen: boolean })[];
  readonly manifestDigest: Digest;
  readonly layers: readonly {
    readonly role: Role;
    readonly mediaType: string;
    readonly digest: Digest;
    readonly sizeBytes: number;
    readonly isCached: boolean;
  }[];
  /** As the image states it; a cmdline layer comes before the configuration. */
  readonly commandLine: string | null;
  /** What `prepare` would find in the layers; see {@link modesVerified}. */
  readonly modes: readonly ModeVerdict[];
  /** False when a layer is not cached: then the modes come from its first 64 KiB, which nobody has checked yet. */
  readonly modesVerified: boolean;
  readonly notes: readonly string[];
};

/**
 * Looks at an image without fetching a layer: index, manifests, configuration and the first KiB of layers are read, and
 * nothing is stored.
 *
 * @throws {ShimError} as `resolveImage`
 */
export async function inspectImage(
  context: AgentContext,
  wish: ImageWish & BootWish,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<InspectedImage> {
  return await withSource(context, wish, async (source) => {
    const image = await resolveImage(context, wish, { source, signal: options.signal });
    return await describeImage(context, image, { wish, signal: options.signal });
  });
}

type Look = { readonly wish: ImageWish & BootWish; readonly signal: AbortSignal | undefined };

async function describeImage(
  context: AgentContext,
  image: ResolvedImage,
  { wish, signal }: Look,
): Promise<InspectedImage> {
  const layers = [];
  for (const { role, descriptor } of image.layers) {
    const { mediaType, digest, sizeBytes } = descriptor;
    layers.push({ role, mediaType, digest, sizeBytes, isCached: await context.content.hasBlob(descriptor) });
  }
  const { commandLine, notes } = await statedCommandLine(context, image, signal);
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
    commandLine,
    modes: await verdictsOf(context, image, { wish, signal }),
    modesVerified: layers.every((layer) => layer.isCached),
    notes: [...image.notes, ...notes],
  };
}

async function verdictsOf(
  context: AgentContext,
  image: ResolvedImage,
  { wish, signal }: Look,
): Promise<readonly ModeVerdict[]> {
  const { findings } = await examineLayers(image.layers, {
    architecture: wish.architecture,
    look: async ({ role, descriptor }) => {
      const unpacked = role === "rootfs" ? await context.derived.find(descriptor) : undefined;
      if (unpacked) return context.derived.diskWindow(descriptor, unpacked);
      const head = await readHead(context, image, { descriptor, signal });
      const packing = role === "rootfs"
        ? recognisePacking(descriptor.mediaType, head.subarray(0, PACKING_HEAD_BYTES))
        : null;
      if (packing) return await unpackDiskHead(packing, head);
      const isCached = await context.content.hasBlob(descriptor);
      return isCached ? context.content.blobWindow(descriptor) : windowOf(head, descriptor.sizeBytes);
    },
  });
  return modeVerdicts(findings, wish);
}

type HeadOf = { readonly descriptor: Descriptor; readonly signal: AbortSignal | undefined };

/** A layer's first bytes, from the cache, else from the source; none when neither may be asked. */
async function readHead(
  context: AgentContext,
  image: ResolvedImage,
  { descriptor, signal }: HeadOf,
): Promise<Uint8Array> {
  if (await context.content.hasBlob(descriptor)) {
    return await context.content.blobWindow(descriptor).read(0, HEAD_BYTES);
  }
  if (!image.source) return new Uint8Array();
  return await (await image.source()).readHead(descriptor, HEAD_BYTES, { signal });
}

type StatedCommandLine = { readonly commandLine: string | null; readonly notes: readonly string[] };

/** The cmdline layer's, which is stronger than the configuration's; a layer that cannot be read leaves only a note. */
async function statedCommandLine(
  context: AgentContext,
  image: ResolvedImage,
  signal: AbortSignal | undefined,
): Promise<StatedCommandLine> {
  const layer = cmdlineLayer(image);
  const stated = { commandLine: image.config.commandLine ?? null, notes: [] };
  if (!layer) return stated;
  const isCached = await context.content.hasBlob(layer);
  if (!isCached && !image.source) return stated;
  const source = isCached ? undefined : await image.source?.();
  const bytes = source
    ? await source.fetchSmallBlob(layer, { signal })
    : (await context.content.readDocument(layer)).bytes;
  try {
    return { commandLine: decodeCmdlineLayer(layer, bytes), notes: [] };
  } catch (error) {
    if (error instanceof ShimError) return { commandLine: null, notes: [error.message] };
    throw error;
  }
}
