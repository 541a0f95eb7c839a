import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type { VerifiedDocument } from "../image/image_source.ts";
import { parseReference } from "../image/reference.ts";
import type { AgentContext } from "./agent_context.ts";
import { distinctBlobs, readImageTree } from "./image_tree.ts";
import { readCachedDocument } from "./images.ts";
import { type LazySource, withSource } from "./open_source.ts";
import type { OperationOptions } from "./progress.ts";
import { withLease } from "./with_lease.ts";

/**
 * Fetches again what images name of the lost blobs, from where each image came. An image whose source cannot give it
 * does not stop the others.
 *
 * @returns why a blob could not be had, for those that could not
 * @throws {ShimError} CANCELLED, NO_SPACE, BUSY, IO_ERROR
 */
export async function repairImages(
  context: AgentContext,
  lost: ReadonlySet<Digest>,
  options: OperationOptions,
): Promise<Map<Digest, string>> {
  const failures = new Map<Digest, string>();
  return await withLease(context, options, async (leased) => {
    for (const { name, descriptor } of await leased.content.references()) {
      const reference = parseReference(name);
      await withSource(leased, { reference, pull: "missing" }, async (source) => {
        const image = { root: descriptor, lost, failures };
        if (source) await repairImage(leased, image, { source, signal: options.signal });
      });
    }
    for (const digest of lost) {
      if ((await leased.audit.audit(digest, undefined)).state === "sound") failures.delete(digest);
    }
    return failures;
  });
}

type Image = {
  readonly root: Descriptor;
  readonly lost: ReadonlySet<Digest>;
  readonly failures: Map<Digest, string>;
};

async function repairImage(
  context: AgentContext,
  { root, lost, failures }: Image,
  { source, signal }: { readonly source: LazySource; readonly signal: AbortSignal | undefined },
): Promise<void> {
  const fetchDocument = async (descriptor: Descriptor): Promise<VerifiedDocument | undefined> => {
    const cached = await readCachedDocument(context, descriptor);
    if (cached || !lost.has(descriptor.digest)) return cached;
    return await attempt(descriptor.digest, failures, async () => {
      const document = await (await source()).fetchDocument(descriptor, { signal });
      await context.content.ingestBytes(document);
      return document;
    });
  };
  const tree = await attempt(root.digest, failures, () => readImageTree(root, fetchDocument));
  for (const blob of distinctBlobs(tree?.manifests ?? [])) {
    if (!lost.has(blob.digest) || await context.content.hasBlob(blob)) continue;
    await attempt(blob.digest, failures, async () => {
      const open = async (startByte: number) => (await source()).openBlob(blob, { startByte, signal });
      await context.content.ingest(blob, open, { signal });
    });
  }
}

/** Notes what the source's failure keeps from being repaired; what is wrong with this host ends all. */
async function attempt<T>(
  digest: Digest,
  failures: Map<Digest, string>,
  body: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await body();
  } catch (error) {
    const isOurs = error instanceof ShimError &&
      ["CANCELLED", "NO_SPACE", "BUSY", "IO_ERROR"].includes(error.code);
    if (!(error instanceof ShimError) || isOurs) throw error;
    failures.set(digest, error.message);
    return undefined;
  }
}
