import type { RoleLayer } from "../boot/prepared_boot.ts";
import { assignRoles } from "../boot/roles.ts";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { type ImageIndex, parseImageIndex } from "../image/image_index.ts";
import {
  type ImageConfig,
  type ImageManifest,
  parseImageConfig,
  parseImageManifest,
} from "../image/image_manifest.ts";
import type { VerifiedDocument } from "../image/image_source.ts";
import { isConfigType, isIndexType, isManifestType } from "../image/media_type.ts";
import type { Annotations, Offer, Survey } from "../image/offer.ts";
import { type Architecture, architectureHint } from "../image/platform.ts";
import { formatReference, type Reference } from "../image/reference.ts";
import { confirmPlatform, loneOffer, nextStep, type PlatformWish } from "../image/select_manifest.ts";
import type { PullPolicy } from "./agent_context.ts";
import { type Asking, DocumentReader, type ReadDocument, type ResolvingContext } from "./document_reader.ts";
import type { LazySource } from "./open_source.ts";

export type ImageWish = PlatformWish & { readonly reference: Reference; readonly pull: PullPolicy };

/** A reference led to one manifest. Every document on the way is in hand and verified; no layer was touched. */
export type ResolvedImage = {
  /** The canonical spelling; the cache knows the image by it. */
  readonly name: string;
  /** What the reference stands for: an index or a manifest. */
  readonly root: Descriptor;
  /** Null when the reference led to a lone manifest. */
  readonly index: ImageIndex | null;
  /** Every manifest on offer, those of nested indexes too when the choice needed them. */
  readonly offers: readonly Offer[];
  readonly chosen: Offer;
  readonly manifest: ImageManifest;
  readonly config: ImageConfig;
  readonly layers: readonly RoleLayer[];
  /** What was passed over, and what may be amiss; nothing that stops anything. */
  readonly notes: readonly string[];
  /** Every document that was read, children before parents: the order in which they are stored. */
  readonly documents: readonly ReadDocument[];
  /** Bytes of documents that had to be asked for. */
  readonly transferredBytes: number;
  /** Where missing layers come from; null when the policy forbids asking. */
  readonly source: LazySource | null;
};

/**
 * Reference to descriptor to index to manifest. Asks the source only for what the cache does not hold.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND under `never` when something is missing; PLATFORM_NOT_FOUND; MEDIA_TYPE_UNSUPPORTED;
 *   LAYER_MISSING, LAYER_DUPLICATE; MANIFEST_INVALID and its kin; LIMIT_EXCEEDED; REGISTRY_* of the source
 */
export async function resolveImage(
  context: ResolvingContext,
  wish: ImageWish,
  asking: Asking,
): Promise<ResolvedImage> {
  const name = formatReference(wish.reference);
  const reader = new DocumentReader(context, name, asking);
  const root = await reader.readRoot(wish);
  const choice = await chooseManifest(reader, root, wish);
  const manifestDocument = await reader.read(choice.chosen.descriptor);
  const manifest = parseImageManifest(manifestDocument.bytes, choice.chosen.descriptor);
  const { config, notes } = await readConfig(reader, manifest.config);
  const chosen = confirmPlatform(choice.chosen, wish, {
    annotations: manifest.annotations,
    architecture: config.architecture,
    offers: choice.offers,
  });
  const assigned = assignRoles(manifest);
  return {
    name,
    root: root.descriptor,
    index: choice.index,
    offers: choice.offers.map((offer) => offer === choice.chosen ? chosen : offer),
    chosen,
    manifest,
    config,
    layers: assigned.layers,
    notes: [...choice.notes, ...nameNotes(chosen, wish), ...notes, ...assigned.notes],
    documents: reader.childrenFirst(),
    transferredBytes: reader.transferredBytes,
    source: asking.source,
  };
}

type Choice = {
  readonly index: ImageIndex | null;
  readonly chosen: Offer;
  readonly offers: readonly Offer[];
  readonly notes: readonly string[];
};

async function chooseManifest(
  reader: DocumentReader,
  root: VerifiedDocument,
  wish: PlatformWish,
): Promise<Choice> {
  const { mediaType, digest } = root.descriptor;
  if (isIndexType(mediaType)) {
    return await chooseFromIndex(reader, parseImageIndex(root.bytes, root.descriptor), wish);
  }
  if (!isManifestType(mediaType)) {
    throw new ShimError(
      "MEDIA_TYPE_UNSUPPORTED",
      `Cannot read image "${digest}": media type is "${mediaType}", must be an image index or an image manifest`,
    );
  }
  const chosen = loneOffer(root.descriptor);
  return { index: null, chosen, offers: [chosen], notes: [] };
}

/** Reads manifests and nested indexes one by one, and only while they may change the choice. */
async function chooseFromIndex(
  reader: DocumentReader,
  index: ImageIndex,
  wish: PlatformWish,
): Promise<Choice> {
  const indexes = new Map<Digest, ImageIndex>();
  const manifests = new Map<Digest, Annotations>();
  for (;;) {
    const step = nextStep(index, wish, { indexes, manifests });
    if (step.kind === "chosen") {
      const { offer, survey } = step;
      return { index, chosen: offer, offers: survey.manifests, notes: surveyNotes(survey) };
    }
    const { descriptor } = step;
    const { bytes } = await reader.read(descriptor);
    if (isIndexType(descriptor.mediaType)) indexes.set(descriptor.digest, parseImageIndex(bytes, descriptor));
    else manifests.set(descriptor.digest, parseImageManifest(bytes, descriptor).annotations);
  }
}

function surveyNotes({ unread, unverifiable }: Survey): string[] {
  const notes: string[] = [];
  if (unread.length > 0) {
    notes.push(`of the indexes inside the index ${unread.length} are not looked into: the choice needs none`);
  }
  if (unverifiable.length > 0) {
    notes.push(`of the index's entries ${unverifiable.length} are ignored: their digests cannot be verified`);
  }
  return notes;
}

/** A configuration of an unknown type is somebody else's, and may be anything. */
async function readConfig(
  reader: DocumentReader,
  descriptor: Descriptor,
): Promise<{ config: ImageConfig; notes: readonly string[] }> {
  const { bytes } = await reader.readConfig(descriptor);
  if (isConfigType(descriptor.mediaType)) return { config: parseImageConfig(bytes, descriptor), notes: [] };
  return {
    config: { commandLine: undefined, architecture: undefined },
    notes: [`configuration of unknown media type "${descriptor.mediaType}" is ignored`],
  };
}

/** A name is a label and decides nothing; but where nothing else tells the architecture, a doubt is worth a word. */
function nameNotes({ architectureWord }: Offer, { architecture, reference }: ImageWish): string[] {
  const names = reference.transport === "docker" ? [reference.tag, reference.repository] : [reference.tag];
  const hint = names.map(architectureHint).find((each): each is Architecture => each !== undefined);
  if (architectureWord !== undefined || hint === undefined || hint === architecture) return [];
  return [
    `nothing in the image states its architecture: it is taken to be for ${architecture}, ` +
    `though its name hints at ${hint}`,
  ];
}
