import { assignRoles } from "../boot/roles.ts";
import { type ErrorCode, ShimError } from "../errors.ts";
import { readAhead } from "../host/read_ahead.ts";
import { isIndexType } from "../image/media_type.ts";
import { type Digest, shortDigest } from "../image/digest.ts";
import { type Descriptor, toDescriptor } from "../image/descriptor.ts";
import { type ImageIndex, parseImageIndex } from "../image/image_index.ts";
import { type ImageManifest, parseImageManifest } from "../image/image_manifest.ts";
import type { VerifiedDocument } from "../image/image_source.ts";
import { formatReference, type Reference } from "../image/reference.ts";
import { describeOffer, offersOf } from "../image/select_manifest.ts";
import type { AgentContext } from "./agent_context.ts";
import { withLease } from "./with_lease.ts";

/** Indexes inside an index are looked into so deep. */
const MAX_INDEX_DEPTH = 4;

/** A cached image, as `images` lists it. */
export type CachedImage = {
  readonly reference: string;
  readonly digest: Digest;
  /** What the index offers, and of each whether all of it is here. */
  readonly platforms: readonly {
    readonly architecture: string | null;
    readonly variant: string | null;
    readonly digest: Digest;
    readonly isComplete: boolean;
  }[];
  /** Bytes of the distinct blobs that are here. A blob that two images share counts in both. */
  readonly sizeBytes: number;
};

/** So many bytes of indexes make a group: some thousand images, or one that is as large as it may be. */
const TOGETHER_BYTES = 4 * 1024 * 1024;

/**
 * The references of the cache, by name. Reads documents, hashes no layer. The kernel is asked for what is going to be read:
 * for all roots at first, then, by groups, for the manifests that these name.
 */
export async function listImages(context: AgentContext): Promise<CachedImage[]> {
  const references = (await context.content.references()).toSorted((a, b) => a.name < b.name ? -1 : 1);
  // Whether a blob is sound is asked when it is used; here its being there is enough, and quick for any number of images.
  const present = new Set(await context.audit.list());
  const images: CachedImage[] = [];
  let group: SurveyedImage[] = [];
  let groupBytes = 0;
  const describeGroup = async () => {
    await bringIn(context, group.flatMap(({ manifests }) => manifests));
    for (const each of group) images.push(await describeImage(context, each, present));
    [group, groupBytes] = [[], 0];
  };
  await bringIn(context, references.map(({ descriptor }) => descriptor));
  for (const { name, descriptor: root } of references) {
    const survey = await surveyRoot(context, root, present);
    group.push({ name, root, ...survey });
    groupBytes += survey.indexes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    if (groupBytes >= TOGETHER_BYTES) await describeGroup();
  }
  await describeGroup();
  return images;
}

async function bringIn({ content }: AgentContext, documents: readonly Descriptor[]): Promise<void> {
  await readAhead(documents.map(({ digest }) => content.blobPath(digest)));
}

type SurveyedRoot = {
  /** Itself, where it is one, and those inside it, as far as they are here. */
  readonly indexes: readonly Descriptor[];
  readonly manifests: readonly Descriptor[];
  /** What is told of a manifest: nothing where there is no index. */
  readonly described: ReadonlyMap<Digest, { architecture: string | null; variant: string | null }>;
};
type SurveyedImage = SurveyedRoot & { readonly name: string; readonly root: Descriptor };

/** Nothing of an index that is damaged, or was collected meanwhile: the others are listed all the same. */
async function surveyRoot(
  context: AgentContext,
  root: Descriptor,
  present: ReadonlySet<Digest>,
): Promise<SurveyedRoot> {
  if (!isIndexType(root.mediaType)) return { indexes: [], manifests: [root], described: new Map() };
  const held = await heldIndexes(context, root, present);
  const index = held.get(root.digest)?.index;
  const read = new Map([...held].map(([digest, { index }]) => [digest, index]));
  // One that is beyond our limits is listed without its platforms.
  const survey = unlessRefused((root: ImageIndex) => offersOf(root, { indexes: read, manifests: new Map() }));
  const offers = index ? survey(index) ?? [] : [];
  return {
    indexes: [...held.values()].map(({ descriptor }) => descriptor),
    manifests: offers.map((offer) => offer.descriptor),
    described: new Map(offers.toReversed().map((offer) => [offer.descriptor.digest, describeOffer(offer)])),
  };
}

async function describeImage(
  context: AgentContext,
  { name, root, indexes, manifests, described }: SurveyedImage,
  present: ReadonlySet<Digest>,
): Promise<CachedImage> {
  const sizes = new Map(indexes.map(({ digest, sizeBytes }) => [digest, sizeBytes]));
  const complete = new Map<Digest, boolean>();
  for (const manifest of manifests) {
    const held = await heldBlobs(context, manifest, present);
    complete.set(manifest.digest, held.isComplete);
    for (const descriptor of held.descriptors) sizes.set(descriptor.digest, descriptor.sizeBytes);
  }
  return {
    reference: name,
    digest: root.digest,
    platforms: manifests.map(({ digest }) => ({
      architecture: described.get(digest)?.architecture ?? null,
      variant: described.get(digest)?.variant ?? null,
      digest,
      isComplete: complete.get(digest) ?? false,
    })),
    sizeBytes: [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0),
  };
}

type HeldIndex = { readonly descriptor: Descriptor; readonly index: ImageIndex };

/** The index and those inside it, as far as they are here; `offersOf` bounds how deep they may lie. */
async function heldIndexes(
  context: AgentContext,
  root: Descriptor,
  present: ReadonlySet<Digest>,
): Promise<ReadonlyMap<Digest, HeldIndex>> {
  const held = new Map<Digest, HeldIndex>();
  let level: readonly Descriptor[] = [root];
  for (let depth = 0; depth <= MAX_INDEX_DEPTH && level.length > 0; depth++) {
    const below: Descriptor[] = [];
    for (const descriptor of level) {
      const isWanted = present.has(descriptor.digest) && !held.has(descriptor.digest);
      const bytes = isWanted ? await bytesIfSound(context, descriptor) : undefined;
      const index = bytes && unlessRefused((bytes: Uint8Array) => parseImageIndex(bytes, descriptor))(bytes);
      if (!index) continue;
      held.set(descriptor.digest, { descriptor, index });
      below.push(...index.entries.filter(({ mediaType }) => isIndexType(mediaType)));
    }
    level = below;
  }
  return held;
}

/** What of a manifest is in the cache, itself included. */
async function heldBlobs(
  context: AgentContext,
  manifest: Descriptor,
  present: ReadonlySet<Digest>,
): Promise<{ descriptors: Descriptor[]; isComplete: boolean }> {
  const bytes = present.has(manifest.digest) ? await bytesIfSound(context, manifest) : undefined;
  const parsed = bytes && unlessRefused((bytes: Uint8Array) => parseImageManifest(bytes, manifest))(bytes);
  if (!parsed) return { descriptors: bytes ? [manifest] : [], isComplete: false };
  const { all, needed } = blobsOf(parsed);
  return {
    descriptors: [manifest, ...all.filter((descriptor) => present.has(descriptor.digest))],
    isComplete: needed?.every((descriptor) => present.has(descriptor.digest)) ?? false,
  };
}

const UNSOUND: ReadonlySet<ErrorCode> = new Set(["CONTENT_CORRUPT", "IMAGE_NOT_FOUND", "MANIFEST_TOO_LARGE"]);

/** Undefined for a document that is damaged, too large to be one, or was collected meanwhile. */
async function bytesIfSound(context: AgentContext, descriptor: Descriptor): Promise<Uint8Array | undefined> {
  try {
    return (await context.content.readDocument(descriptor)).bytes;
  } catch (error) {
    if (error instanceof ShimError && UNSOUND.has(error.code)) return undefined;
    throw error;
  }
}

/**
 * Configuration and layers of a manifest: all that have a digest we can check, and those that a pull brings. An image
 * without roles is none to be pulled, so all of it counts; undefined when there is something that nobody can check.
 */
function blobsOf(manifest: ImageManifest): { all: Descriptor[]; needed: Descriptor[] | undefined } {
  const layers = manifest.layers.map(unlessRefused(toDescriptor));
  const checkable = layers.filter((layer) => layer !== undefined);
  const assigned = unlessRefused(assignRoles)(manifest);
  const whole = layers.length === checkable.length ? checkable : undefined;
  const needed = assigned ? assigned.layers.map((layer) => layer.descriptor) : whole;
  return { all: [manifest.config, ...checkable], needed: needed && [manifest.config, ...needed] };
}

/** What `read` gives, or undefined where it refuses. */
function unlessRefused<I, O>(read: (input: I) => O): (input: I) => O | undefined {
  return (input) => {
    try {
      return read(input);
    } catch (error) {
      if (error instanceof ShimError) return undefined;
      throw error;
    }
  };
}

/** A document of the cache, or undefined when it is not there. @throws {ShimError} CONTENT_CORRUPT and its kin */
export async function readCachedDocument(
  context: AgentContext,
  descriptor: Descriptor,
): Promise<VerifiedDocument | undefined> {
  if (!await context.content.hasBlob(descriptor)) return undefined;
  return await context.content.readDocument(descriptor);
}

/**
 * Finds what a cached reference stands for.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND
 */
export async function requireCached(context: AgentContext, reference: Reference): Promise<Descriptor> {
  const name = formatReference(reference);
  const found = (await context.content.references()).find((each) =>
    reference.digest ? each.descriptor.digest === reference.digest : each.name === name
  );
  if (found) return found.descriptor;
  throw new ShimError("IMAGE_NOT_FOUND", `Cannot find image "${name}" in the cache`, {
    details: { remedy: `list what is there with: bootshim images; fetch it with: bootshim pull ${name}` },
  });
}

/**
 * Gives a cached image one more name.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND
 */
export async function tagImage(
  context: AgentContext,
  source: Reference,
  target: Reference,
): Promise<{ reference: string; digest: Digest }> {
  return await withLease(context, {}, (leased) => tagLeased(leased, source, target));
}

async function tagLeased(
  context: AgentContext,
  source: Reference,
  target: Reference,
): Promise<{ reference: string; digest: Digest }> {
  const descriptor = await requireCached(context, source);
  if (target.digest || target.transport !== "docker") {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot tag ${shortDigest(descriptor.digest)} as "${
        formatReference(target)
      }": must be a name like HOST/REPOSITORY:TAG`,
    );
  }
  await context.content.setReference(formatReference(target), descriptor);
  return { reference: formatReference(target), digest: descriptor.digest };
}
