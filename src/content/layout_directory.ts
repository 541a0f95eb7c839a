import { join } from "node:path";
import type { z } from "zod";
import { ShimError } from "../errors.ts";
import type { FileSystem, OpenFile } from "../host/file_system.ts";
import { withIoErrors } from "../host/io_error.ts";
import type { Digest } from "../image/digest.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import { openBlobFile } from "./blob_file.ts";
import { readLayoutFile } from "./layout_file.ts";
import { blobPathIn } from "./store_layout.ts";

/** The two files of an image layout that are no blobs. */
export type LayoutFileName = "oci-layout" | "index.json";

/** What is needed of an open blob. Whoever opened it closes it. */
export type BlobFile = Pick<OpenFile, "read" | "close">;

/** The files of somebody else's image layout, in a folder or in an archive. None of them is trusted. */
export interface LayoutFiles {
  /** Completes "Cannot open …": `image layout "/srv/images"`. */
  readonly title: string;
  /**
   * One of the two JSON files, undefined when there is none.
   *
   * @throws {ShimError} MANIFEST_INVALID when it is no such document or over 4 MiB; BUSY, IO_ERROR
   */
  readJson<T>(name: LayoutFileName, schema: z.ZodType<T>): Promise<T | undefined>;
  /** @throws {ShimError} IMAGE_NOT_FOUND when there is none; CONTENT_CORRUPT; errno errors pass */
  openBlob(digest: Digest): Promise<BlobFile>;
  /** Where a blob lies, for messages. */
  blobPath(digest: Digest): string;
  close(): Promise<void>;
}

/** What a layout's JSON file being broken is called. @param title as in {@link LayoutFiles} */
export function layoutFileInvalid(title: string, { name, why, cause }: {
  readonly name: LayoutFileName;
  readonly why: string;
  readonly cause?: unknown;
}): ShimError {
  return new ShimError("MANIFEST_INVALID", `Cannot read "${name}" of ${title}: ${why}`, { cause });
}

/** A folder. Every read looks again: somebody may be adding images to it. */
export class LayoutDirectory implements LayoutFiles {
  readonly #directory: string;
  readonly #fileSystem: FileSystem;

  /** @param directory absolute */
  constructor(directory: string, fileSystem: FileSystem) {
    this.#directory = directory;
    this.#fileSystem = fileSystem;
  }

  get title(): string {
    return `image layout "${this.#directory}"`;
  }

  async readJson<T>(name: LayoutFileName, schema: z.ZodType<T>): Promise<T | undefined> {
    const path = join(this.#directory, name);
    const invalid = (why: string, cause?: unknown) => layoutFileInvalid(this.title, { name, why, cause });
    const options = { schema, maxBytes: MAX_DOCUMENT_BYTES, invalid, fileSystem: this.#fileSystem };
    return await withIoErrors({ action: "read image layout", path }, () => readLayoutFile(path, options));
  }

  async openBlob(digest: Digest): Promise<BlobFile> {
    // Size and digest are checked on the bytes themselves; whose file it is does not matter in somebody
    // else's layout.
    const flawOf = () => undefined;
    return await openBlobFile(this.blobPath(digest), { digest, flawOf, fileSystem: this.#fileSystem });
  }

  blobPath(digest: Digest): string {
    return blobPathIn(join(this.#directory, "blobs"), digest);
  }

  async close(): Promise<void> {}
}
