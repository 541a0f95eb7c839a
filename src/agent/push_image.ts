import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { parseImageIndex } from "../image/image_index.ts";
import { isIndexType } from "../image/media_type.ts";
import { formatReference, type Reference } from "../image/reference.ts";
import type { RegistryClient } from "../registry/registry_client.ts";
import type { AgentContext } from "./agent_context.ts";
import { blobsOf, requireCached } from "./images.ts";
import { withRegistry } from "./open_source.ts";
import type { OperationOptions } from "./progress.ts";

export type PushedImage = {
  readonly reference: string;
  readonly digest: Digest;
  readonly transferredBytes: number;
};

/**
 * Publishes a cached image under its own name: blobs, then manifests, then the index under the tag, so that nobody can
 * resolve a name to something incomplete. Blobs the registry has are not sent again.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND when the image, or a part of it, is not in the cache; REGISTRY_*
 */
export async function pushImage(
  context: AgentContext,
  reference: Reference,
  options: OperationOptions = {},
): Promise<PushedImage> {
  if (reference.transport !== "docker") {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot push "${formatReference(reference)}": must be a registry reference, HOST/REPOSITORY:TAG`,
    );
  }
  const root = await requireCached(context, reference);
  const manifests = await manifestsOf(context, root);
  const transferredBytes = await withRegistry(context, reference, async (client) => {
    return await publish(context, client, {
      root,
      manifests,
      name: reference.digest ?? reference.tag,
      options,
    });
  });
  return { reference: formatReference(reference), digest: root.digest, transferredBytes };
}

type Publication = {
  readonly root: Descriptor;
  readonly manifests: readonly Descriptor[];
  readonly name: string;
  readonly options: OperationOptions;
};

async function publish(
  context: AgentContext,
  client: RegistryClient,
  { root, manifests, name, options }: Publication,
): Promise<number> {
  let transferredBytes = 0;
  for (const manifest of manifests) {
    for (const blob of blobsOf((await context.content.readDocument(manifest)).bytes, manifest)) {
      transferredBytes += await pushBlob(context, client, blob, options);
    }
  }
  for (const manifest of manifests) {
    if (manifest.digest !== root.digest) {
      await client.pushDocument(await context.content.readDocument(manifest), manifest.digest, options);
    }
  }
  await client.pushDocument(await context.content.readDocument(root), name, options);
  return transferredBytes;
}

async function manifestsOf(context: AgentContext, root: Descriptor): Promise<readonly Descriptor[]> {
  if (!isIndexType(root.mediaType)) return [root];
  const index = parseImageIndex((await context.content.readDocument(root)).bytes, root);
  for (const entry of index.entries) await requireHeld(context, entry);
  return index.entries;
}

async function requireHeld(context: AgentContext, descriptor: Descriptor): Promise<void> {
  if (await context.content.hasBlob(descriptor)) return;
  throw new ShimError(
    "IMAGE_NOT_FOUND",
    `Cannot push "${descriptor.digest}": it is not in the cache, an image is pushed whole or not at all`,
    {
      details: {
        digest: descriptor.digest,
        remedy: "pull every platform of the image first (pull --arch, --variant)",
      },
    },
  );
}

async function pushBlob(
  context: AgentContext,
  client: RegistryClient,
  blob: Descriptor,
  options: OperationOptions,
): Promise<number> {
  await requireHeld(context, blob);
  if (await client.hasBlob(blob, options)) return 0;
  await client.pushBlob(blob, () => context.content.openBlob(blob), options);
  return blob.sizeBytes;
}
