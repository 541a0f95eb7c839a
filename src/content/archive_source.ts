import { resolve } from "node:path";
import type { z } from "zod";
import { ShimError } from "../errors.ts";
import { type FileSystem, nodeFileSystem, type OpenFile } from "../host/file_system.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { MAX_DOCUMENT_BYTES } from "../image/json_document.ts";
import { type ArchiveMember, indexArchive } from "./archive_index.ts";
import { blobMissing, readUpTo } from "./blob_file.ts";
import {
  type BlobFile,
  layoutFileInvalid,
  type LayoutFileName,
  type LayoutFiles,
} from "./layout_directory.ts";
import { parseLayoutJson } from "./layout_file.ts";
import { LayoutSource } from "./layout_source.ts";
import { READ_USER_FILE } from "./user_file.ts";

/**
 * Opens an image layout in a tar archive as a source of images: `oci-archive:FILE`. Nothing is unpacked: members are
 * found once, by their headers, and blobs are read where they lie. The file stays open until the source is closed.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND when there is no such file, or no image layout in it; REQUEST_INVALID when it is
 *   no regular file; otherwise as {@link indexArchive} and `LayoutSource.of`
 */
export async function openArchiveSource(
  path: string,
  options: { fileSystem?: FileSystem } = {},
): Promise<LayoutSource> {
  const { fileSystem = nodeFileSystem } = options;
  const absolute = resolve(path);
  return await withIoErrors({ action: "read image archive", path: absolute }, async () => {
    const file = await openArchive(absolute, fileSystem);
    let files: ArchiveFiles;
    try {
      files = await ArchiveFiles.of(file, absolute);
    } catch (error) {
      await file.close();
      throw error;
    }
    return await LayoutSource.of(files);
  });
}

async function openArchive(path: string, fileSystem: FileSystem): Promise<OpenFile> {
  try {
    return await fileSystem.open(path, READ_USER_FILE);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new ShimError("IMAGE_NOT_FOUND", `Cannot open image archive "${path}": there is no such file`, {
      cause: error,
    });
  }
}

class ArchiveFiles implements LayoutFiles {
  readonly #file: OpenFile;
  readonly #path: string;
  readonly #members: ReadonlyMap<string, ArchiveMember>;

  private constructor(file: OpenFile, path: string, members: ReadonlyMap<string, ArchiveMember>) {
    this.#file = file;
    this.#path = path;
    this.#members = members;
  }

  static async of(file: OpenFile, path: string): Promise<ArchiveFiles> {
    const { kind, sizeBytes } = await file.status();
    if (kind !== "file") {
      throw new ShimError("REQUEST_INVALID", `Cannot open image archive "${path}": it is no regular file`);
    }
    return new ArchiveFiles(file, path, await indexArchive(file, { sizeBytes, title: titleOf(path) }));
  }

  get title(): string {
    return titleOf(this.#path);
  }

  async readJson<T>(name: LayoutFileName, schema: z.ZodType<T>): Promise<T | undefined> {
    const member = this.#members.get(name);
    if (member === undefined) return undefined;
    const invalid = (why: string, cause?: unknown) => layoutFileInvalid(this.title, { name, why, cause });
    const { sizeBytes } = member;
    if (sizeBytes > MAX_DOCUMENT_BYTES) {
      throw invalid(`it has ${sizeBytes} bytes, limit is ${MAX_DOCUMENT_BYTES} bytes`);
    }
    const bytes = await withIoErrors(
      { action: "read image archive", path: this.#path },
      () => readUpTo(this.#part(member), sizeBytes),
    );
    return parseLayoutJson(bytes, { schema, invalid });
  }

  // deno-lint-ignore require-await
  async openBlob(digest: Digest): Promise<BlobFile> {
    const member = this.#members.get(`blobs/${digestAlgorithm(digest)}/${digestEncoded(digest)}`);
    if (member === undefined) throw blobMissing(digest, this.#path);
    return this.#part(member);
  }

  blobPath(): string {
    return this.#path;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** A member as a file of its own. The archive outlives it, so there is nothing to close. */
  #part({ startByte, sizeBytes }: ArchiveMember): BlobFile {
    return {
      read: async (buffer, offsetBytes) => {
        const lengthBytes = Math.max(0, Math.min(buffer.length, sizeBytes - offsetBytes));
        return await this.#file.read(buffer.subarray(0, lengthBytes), startByte + offsetBytes);
      },
      close: () => Promise.resolve(),
    };
  }
}

function titleOf(path: string): string {
  return `image archive "${path}"`;
}
