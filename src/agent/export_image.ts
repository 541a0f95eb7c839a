import { realpath } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { writeArchive } from "../content/archive_writer.ts";
import { writeLayout } from "../content/layout_writer.ts";
import { REF_NAME } from "../content/index_entry.ts";
import { toRefName } from "../content/reference_name.ts";
import { ShimError } from "../errors.ts";
import { errnoOf, toIoError } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { type Offer, statementOf } from "../image/offer.ts";
import type { Architecture, Variant } from "../image/platform.ts";
import { formatReference, type LayoutLocation, type Reference } from "../image/reference.ts";
import { describeOffer, offersOf } from "../image/select_manifest.ts";
import type { AgentContext } from "./agent_context.ts";
import {
  distinctBlobs,
  type ImageTree,
  type ManifestNode,
  readImageTree,
  roleLayersOf,
} from "./image_tree.ts";
import { readCachedDocument, requireCached } from "./images.ts";
import { type OperationOptions, TransferProgress } from "./progress.ts";
import { withLease } from "./with_lease.ts";

export type ExportWish = {
  readonly references: readonly Reference[];
  readonly target: LayoutLocation;
  /** Only manifests for this architecture; default: all. */
  readonly architecture?: Architecture | undefined;
  /** Only manifests for this variant, or for none in particular; default: all. */
  readonly variant?: Variant | undefined;
};

export type ExportedLayout = {
  /** `oci-archive:/abs/…` or `oci:/abs/…`. */
  readonly target: string;
  readonly images: readonly {
    readonly reference: string;
    /** What other tools call it in the layout. */
    readonly name: string;
    readonly digest: Digest;
    readonly platforms: readonly {
      readonly architecture: string | null;
      readonly variant: string | null;
      readonly digest: Digest;
    }[];
  }[];
  /** Bytes of the distinct blobs and documents that the images consist of. */
  readonly sizeBytes: number;
};

/**
 * Through whatever links: what is written below the root would be taken for the cache's own, or destroy it.
 *
 * @throws {ShimError} REQUEST_INVALID
 */
async function requireOutside(context: AgentContext, path: string): Promise<void> {
  const root = await realpath(context.rootDirectory);
  const place = await realpathOfNearest(path);
  if (place !== root && !place.startsWith(`${root}/`)) return;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot export to "${path}": it lies in the cache "${root}", must be outside`,
  );
}

/** The real path of what is there already: the target itself, or the nearest folder above it. */
async function realpathOfNearest(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" || dirname(path) === path) {
      throw toIoError(error, { action: "export", path });
    }
    return await realpathOfNearest(dirname(path));
  }
}

/**
 * Writes cached images into an image layout, folder or archive, that every other tool can read. Of an index, those
 * manifests go along that are complete in the cache; the index itself stays as it is, because its digest is the image's
 * identity. Every byte is verified on the way.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND when an image is not in the cache, or nothing of it is complete or matches;
 *   REQUEST_INVALID when two images would have one name; CONTENT_CORRUPT when a cached blob is damaged; CONFLICT,
 *   NO_SPACE, CANCELLED, IO_ERROR of the target
 */
export async function exportImages(
  context: AgentContext,
  wish: ExportWish,
  options: OperationOptions = {},
): Promise<ExportedLayout> {
  return await withLease(context, options, (leased) => exportLeased(leased, wish, options));
}

async function exportLeased(
  context: AgentContext,
  wish: ExportWish,
  options: OperationOptions,
): Promise<ExportedLayout> {
  const target = { ...wish.target, path: resolve(wish.target.path) };
  await requireOutside(context, target.path);
  const images = new Map<string, ExportedImage>();
  for (const reference of wish.references) {
    const image = await gatherImage(context, reference, wish);
    const before = images.get(image.name);
    if (before && before.tree.root.digest !== image.tree.root.digest) {
      throw new ShimError(
        "REQUEST_INVALID",
        `Cannot export "${before.reference}" and "${image.reference}": both would be called "${image.name}"`,
        { details: { remedy: "export them apart, or tag one of them anew" } },
      );
    }
    images.set(image.name, image);
  }
  const sorted = [...images.values()].sort((a, b) => a.name < b.name ? -1 : 1);
  const blobs = await write(context, { target, images: sorted, options });
  return {
    target: `${target.transport}:${target.path}`,
    images: sorted.map(({ reference, name, tree, offers }) => ({
      reference,
      name,
      digest: tree.root.digest,
      platforms: offers.map(describeOffer).map(({ architecture, variant, digest }) => ({
        architecture,
        variant,
        digest,
      })),
    })),
    sizeBytes: blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0),
  };
}

type ExportedImage = {
  readonly reference: string;
  readonly name: string;
  readonly tree: ImageTree;
  readonly manifests: readonly ManifestNode[];
  readonly offers: readonly Offer[];
};

async function gatherImage(
  context: AgentContext,
  reference: Reference,
  wish: ExportWish,
): Promise<ExportedImage> {
  const root = await requireCached(context, reference);
  const tree = await readImageTree(root, (descriptor) => readCachedDocument(context, descriptor));
  const wanted = offersIn(tree).filter(({ architecture, variant }) =>
    (wish.architecture === undefined || architecture === wish.architecture) &&
    (wish.variant === undefined || variant === undefined || variant === wish.variant)
  );
  const manifests: ManifestNode[] = [];
  for (const node of tree.manifests) {
    const isWanted = wanted.some((offer) => offer.descriptor.digest === node.descriptor.digest);
    if (isWanted && await isComplete(context, node)) manifests.push(node);
  }
  const name = formatReference(reference);
  if (manifests.length === 0) {
    throw new ShimError(
      "IMAGE_NOT_FOUND",
      `Cannot export "${name}": none of its ${wanted.length} wanted manifests is complete in the cache`,
      { details: { remedy: `fetch one with: bootshim pull ${name}`, offered: wanted.map(describeOffer) } },
    );
  }
  const offers = wanted.filter((offer) =>
    manifests.some((node) => node.descriptor.digest === offer.descriptor.digest)
  );
  return { reference: name, name: toRefName(name), tree, manifests, offers };
}

function offersIn({ index, read, manifests }: ImageTree): readonly Offer[] {
  if (index) return offersOf(index, read);
  return manifests.map(({ descriptor, manifest }) => ({
    descriptor,
    ...statementOf({ annotations: manifest.annotations }),
  }));
}

async function isComplete(context: AgentContext, { blobs }: ManifestNode): Promise<boolean> {
  for (const blob of blobs) if (!await context.content.hasBlob(blob)) return false;
  return true;
}

async function write(
  context: AgentContext,
  { target, images, options }: {
    readonly target: LayoutLocation;
    readonly images: readonly ExportedImage[];
    readonly options: OperationOptions;
  },
): Promise<readonly Descriptor[]> {
  const manifests = images.flatMap((image) => image.manifests);
  const blobs = distinctBlobs(manifests);
  const documents = images.flatMap(({ tree, manifests }) => {
    const leftOut = new Set(
      tree.manifests.filter((node) => !manifests.includes(node)).map((node) => node.descriptor),
    );
    return tree.documents.filter((document) => !leftOut.has(document));
  });
  const all = [...new Map([...blobs, ...documents].map((each) => [each.digest, each])).values()];
  const progress = new TransferProgress({
    phase: "exporting",
    blobs: all,
    layers: roleLayersOf(manifests),
    listener: options.onProgress,
  });
  const content = {
    entries: images.map(({ name, tree: { root: { mediaType, digest, sizeBytes } } }) => ({
      mediaType,
      digest,
      sizeBytes,
      annotations: { [REF_NAME]: name },
    })),
    blobs: all,
    open: (blob: Descriptor) => context.content.openBlob(blob),
  };
  const writing = {
    signal: options.signal,
    onProgress: (digest: Digest, doneBytes: number) => progress.advance(digest, doneBytes),
  };
  try {
    await (target.transport === "oci" ? writeLayout : writeArchive)(target.path, content, writing);
  } catch (error) {
    throw asCacheDamage(error);
  }
  return all;
}

/** Where all bytes come from the cache, bytes that are not what they should be are the cache's. */
function asCacheDamage(error: unknown): unknown {
  const isMismatch = error instanceof ShimError &&
    (error.code === "CONTENT_SIZE_MISMATCH" || error.code === "CONTENT_DIGEST_MISMATCH");
  if (!isMismatch) return error;
  return new ShimError("CONTENT_CORRUPT", `Cannot export a damaged image: ${error.message}`, {
    cause: error,
    details: { ...error.details, remedy: "pull the image again, which replaces the blob" },
  });
}
