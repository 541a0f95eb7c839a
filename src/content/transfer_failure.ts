import { randomBytes } from "node:crypto";
import { z } from "zod";
import { CODES, type ErrorCode, ShimError } from "../errors.ts";
import { type FileSystem, type OpenFile, READ_EXISTING, withOpenFile } from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import { readUpTo } from "./blob_file.ts";

/** More than any of our messages; a failure that is longer is not shared. */
const MAX_BYTES = 16 * 1024;

const failureJson = z.strictObject({
  /** Tells this failure from the one before: who began to wait before it happened has waited through it. */
  id: z.string(),
  source: z.string(),
  code: z.custom<ErrorCode>((code) => typeof code === "string" && Object.hasOwn(CODES, code)),
  message: z.string(),
  details: z.record(z.string(), z.unknown()),
});

/** Why the last holder of a blob's lock gave up for good: left in the lock file for those who wait for it. */
export type TransferFailure = z.infer<typeof failureJson>;

/**
 * The failure a lock file tells of; undefined for none, and for one that is being written or was torn: then whoever
 * reads tries for itself. Rejects with an errno error.
 */
export async function readTransferFailure(
  lockPath: string,
  fileSystem: FileSystem,
): Promise<TransferFailure | undefined> {
  try {
    return await withOpenFile(lockPath, { flags: READ_EXISTING, fileSystem }, parseFailure);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

export async function parseFailure(file: Pick<OpenFile, "read">): Promise<TransferFailure | undefined> {
  const bytes = await readUpTo(file, MAX_BYTES);
  if (bytes.length === 0) return undefined;
  try {
    return failureJson.parse(JSON.parse(new TextDecoder().decode(bytes)));
  } catch {
    return undefined;
  }
}

/**
 * Leaves word of a failure that will not pass by itself. Rejects with an errno error.
 *
 * @param source who gave the bytes: another source's failure says nothing to those who ask elsewhere
 */
export async function writeTransferFailure(
  lockFile: OpenFile,
  { source, error: { code, message, details } }: { readonly source: string; readonly error: ShimError },
): Promise<void> {
  const id = randomBytes(8).toString("hex");
  const bytes = new TextEncoder().encode(JSON.stringify({ id, source, code, message, details }));
  if (bytes.length > MAX_BYTES) return;
  await lockFile.truncate(0);
  await lockFile.write(bytes, 0);
}

/** What those who waited throw. */
export function toError({ code, message, details }: TransferFailure): ShimError {
  return new ShimError(code, message, { details });
}
