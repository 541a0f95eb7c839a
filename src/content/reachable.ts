import { createHash } from "node:crypto";
import { ShimError } from "../errors.ts";
import { effectiveUserId, type FileSystem } from "../host/file_system.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import { blobCorrupt, readBlobDocument } from "./blob_file.ts";
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
  readonly #links = new Map<Digest, Promise<Links>>();
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
      const links = await this.#linksOf(each, isRequired && each === digest);
      for (const blob of links.blobs) if (blob !== this.#cut) all.add(blob);
      // One by one: an index may list a thousand, and many roots are looked at side by side.
      for (const document of links.documents) await visit(document);
    };
    await visit(digest);
    return { all, documents };
  }

  #linksOf(digest: Digest, isRequired: boolean): Promise<Links> {
    const known = this.#links.get(digest);
    if (known && !isRequired) return known;
    const links = this.#readLinks(digest, isRequired);
    this.#links.set(digest, links);
    return links;
  }

  async #readLinks(digest: Digest, isRequired: boolean): Promise<Links> {
    const bytes = await this.#readDocument(digest, isRequired);
    return bytes ? linksIn(bytes) : NO_LINKS;
  }

  /** Undefined when it is not there, or too large for a document. */
  async #readDocument(digest: Digest, isRequired: boolean): Promise<Uint8Array | undefined> {
    const path = blobPathIn(this.#paths.blobs, digest);
    const flawOf = ({ ownerId }: { readonly ownerId: number }) =>
      ownerId === effectiveUserId() ? undefined : `it is owned by user ${ownerId}`;
    try {
      const options = { digest, flawOf, fileSystem: this.#fileSystem, maxBytes: MAX_DOCUMENT_BYTES };
      const bytes = await readBlobDocument(path, options);
      if (!bytes) return undefined;
      const actual = createHash(digestAlgorithm(digest)).update(bytes).digest("hex");
      if (actual === digestEncoded(digest)) return bytes;
      throw blobCorrupt(digest, { path, why: "its bytes are not what its name says" });
    } catch (error) {
      if (!(error instanceof ShimError) || error.code !== "IMAGE_NOT_FOUND") throw error;
      if (!isRequired) return undefined;
      throw new ShimError(
        "CACHE_LAYOUT_INVALID",
        `Cannot tell what is needed: "${digest}" is in use, and not in the cache`,
        { cause: error, details: { remedy: "run: bootshim check --repair", digest, path } },
      );
    }
  }
}
