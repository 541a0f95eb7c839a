import { z } from "zod";
import { ShimError } from "../errors.ts";
import { type DirectorySync, writeDurably } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import type { Digest } from "../image/digest.ts";
import { readLayoutFile } from "./layout_file.ts";
import { PRIVATE_FILE } from "./store_layout.ts";

/** A name in a tar may be as long as its writer likes. */
const MAX_NAME_LENGTH = 1000;
const MAX_RECORD_BYTES = 64 * 1024;

const derivedRecordJson = z.object({
  schemaVersion: z.literal(1),
  source: z.string(),
  steps: z.array(z.enum(["gzip", "zstd", "tar"])).min(1),
  memberName: z.string().nullable(),
  sizeBytes: z.int().min(0),
  sha256: z.string().regex(/^[a-f0-9]{64}$/),
});

/**
 * What an unpacked disk is and where it came from. Written when the disk is complete and durable, so a disk without one
 * does not count.
 */
export type DerivedRecord = z.infer<typeof derivedRecordJson>;

/** @returns undefined when there is none, or what is there is no record of this source: then the disk is made again */
export async function readDerivedRecord(
  path: string,
  { source, fileSystem }: { readonly source: Digest; readonly fileSystem: FileSystem },
): Promise<DerivedRecord | undefined> {
  const invalid = (why: string) => new ShimError("CONTENT_CORRUPT", `Cannot use record "${path}": ${why}`);
  try {
    const record = await readLayoutFile(path, {
      schema: derivedRecordJson,
      maxBytes: MAX_RECORD_BYTES,
      invalid,
      fileSystem,
    });
    return record?.source === source ? record : undefined;
  } catch (error) {
    if (error instanceof ShimError && error.code === "CONTENT_CORRUPT") return undefined;
    throw error;
  }
}

/** Whoever writes it holds the lock of its disk. Rejects with an errno error. */
export async function writeDerivedRecord(
  path: string,
  { record, fileSystem }: { readonly record: DerivedRecord; readonly fileSystem: FileSystem },
): Promise<DirectorySync> {
  const memberName = record.memberName?.slice(0, MAX_NAME_LENGTH) ?? null;
  const bytes = new TextEncoder().encode(JSON.stringify({ ...record, memberName }));
  return await writeDurably(path, bytes, { ...PRIVATE_FILE, fileSystem, temporaryPath: `${path}.new` });
}
