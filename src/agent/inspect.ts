import { windowOf } from "../boot/byte_window.ts";
import type { BootWish } from "../boot/decide_boot.ts";
import { HEAD_BYTES } from "../boot/disk_content.ts";
import type { ModeVerdict, Role } from "../boot/prepared_boot.ts";
import type { Digest } from "../image/digest.ts";
import { describeOffer } from "../image/select_manifest.ts";
import type { AgentContext } from "./agent_context.ts";
import { withSource } from "./open_source.ts";
import { verdictsOf } from "./prepare_boot.ts";
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
  readonly commandLine: string | null;
  /** Told from the first bytes of each layer; those of a layer that is not cached are not verified yet. */
  readonly modes: readonly ModeVerdict[];
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
    commandLine: image.config.commandLine ?? null,
    modes: await verdictsOf(image, wish, async (descriptor) => {
      if (await context.content.hasBlob(descriptor)) return context.content.blobWindow(descriptor);
      if (!image.source) return windowOf(new Uint8Array(), descriptor.sizeBytes);
      const source = await image.source();
      return windowOf(await source.readHead(descriptor, HEAD_BYTES, { signal }), descriptor.sizeBytes);
    }),
    notes: image.notes,
  };
}
