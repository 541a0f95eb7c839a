import { createHash } from "node:crypto";
import { ShimError } from "../errors.ts";
import { effectiveUserId, type FileSystem } from "../host/file_system.ts";
import { readAhead } from "../host/read_ahead.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import { blobCorrupt, blobMissing, readBlobDocument } from "./blob_file.ts";
import { type Links, linksIn, NO_LINKS } from "./document_links.ts";
import { blobPathIn, type StorePaths } from "./store_layout.ts";

/** Where collection begins to look for what is needed. */
export type Root = {
  readonly digest: Digest;
  /** Whether it must be there: without it nobody knows what else is needed. */
  readonly isRequired: boolean;
};

/**
 * Finds out which blobs roots lead to. Generous on purpose, because a blob that is kept in vain costs space, and one
 * that is removed in vain costs a machine: every descriptor in a document counts, wherever it stands in it and whether
 * or not our own reader would take the document; sizes are not compared. But what cannot be read, or is not what
 * its name says, ends the search.
 */
export class Reachability {
  readonly #paths: StorePaths;
  readonly #fileSystem: FileSystem;
  /** Of documents that were asked for; undefined for one that is not there. */
  readonly #links = new Map<Digest, Promise<Links | undefined>>();
  /** Counts as not named by anything; what is below it is needed only when something else needs it. */
  readonly #cut: Digest | undefined;

  constructor(
    paths: StorePaths,
    { fileSystem, cut }: { readonly fileSystem: FileSystem; readonly cut?: Digest },
  ) {
    this.#paths = paths;
    this.#fileSystem = fileSystem;
    this.#cut = cut;
  }

  /**
   * Reads what these and all below them lead to, level by level, so that a disk is asked for a level at once. A hint: what
   * cannot be read is for who looks from there.
   */
  async bringIn(digests: Iterable<Digest>): Promise<void> {
    const seen = new Set<Digest>();
    for (let level = new Set(digests); level.size > 0;) {
      await readAhead([...level].map((digest) => blobPathIn(this.#paths.blobs, digest)));
      const below = new Set<Digest>();
      for (const digest of level) {
        seen.add(digest);
        const { documents } = await this.#linksOf(digest).catch(() => undefined) ?? NO_LINKS;
        for (const document of documents) {
          if (!seen.has(document) && !level.has(document)) below.add(document);
        }
      }
      level = below;
    }
  }

  /**
   * All that a root leads to, itself included. Documents are read once however many roots lead to them.
   *
   * @throws {ShimError} CACHE_LAYOUT_INVALID when a required root is not there; CONTENT_CORRUPT; errno errors pass
   */
  async from({ digest, isRequired }: Root): Promise<{ all: Set<Digest>; documents: Set<Digest> }> {
    const all = new Set<Digest>();
    const documents = new Set<Digest>();
    const visit = async (each: Digest): Promise<void> => {
      if (each === this.#cut || documents.has(each)) return;
      documents.add(each);
      all.add(each);
      const links = await this.#linksOf(each);
      if (!links && isRequired && each === digest) throw this.#requiredMissing(each);
      if (!links) return;
      for (const blob of links.blobs) if (blob !== this.#cut) all.add(blob);
      // One by one: an index may list a thousand, and many roots are looked at side by side.
      for (const document of links.documents) await visit(document);
    };
    await visit(digest);
    return { all, documents };
  }

  #requiredMissing(digest: Digest): ShimError {
    const path = blobPathIn(this.#paths.blobs, digest);
    return new ShimError(
      "CACHE_LAYOUT_INVALID",
      `Cannot tell what is needed: "${digest}" is in use, and not in the cache`,
      {
        cause: blobMissing(digest, path),
        details: { remedy: "run: bootshim check --repair", digest, path },
      },
    );
  }

  #linksOf(digest: Digest): Promise<Links | undefined> {
    const known = this.#links.get(digest);
    if (known) return known;
    const links = this.#readLinks(digest);
    this.#links.set(digest, links);
    return links;
  }

  /** What is too large for a document names nothing. */
  async #readLinks(digest: Digest): Promise<Links | undefined> {
    const path = blobPathIn(this.#paths.blobs, digest);
    const flawOf = ({ ownerId }: { readonly ownerId: number }) =>
      ownerId === effectiveUserId() ? undefined : `it is owned by user ${ownerId}`;
    const options = { digest, flawOf, fileSystem: this.#fileSystem, maxBytes: MAX_DOCUMENT_BYTES };
    let bytes: Uint8Array | undefined;
    try {
      bytes = await readBlobDocument(path, options);
    } catch (error) {
      if (error instanceof ShimError && error.code === "IMAGE_NOT_FOUND") return undefined;
      throw error;
    }
    if (!bytes) return NO_LINKS;
    const actual = createHash(digestAlgorithm(digest)).update(bytes).digest("hex");
    if (actual === digestEncoded(digest)) return linksIn(bytes);
    throw blobCorrupt(digest, { path, why: "its bytes are not what its name says" });
  }
}
