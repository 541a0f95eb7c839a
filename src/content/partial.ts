import { constants } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import { unlinkIfThere } from "../host/durable.ts";
import {
  CREATE_NEW,
  effectiveUserId,
  type FileSystem,
  type OpenFile,
  READ_EXISTING,
  withOpenFile,
} from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { readLayoutFile } from "./layout_file.ts";

/** Both files of a transfer that is under way or was interrupted. */
export type PartialPaths = { readonly data: string; readonly metadata: string };

/** What the transfer was for. Nothing here is believed of the bytes: they are hashed again. */
const partialJson = z.strictObject({
  schemaVersion: z.literal(1),
  digest: z.string(),
  sizeBytes: z.number(),
});
const MAX_METADATA_BYTES = 4096;
const PRIVATE_MODE = 0o600;

const NAME = /^((?:sha256|sha512)-[0-9a-f]+)\.(partial|json)$/;

/** The one place of a blob's transfer, whoever runs it: its lock says who that is. */
export function partialPaths(ingestDirectory: string, digest: Digest): PartialPaths {
  const key = `${digestAlgorithm(digest)}-${digestEncoded(digest)}`;
  return { data: join(ingestDirectory, `${key}.partial`), metadata: join(ingestDirectory, `${key}.json`) };
}

/** Which transfer (`ALG-ENC`) and which of its two files a name in `ingest/` belongs to; undefined for other names. */
export function partOfTransfer(name: string): { key: string; part: "data" | "metadata" } | undefined {
  const [, key, suffix] = NAME.exec(name) ?? [];
  return key === undefined ? undefined : { key, part: suffix === "partial" ? "data" : "metadata" };
}

/**
 * How many bytes of a blob an interrupted transfer has left, 0 when it left nothing that can be continued: no file of
 * ours alone, longer than the blob, or begun for another descriptor. Rejects with an errno error.
 */
export async function resumableBytes(
  paths: PartialPaths,
  descriptor: Descriptor,
  fileSystem: FileSystem,
): Promise<number> {
  try {
    const { kind, ownerId, mode, sizeBytes } = await fileSystem.lstat(paths.data);
    const isOurs = kind === "file" && ownerId === effectiveUserId() && (mode & 0o022) === 0;
    if (!isOurs || sizeBytes > descriptor.sizeBytes) return 0;
    const begun = await readMetadata(paths, fileSystem);
    return begun?.digest === descriptor.digest && begun.sizeBytes === descriptor.sizeBytes ? sizeBytes : 0;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return 0;
    throw error;
  }
}

/**
 * Opens what an interrupted transfer left, or begins anew, and closes it in every case. For who holds the blob's lock.
 *
 * @param body gets the open file and how many bytes it holds, 0 for a new one
 */
export async function withPartial<T>(
  paths: PartialPaths,
  { descriptor, fileSystem }: { readonly descriptor: Descriptor; readonly fileSystem: FileSystem },
  body: (file: OpenFile, presentBytes: number) => Promise<T>,
): Promise<T> {
  const presentBytes = await resumableBytes(paths, descriptor, fileSystem);
  if (presentBytes > 0) {
    await forceWritable(paths.data, fileSystem);
    const flags = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    return await withOpenFile(paths.data, { flags, fileSystem }, (file) => body(file, presentBytes));
  }
  await removePartial(paths, fileSystem);
  const { digest, sizeBytes } = descriptor;
  const metadata = new TextEncoder().encode(JSON.stringify({ schemaVersion: 1, digest, sizeBytes }));
  await withOpenFile(
    paths.metadata,
    { flags: CREATE_NEW, mode: PRIVATE_MODE, fileSystem },
    (file) => file.write(metadata, 0),
  );
  const flags = CREATE_NEW & ~constants.O_WRONLY | constants.O_RDWR;
  return await withOpenFile(paths.data, { flags, mode: PRIVATE_MODE, fileSystem }, (file) => body(file, 0));
}

/** Nothing there is success. Rejects with an errno error. */
export async function removePartial(paths: PartialPaths, fileSystem: FileSystem): Promise<void> {
  await unlinkIfThere(paths.data, fileSystem);
  await unlinkIfThere(paths.metadata, fileSystem);
}

/** Whether some descriptor could continue this transfer: both files are there, and fit together. Rejects with an errno error. */
export async function canBeContinued(
  paths: PartialPaths,
  digest: Digest,
  fileSystem: FileSystem,
): Promise<boolean> {
  try {
    const { sizeBytes } = await fileSystem.lstat(paths.data);
    const begun = await readMetadata(paths, fileSystem);
    return begun?.digest === digest && sizeBytes <= begun.sizeBytes;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}

async function readMetadata(
  paths: PartialPaths,
  fileSystem: FileSystem,
): Promise<z.infer<typeof partialJson> | undefined> {
  const invalid = (why: string) => new ShimError("CACHE_LAYOUT_INVALID", why);
  try {
    return await readLayoutFile(paths.metadata, {
      schema: partialJson,
      maxBytes: MAX_METADATA_BYTES,
      invalid,
      fileSystem,
    });
  } catch (error) {
    // Torn by a crash, or not ours.
    if (error instanceof ShimError) return undefined;
    throw error;
  }
}

/** A transfer that was killed just before its end has taken the right to write away already. */
async function forceWritable(path: string, fileSystem: FileSystem): Promise<void> {
  await withOpenFile(path, { flags: READ_EXISTING, fileSystem }, async (file) => {
    if ((await file.status()).mode !== PRIVATE_MODE) await file.chmod(PRIVATE_MODE);
  });
}
