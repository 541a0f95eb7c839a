import type { RoleLayer } from "../boot/prepared_boot.ts";
import { assignRoles } from "../boot/roles.ts";
import { ShimError } from "../errors.ts";
import { type Descriptor, toDescriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { type ImageIndex, parseImageIndex } from "../image/image_index.ts";
import { type ImageManifest, parseImageManifest } from "../image/image_manifest.ts";
import type { VerifiedDocument } from "../image/image_source.ts";
import { isIndexType, isManifestType } from "../image/media_type.ts";
import type { ReadDocuments } from "../image/offer.ts";

/** Indexes may lie this deep below the root. */
const MAX_DEPTH = 4;
/** Over all levels; one index alone may hold as many. */
const MAX_DOCUMENTS = 1000;

/** A manifest with what it refers to. */
export type ManifestNode = {
  readonly descriptor: Descriptor;
  readonly manifest: ImageManifest;
  /** Configuration and layers, in order. */
  readonly blobs: readonly Descriptor[];
};

/** All that a reference leads to, as far as it is there. Documents' bytes are not kept: there may be a thousand. */
export type ImageTree = {
  readonly root: Descriptor;
  /** Null when the root is a manifest. */
  readonly index: ImageIndex | null;
  /** Every document that is there, children before parents: the root is the last. */
  readonly documents: readonly Descriptor[];
  readonly manifests: readonly ManifestNode[];
  /** Entries of an index that are not there: it is sparse. */
  readonly absent: readonly Descriptor[];
  /** What the documents below the root say of their platforms. */
  readonly read: ReadDocuments;
};

/** Gives a document, or undefined when it is not there. */
export type ReadDocument = (descriptor: Descriptor) => Promise<VerifiedDocument | undefined>;

/**
 * Walks from a root to the last blob's descriptor.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND when not even the root is there; MEDIA_TYPE_UNSUPPORTED when it is neither index
 *   nor manifest; LIMIT_EXCEEDED for indexes nested over 4 deep, or over 1,000 documents; MANIFEST_INVALID and
 *   its kin; what `read` throws
 */
export async function readImageTree(root: Descriptor, read: ReadDocument): Promise<ImageTree> {
  const walk = new TreeWalk(read);
  await walk.visit(root, 0);
  if (walk.documents.length === 0) {
    throw new ShimError("IMAGE_NOT_FOUND", `Cannot find image "${root.digest}": it is not there`, {
      details: { digest: root.digest },
    });
  }
  return {
    root,
    index: walk.indexes.get(root.digest) ?? null,
    documents: walk.documents,
    manifests: walk.manifests,
    absent: walk.absent,
    read: {
      indexes: walk.indexes,
      manifests: new Map(walk.manifests.map((node) => [node.descriptor.digest, node.manifest.annotations])),
    },
  };
}

class TreeWalk {
  readonly documents: Descriptor[] = [];
  readonly manifests: ManifestNode[] = [];
  readonly absent: Descriptor[] = [];
  readonly indexes = new Map<Digest, ImageIndex>();
  readonly #read: ReadDocument;
  readonly #seen = new Set<Digest>();

  constructor(read: ReadDocument) {
    this.#read = read;
  }

  async visit(descriptor: Descriptor, depth: number): Promise<void> {
    if (this.#seen.has(descriptor.digest)) return;
    this.#seen.add(descriptor.digest);
    const isIndex = isIndexType(descriptor.mediaType);
    requireWithin(descriptor, { depth: isIndex ? depth : 0, count: this.#seen.size });
    const isManifest = isManifestType(descriptor.mediaType);
    // An index may hold documents of other kinds, which go along as they are; an image is none.
    if (!isIndex && !isManifest && depth === 0) {
      throw new ShimError(
        "MEDIA_TYPE_UNSUPPORTED",
        `Cannot read "${descriptor.digest}": media type is "${descriptor.mediaType}", must be an image index or an image manifest`,
      );
    }
    const document = await this.#read(descriptor);
    if (document === undefined) {
      this.absent.push(descriptor);
      return;
    }
    if (isIndex) {
      const index = parseImageIndex(document.bytes, descriptor);
      this.indexes.set(descriptor.digest, index);
      for (const entry of index.entries) await this.visit(entry, depth + 1);
    } else if (isManifest) {
      const manifest = parseImageManifest(document.bytes, descriptor);
      const blobs = [manifest.config, ...manifest.layers.map(toDescriptor)];
      this.manifests.push({ descriptor, manifest, blobs });
    }
    this.documents.push(descriptor);
  }
}

function requireWithin({ digest }: Descriptor, { depth, count }: { depth: number; count: number }): void {
  if (depth > MAX_DEPTH) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot read "${digest}": indexes are nested over ${MAX_DEPTH} deep`,
    );
  }
  if (count > MAX_DOCUMENTS + 1) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot read "${digest}": the image has over ${MAX_DOCUMENTS} documents`,
    );
  }
}

/** Each blob once: manifests share them. */
export function distinctBlobs(manifests: readonly ManifestNode[]): Descriptor[] {
  const blobs = new Map(manifests.flatMap((node) => node.blobs).map((blob) => [blob.digest, blob]));
  return [...blobs.values()];
}

/** The layers that have a role, for showing progress. Images of other kinds can be moved, too: they have none. */
export function roleLayersOf(manifests: readonly ManifestNode[]): RoleLayer[] {
  return manifests.flatMap(({ manifest }) => {
    try {
      return assignRoles(manifest).layers;
    } catch (error) {
      if (error instanceof ShimError) return [];
      throw error;
    }
  });
}
