import { resolve as resolvePath } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import { type FileSystem, nodeFileSystem } from "../host/file_system.ts";
import { toIoError, withIoErrors } from "../host/io_error.ts";
import { type Descriptor, descriptorJson, requireAtMost, toDescriptor } from "../image/descriptor.ts";
import { type Digest, parseDigest } from "../image/digest.ts";
import type { FetchOptions, ImageSource, OpenBlobOptions, VerifiedDocument } from "../image/image_source.ts";
import { describeIssues, MAX_DOCUMENT_BYTES, parseJsonDocument } from "../image/json_document.ts";
import { isIndexType, isManifestType, OCI_INDEX, OCI_MANIFEST } from "../image/media_type.ts";
import { isLayoutName } from "../image/reference.ts";
import { verifyBytes } from "../image/verification.ts";
import { readUpTo, streamBlob } from "./blob_file.ts";
import { LayoutDirectory, layoutFileInvalid, type LayoutFiles } from "./layout_directory.ts";
import { layoutIndexJson, REF_NAME } from "./index_entry.ts";

const ociLayoutJson = z.object({ imageLayoutVersion: z.literal("1.0.0") });
const annotatedJson = z.object({ annotations: z.record(z.string(), z.unknown()).nullish() });
/** Enough of any manifest or index to tell which of the two it is. */
const documentJson = z.looseObject({
  mediaType: z.string().optional(),
  manifests: z.array(z.unknown()).optional(),
});

/** An image that a layout offers, and what the layout calls it. */
export type LayoutEntry = { readonly descriptor: Descriptor; readonly name: string | undefined };

/**
 * An image layout that somebody else wrote, as a source of images: `oci:DIR[:TAG|@DIGEST]`, and by
 * `archive_source.ts` also `oci-archive:FILE[:TAG|@DIGEST]`. Read-only, needs no lock. Whoever opened it closes it.
 *
 * Nothing in it is trusted: paths are made of checked digests only, blobs are regular files and never links,
 * and documents are verified before anyone sees them.
 *
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
 */
export class LayoutSource implements ImageSource {
  readonly #files: LayoutFiles;

  private constructor(files: LayoutFiles) {
    this.#files = files;
  }

  /**
   * @throws {ShimError} IMAGE_NOT_FOUND when the directory is missing or is no image layout; MANIFEST_INVALID
   *   when its `oci-layout` is of another version; BUSY, IO_ERROR
   */
  static async open(directory: string, options: { fileSystem?: FileSystem } = {}): Promise<LayoutSource> {
    const { fileSystem = nodeFileSystem } = options;
    return await LayoutSource.of(new LayoutDirectory(resolvePath(directory), fileSystem));
  }

  /** Takes `files` over: on failure they are closed, otherwise by {@link close}. Throws as {@link open}. */
  static async of(files: LayoutFiles): Promise<LayoutSource> {
    try {
      if (await files.readJson("oci-layout", ociLayoutJson) !== undefined) return new LayoutSource(files);
      throw new ShimError("IMAGE_NOT_FOUND", `Cannot open ${files.title}: it has no file "oci-layout"`, {
        details: { remedy: 'name what holds "oci-layout" and "index.json"' },
      });
    } catch (error) {
      await files.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#files.close();
  }

  /**
   * Every image on offer, in the order of `index.json`.
   *
   * @throws {ShimError} MANIFEST_INVALID, DIGEST_UNSUPPORTED; BUSY, IO_ERROR
   */
  async entries(): Promise<LayoutEntry[]> {
    return (await this.#entries()).map((entry) => ({
      descriptor: this.#toDescriptor(entry),
      name: nameOf(entry),
    }));
  }

  /**
   * A name is a tag or, as the cache itself writes them, a whole reference. It is matched exactly against the
   * entries' `org.opencontainers.image.ref.name`; the first match counts, as it does for skopeo. `latest` is
   * also what a reference without a tag asks for: when nothing is so named, it stands for the only entry of a
   * layout that has one. A digest need not be listed in `index.json`.
   *
   * @throws {ShimError} IMAGE_NOT_FOUND; MANIFEST_INVALID, DIGEST_UNSUPPORTED; MANIFEST_TOO_LARGE;
   *   CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH, CONTENT_CORRUPT; BUSY, IO_ERROR
   */
  async resolve(tagOrDigest: string | Digest, options: FetchOptions = {}): Promise<VerifiedDocument> {
    const entries = await this.#entries();
    if (!tagOrDigest.includes(":") || isLayoutName(tagOrDigest)) {
      return await this.fetchDocument(this.#findTag(entries, tagOrDigest), options);
    }
    const digest = parseDigest(tagOrDigest);
    const entry = entries.find((candidate) => candidate["digest"] === digest);
    if (entry !== undefined) return await this.fetchDocument(this.#toDescriptor(entry), options);
    return await this.#resolveUnlisted(digest);
  }

  /**
   * @throws {ShimError} MANIFEST_TOO_LARGE; IMAGE_NOT_FOUND; CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH,
   *   CONTENT_CORRUPT; CANCELLED; BUSY, IO_ERROR
   */
  async fetchDocument(descriptor: Descriptor, options: FetchOptions = {}): Promise<VerifiedDocument> {
    if (descriptor.sizeBytes > MAX_DOCUMENT_BYTES) throw tooLarge(descriptor.digest, descriptor.sizeBytes);
    return { descriptor, bytes: await this.#readVerified(descriptor, options) };
  }

  /** @throws {ShimError} LIMIT_EXCEEDED; otherwise as {@link fetchDocument} */
  async fetchSmallBlob(descriptor: Descriptor, options: FetchOptions = {}): Promise<Uint8Array> {
    requireAtMost(descriptor, MAX_DOCUMENT_BYTES, "blob");
    return await this.#readVerified(descriptor, options);
  }

  /**
   * The stream must be read to its end or cancelled: it holds an open file. It fails with IO_ERROR,
   * CANCELLED.
   *
   * @throws {ShimError} IMAGE_NOT_FOUND, CONTENT_CORRUPT, CANCELLED, BUSY, IO_ERROR
   */
  async openBlob(descriptor: Descriptor, options: OpenBlobOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { digest, sizeBytes } = descriptor;
    const { startByte = 0 } = options;
    const context = this.#context(digest);
    const beforeRead = () => throwIfAborted(digest, options.signal);
    const translate = (error: unknown) => toIoError(error, context);
    return await withIoErrors(context, async () => {
      beforeRead();
      return streamBlob(await this.#files.openBlob(digest), {
        startByte,
        maxBytes: sizeBytes + 1 - startByte,
        beforeRead,
        translate,
      });
    });
  }

  /** @throws {ShimError} IMAGE_NOT_FOUND, CONTENT_CORRUPT, CANCELLED, BUSY, IO_ERROR */
  async readHead(
    descriptor: Descriptor,
    lengthBytes: number,
    options: FetchOptions = {},
  ): Promise<Uint8Array> {
    throwIfAborted(descriptor.digest, options.signal);
    return await this.#read(descriptor.digest, Math.min(lengthBytes, descriptor.sizeBytes));
  }

  async #readVerified(descriptor: Descriptor, { signal }: FetchOptions): Promise<Uint8Array> {
    throwIfAborted(descriptor.digest, signal);
    const bytes = await this.#read(descriptor.digest, descriptor.sizeBytes + 1);
    verifyBytes(descriptor, bytes);
    return bytes;
  }

  /**
   * Size and media type of a document that no entry describes come from the document, after its digest was
   * checked.
   */
  async #resolveUnlisted(digest: Digest): Promise<VerifiedDocument> {
    const bytes = await this.#read(digest, MAX_DOCUMENT_BYTES + 1);
    if (bytes.length > MAX_DOCUMENT_BYTES) throw tooLarge(digest, bytes.length);
    verifyBytes({ digest, sizeBytes: bytes.length }, bytes);
    const { mediaType, manifests } = parseJsonDocument(bytes, documentJson, `document "${digest}"`);
    const stated = mediaType ?? (manifests ? OCI_INDEX : OCI_MANIFEST);
    if (!isIndexType(stated) && !isManifestType(stated)) {
      throw new ShimError(
        "MANIFEST_INVALID",
        `Cannot resolve "${digest}": it is of media type ${
          JSON.stringify(stated.slice(0, 100))
        }, must be an image index or manifest`,
      );
    }
    return { descriptor: { mediaType: stated, digest, sizeBytes: bytes.length, annotations: {} }, bytes };
  }

  #findTag(entries: readonly Record<string, unknown>[], tag: string): Descriptor {
    const named = entries.find((entry) => nameOf(entry) === tag);
    const entry = named ?? (tag === "latest" && entries.length === 1 ? entries[0] : undefined);
    if (entry) return this.#toDescriptor(entry);
    const offered = entries.map(nameOf).filter((name) => name !== undefined);
    throw new ShimError(
      "IMAGE_NOT_FOUND",
      `Cannot resolve ${
        JSON.stringify(tag)
      } in ${this.#files.title}: none of its ${entries.length} entries has that name`,
      {
        details: { remedy: "name one of those offered, or a digest", offered: offered.slice(0, 20) },
      },
    );
  }

  #toDescriptor(entry: Record<string, unknown>): Descriptor {
    const result = descriptorJson.safeParse(entry);
    if (result.success) return toDescriptor(result.data);
    throw this.#invalid(`the entry is no descriptor, ${describeIssues(result.error)}`);
  }

  async #entries(): Promise<readonly Record<string, unknown>[]> {
    const index = await this.#files.readJson("index.json", layoutIndexJson);
    if (index === undefined) throw this.#invalid("it is missing, must be an image index");
    return index.manifests;
  }

  async #read(digest: Digest, maxBytes: number): Promise<Uint8Array> {
    return await withIoErrors(this.#context(digest), async () => {
      const file = await this.#files.openBlob(digest);
      try {
        return await readUpTo(file, maxBytes);
      } finally {
        await file.close();
      }
    });
  }

  #invalid(why: string): ShimError {
    return layoutFileInvalid(this.#files.title, { name: "index.json", why });
  }

  #context(digest: Digest) {
    return { action: `read blob "${digest}"`, path: this.#files.blobPath(digest) };
  }
}

function nameOf(entry: Record<string, unknown>): string | undefined {
  const name = annotatedJson.safeParse(entry).data?.annotations?.[REF_NAME];
  return typeof name === "string" ? name : undefined;
}

function tooLarge(digest: Digest, sizeBytes: number): ShimError {
  return new ShimError(
    "MANIFEST_TOO_LARGE",
    `Cannot fetch "${digest}": it has ${sizeBytes} bytes or more, limit is ${MAX_DOCUMENT_BYTES} bytes`,
  );
}

function throwIfAborted(digest: Digest, signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new ShimError("CANCELLED", `Cannot fetch "${digest}": cancelled`, { cause: signal.reason });
  }
}
