import { ShimError, toShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type { UploadMemory } from "../image/image_source.ts";
import {
  formatReference,
  parseReference,
  type Reference,
  type RegistryReference,
} from "../image/reference.ts";
import { offersOf } from "../image/select_manifest.ts";
import type { RegistryClient } from "../registry/registry_client.ts";
import type { AgentContext } from "./agent_context.ts";
import { runAtMost } from "../host/at_most.ts";
import { UploadSessions } from "../content/upload_sessions.ts";
import { distinctBlobs, type ImageTree, readImageTree, roleLayersOf } from "./image_tree.ts";
import { readCachedDocument, requireCached } from "./images.ts";
import { withRegistry } from "./open_source.ts";
import { type OperationOptions, TransferProgress } from "./progress.ts";
import { withLease } from "./with_lease.ts";

export type PushOptions = OperationOptions & {
  /** Also publish each manifest under tags of its own: `TAG-ARCH` and `TAG-VARIANT-ARCH`. */
  readonly hasSubManifests?: boolean | undefined;
};

export type PushedImage = {
  readonly reference: string;
  readonly digest: Digest;
  readonly transferredBytes: number;
  /** Bytes of blobs that the registry took over from another of its repositories. */
  readonly mountedBytes: number;
  /** Every tag that was set beside the reference's own, and what it stands for. */
  readonly tags: readonly { readonly tag: string; readonly digest: Digest }[];
};

/** Uploads at a time. */
const MAX_UPLOADS = 4;
/** Only so many cached images are looked through for a repository to mount from. */
const MAX_MOUNT_IMAGES = 200;

/**
 * Publishes a cached image under its own name: blobs, then manifests, then the index under the tag, so that nobody can
 * resolve a name to something incomplete. Blobs the registry has are not sent again, nor those it has in another
 * repository that the cache knows of.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND when the image, or a part of it, is not in the cache; REQUEST_INVALID when a tag
 *   of a manifest would be too long; REGISTRY_*
 */
export async function pushImage(
  context: AgentContext,
  reference: Reference,
  options: PushOptions = {},
): Promise<PushedImage> {
  if (reference.transport !== "docker") {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot push "${formatReference(reference)}": must be a registry reference, HOST/REPOSITORY:TAG`,
    );
  }
  return await withLease(context, options, (leased) => pushLeased(leased, reference, options));
}

async function pushLeased(
  context: AgentContext,
  reference: RegistryReference,
  options: PushOptions,
): Promise<PushedImage> {
  const root = await requireCached(context, reference);
  const tree = await readImageTree(root, (descriptor) => readCachedDocument(context, descriptor));
  await requireWhole(context, tree);
  const tags = options.hasSubManifests ? subManifestTags(tree, reference) : [];
  const sent = await withRegistry(context, reference, async (client) => {
    const push = { context, client, tree, reference, options };
    const sent = await pushBlobs(push);
    for (const document of tree.documents) {
      if (document.digest !== root.digest) await pushDocument(push, document, document.digest);
    }
    for (const { tag, descriptor } of tags) await pushDocument(push, descriptor, tag);
    await pushDocument(push, root, reference.digest ?? reference.tag);
    return sent;
  });
  return {
    reference: formatReference(reference),
    digest: root.digest,
    ...sent,
    tags: tags.map(({ tag, descriptor }) => ({ tag, digest: descriptor.digest })),
  };
}

/** An image is pushed whole or not at all. */
async function requireWhole(context: AgentContext, tree: ImageTree): Promise<void> {
  const unverifiable = [...tree.read.indexes.values()].flatMap((index) => index.unverifiable);
  const [foreign] = unverifiable;
  if (foreign) {
    throw new ShimError(
      "DIGEST_UNSUPPORTED",
      `Cannot push "${tree.root.digest}": its index lists ${unverifiable.length} entries whose digests nobody here can ` +
        `verify, the first is "${foreign.digest.slice(0, 100)}", must be sha256 or sha512`,
      { details: { remedy: "copy it with a tool that does not verify, or build an index without them" } },
    );
  }
  const missing: string[] = tree.absent.map((each) => each.digest);
  for (const blob of distinctBlobs(tree.manifests)) {
    if (!await context.content.hasBlob(blob)) missing.push(blob.digest);
  }
  if (missing.length === 0) return;
  throw new ShimError(
    "IMAGE_NOT_FOUND",
    `Cannot push "${tree.root.digest}": ${missing.length} of its parts are not in the cache, an image is pushed whole or not at all`,
    { details: { missing, remedy: "pull every platform of the image first (pull --arch, --variant)" } },
  );
}

type Push = {
  readonly context: AgentContext;
  readonly client: RegistryClient;
  readonly tree: ImageTree;
  readonly reference: RegistryReference;
  readonly options: PushOptions;
};

async function pushBlobs(push: Push): Promise<{ transferredBytes: number; mountedBytes: number }> {
  const { context, client, tree, options: { signal, onProgress } } = push;
  const missing: Descriptor[] = [];
  await runAtMost(MAX_UPLOADS, distinctBlobs(tree.manifests), { signal }, async (blob, options) => {
    if (!await client.hasBlob(blob, options)) missing.push(blob);
  });
  const sent = { transferredBytes: 0, mountedBytes: 0 };
  if (missing.length === 0) return sent;
  const repositories = await repositoriesOf(push, new Set(missing.map((blob) => blob.digest)));
  const progress = new TransferProgress({
    phase: "pushing",
    blobs: missing,
    layers: roleLayersOf(tree.manifests),
    listener: onProgress,
  });
  const sessions = new UploadSessions(context);
  await withoutFailing(push, () => sessions.sweep(Date.now()));
  await runAtMost(MAX_UPLOADS, missing, { signal }, async (blob, options) => {
    const transfer = await client.pushBlob(
      blob,
      (startByte) => context.content.openBlob(blob, { startByte }),
      {
        ...options,
        mountFrom: repositories.get(blob.digest),
        memory: memoryOf(push, sessions, blob),
        onProgress: (doneBytes) => progress.advance(blob.digest, doneBytes),
      },
    );
    progress.advance(blob.digest, blob.sizeBytes);
    sent[transfer === "mounted" ? "mountedBytes" : "transferredBytes"] += blob.sizeBytes;
  });
  return sent;
}

/** What is remembered only saves an upload, so what is wrong with it stops nothing. */
function memoryOf(push: Push, sessions: UploadSessions, { digest }: Descriptor): UploadMemory {
  const { host, repository } = push.reference;
  const memory = sessions.memoryOf({ repository: `${host}/${repository}`, digest });
  return {
    recall: () => withoutFailing(push, memory.recall),
    keep: async (session) => await withoutFailing(push, () => memory.keep(session)),
    forget: async () => await withoutFailing(push, memory.forget),
  };
}

async function withoutFailing<T>({ context }: Push, body: () => Promise<T>): Promise<T | undefined> {
  try {
    return await body();
  } catch (error) {
    context.note(`an upload that is broken off would begin anew: ${toShimError(error).message}`);
    return undefined;
  }
}

async function pushDocument(
  { context, client, options: { signal } }: Push,
  descriptor: Descriptor,
  tagOrDigest: string,
): Promise<void> {
  await client.pushDocument(await context.content.readDocument(descriptor), tagOrDigest, { signal });
}

/** By blob, another repository of the same registry that may hold it: one whose image in the cache does. */
async function repositoriesOf(
  { context, reference }: Push,
  wanted: ReadonlySet<Digest>,
): Promise<ReadonlyMap<Digest, string>> {
  const repositories = new Map<Digest, string>();
  let looked = 0;
  for (const { name, descriptor } of await context.content.references()) {
    const other = parseReference(name);
    const isNeighbour = other.transport === "docker" && other.host === reference.host &&
      other.repository !== reference.repository;
    if (!isNeighbour || ++looked > MAX_MOUNT_IMAGES) continue;
    for (const blob of await blobsOfNeighbour(context, descriptor)) {
      if (wanted.has(blob.digest) && !repositories.has(blob.digest)) {
        repositories.set(blob.digest, other.repository);
      }
    }
  }
  return repositories;
}

async function blobsOfNeighbour(context: AgentContext, root: Descriptor): Promise<readonly Descriptor[]> {
  try {
    return distinctBlobs((await readImageTree(root, (each) => readCachedDocument(context, each))).manifests);
  } catch (error) {
    // It only would have saved an upload: what is wrong with another image is no concern of this one.
    if (error instanceof ShimError) return [];
    throw error;
  }
}

/**
 * The further tags of an index's manifests. Where several claim `TAG-ARCH`, the one for virtual machines gets it, as
 * does the first of equals.
 */
function subManifestTags(
  tree: ImageTree,
  reference: RegistryReference,
): readonly { tag: string; descriptor: Descriptor }[] {
  if (tree.index === null) return [];
  const tags = new Map<string, Descriptor>();
  const offers = offersOf(tree.index, tree.read);
  const ordered = offers.toSorted((a, b) =>
    Number(b.variant === "virtualization") - Number(a.variant === "virtualization")
  );
  for (const { architecture, variant, descriptor } of ordered) {
    if (architecture === undefined) continue;
    const names = [`${reference.tag}-${architecture}`];
    if (variant !== undefined && variant !== "other") {
      names.push(`${reference.tag}-${variant}-${architecture}`);
    }
    for (const tag of names) if (!tags.has(tag)) tags.set(tag, descriptor);
  }
  const MAX_TAG_LENGTH = 128;
  for (const tag of tags.keys()) {
    if (reference.digest === undefined && tag.length <= MAX_TAG_LENGTH) continue;
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot push manifests of "${formatReference(reference)}" under tags of their own: ${
        reference.digest
          ? "the reference has a digest, must have a tag"
          : `"${tag}" is over ${MAX_TAG_LENGTH} characters`
      }`,
    );
  }
  return [...tags].map(([tag, descriptor]) => ({ tag, descriptor }));
}
