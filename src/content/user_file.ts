import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { ShimError } from "../errors.ts";
import type { FileSystem, OpenFile } from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { digestOf } from "../image/digest.ts";
import { streamBlob } from "./blob_file.ts";

/** A user may well name a link; a FIFO must not hold us up. */
export const READ_USER_FILE = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

export type UserFileOptions = { readonly fileSystem: FileSystem };

/** What a file would be called as a blob. @throws {ShimError} REQUEST_INVALID when it is no readable regular file */
export async function describeFile(
  path: string,
  { mediaType, fileSystem }: UserFileOptions & { readonly mediaType: string },
): Promise<Descriptor> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const chunk of await openUserFile(path, { fileSystem })) {
    hash.update(chunk);
    sizeBytes += chunk.length;
  }
  return { mediaType, digest: digestOf("sha256", hash.digest("hex")), sizeBytes, annotations: {} };
}

/**
 * Its bytes, from `startByte` (default 0) to the end.
 *
 * @throws {ShimError} REQUEST_INVALID when it is no readable regular file; so does the stream
 */
export async function openUserFile(
  path: string,
  { startByte = 0, fileSystem }: UserFileOptions & { readonly startByte?: number },
): Promise<ReadableStream<Uint8Array>> {
  const translate = (error: unknown) => unreadable(path, error);
  let file: OpenFile;
  try {
    file = await fileSystem.open(path, READ_USER_FILE);
  } catch (error) {
    throw translate(error);
  }
  const { kind } = await file.status();
  if (kind !== "file") {
    await file.close();
    throw new ShimError("REQUEST_INVALID", `Cannot read "${path}": it is no regular file`);
  }
  return streamBlob(file, { startByte, maxBytes: Number.MAX_SAFE_INTEGER, beforeRead: () => {}, translate });
}

function unreadable(path: string, error: unknown): unknown {
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  return new ShimError("REQUEST_INVALID", `Cannot read "${path}": ${errno}`, { cause: error });
}
