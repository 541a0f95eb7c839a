import { type LayoutEntry, LayoutSource } from "../content/layout_source.ts";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, shortDigest } from "../image/digest.ts";
import type { FetchOptions, VerifiedDocument } from "../image/image_source.ts";
import { formatReference, type LayoutLocation, parseReference, type Reference } from "../image/reference.ts";
import type { AgentContext } from "./agent_context.ts";
import { distinctBlobs, type ImageTree, readImageTree, roleLayersOf } from "./image_tree.ts";
import { withLayout } from "./open_source.ts";
import { type OperationOptions, TransferProgress } from "./progress.ts";
import { withLease } from "./with_lease.ts";

export type ImportWish = {
  readonly source: LayoutLocation;
  /** What to call the only image of a layout; default: what the layout calls each of its images. */
  readonly name: Reference | undefined;
};

export type ImportedImages = {
  readonly images: readonly { readonly reference: string; readonly digest: Digest }[];
  /** Bytes that the cache did not have. */
  readonly transferredBytes: number;
};

/**
 * Takes every image of a layout, folder or archive, into the cache: all of them, or none gets a name. Every byte is
 * verified; what the cache has is not read again. An index may come without some of its manifests, a manifest not
 * without its blobs.
 *
 * @throws {ShimError} REQUEST_INVALID when an image has no canonical name and none is given; IMAGE_NOT_FOUND when the
 *   layout is not there or lacks something; MANIFEST_INVALID and its kin; CONTENT_SIZE_MISMATCH,
 *   CONTENT_DIGEST_MISMATCH; NO_SPACE, CANCELLED, IO_ERROR
 */
export async function importImages(
  context: AgentContext,
  wish: ImportWish,
  options: OperationOptions = {},
): Promise<ImportedImages> {
  return await withLease(context, options, (leased) => importLeased(leased, wish, options));
}

async function importLeased(
  context: AgentContext,
  wish: ImportWish,
  options: OperationOptions,
): Promise<ImportedImages> {
  return await withLayout(wish.source, async (source) => {
    const named = nameEntries(await source.entries(), wish);
    const trees: ImageTree[] = [];
    for (const { descriptor } of named.values()) {
      trees.push(await readImageTree(descriptor, (each) => fetchIfThere(source, each, options)));
    }
    for (const tree of trees) requireSome(tree);
    const transferredBytes = await ingestTrees(context, source, { trees, options });
    for (const [name, { descriptor }] of named) await setName(context, name, descriptor);
    return {
      images: [...named].map(([reference, { descriptor: { digest } }]) => ({ reference, digest })),
      transferredBytes,
    };
  });
}

/** The images by the names they will have. */
function nameEntries(
  entries: readonly LayoutEntry[],
  { name, source: { transport, path } }: ImportWish,
): Map<string, LayoutEntry> {
  const title = `"${transport}:${path}"`;
  if (entries.length === 0) {
    throw new ShimError("IMAGE_NOT_FOUND", `Cannot import ${title}: it lists no image`);
  }
  if (name && (name.digest || name.transport !== "docker")) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot import as "${formatReference(name)}": must be a name like HOST/REPOSITORY:TAG`,
    );
  }
  if (name && entries.length > 1) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot import ${title} as "${
        formatReference(name)
      }": it lists ${entries.length} images, must list one`,
      {
        details: {
          remedy: `pull one of them: bootshim pull ${transport}:${path}:NAME`,
          offered: namesOf(entries),
        },
      },
    );
  }
  const named = new Map<string, LayoutEntry>();
  for (const { descriptor: { mediaType, digest, sizeBytes }, name: word } of entries) {
    const key = formatReference(name ?? canonicalName(word, digest, title));
    const before = named.get(key);
    if (before && before.descriptor.digest !== digest) {
      throw new ShimError("MANIFEST_INVALID", `Cannot import ${title}: it calls two images "${key}"`);
    }
    // What somebody else notes beside an entry is not ours to keep.
    named.set(key, { descriptor: { mediaType, digest, sizeBytes, annotations: {} }, name: word });
  }
  return named;
}

function canonicalName(word: string | undefined, digest: Digest, title: string): Reference {
  const reference = word === undefined ? undefined : readName(word);
  if (reference?.digest && reference.digest !== digest) {
    throw new ShimError(
      "MANIFEST_INVALID",
      `Cannot import ${title}: the image it calls "${word}" is "${digest}"`,
    );
  }
  if (reference) return reference;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot import ${title}: image ${shortDigest(digest)} is called ${
      word === undefined ? "nothing" : JSON.stringify(word.slice(0, 200))
    }, must have a name like HOST/REPOSITORY:TAG`,
    { details: { remedy: "give it one with --tag NAME", digest } },
  );
}

function readName(word: string): Reference | undefined {
  try {
    const reference = parseReference(word);
    return reference.transport === "docker" ? reference : undefined;
  } catch (error) {
    // Most layouts call their images "1" or "latest".
    if (error instanceof ShimError && error.code === "REFERENCE_INVALID") return undefined;
    throw error;
  }
}

function namesOf(entries: readonly LayoutEntry[]): readonly string[] {
  return entries.map((entry) => entry.name ?? entry.descriptor.digest).slice(0, 20);
}

async function fetchIfThere(
  source: LayoutSource,
  descriptor: Descriptor,
  { signal }: FetchOptions,
): Promise<VerifiedDocument | undefined> {
  try {
    return await source.fetchDocument(descriptor, { signal });
  } catch (error) {
    if (error instanceof ShimError && error.code === "IMAGE_NOT_FOUND") return undefined;
    throw error;
  }
}

function requireSome({ root, manifests, absent }: ImageTree): void {
  if (manifests.length > 0) return;
  throw new ShimError(
    "IMAGE_NOT_FOUND",
    `Cannot import "${root.digest}": none of the ${absent.length} manifests that it lists is there`,
    { details: { digest: root.digest } },
  );
}

/** Children before parents; names come last of all. @returns bytes that the cache did not have */
async function ingestTrees(
  context: AgentContext,
  source: LayoutSource,
  { trees, options: { signal, onProgress } }: {
    readonly trees: readonly ImageTree[];
    readonly options: OperationOptions;
  },
): Promise<number> {
  const manifests = trees.flatMap((tree) => tree.manifests);
  const all = [...distinctBlobs(manifests), ...trees.flatMap((tree) => tree.documents)];
  const missing = new Map<Digest, Descriptor>();
  for (const each of all) if (!await context.content.hasBlob(each)) missing.set(each.digest, each);
  const blobs = [...missing.values()];
  const progress = new TransferProgress({
    phase: "importing",
    blobs,
    layers: roleLayersOf(manifests),
    listener: onProgress,
  });
  let transferredBytes = 0;
  for (const blob of blobs) {
    const { receivedBytes } = await context.content.ingest(
      blob,
      (startByte) => source.openBlob(blob, { startByte, signal }),
      { signal, onProgress: (doneBytes) => progress.advance(blob.digest, doneBytes) },
    );
    transferredBytes += receivedBytes;
  }
  return transferredBytes;
}

async function setName(context: AgentContext, name: string, descriptor: Descriptor): Promise<void> {
  const before = await context.content.findReference(name);
  if (before && before.descriptor.digest !== descriptor.digest) {
    context.note(
      `"${name}" stood for ${shortDigest(before.descriptor.digest)}, now it is ${
        shortDigest(descriptor.digest)
      }`,
    );
  }
  await context.content.setReference(name, descriptor);
}
