import { randomBytes } from "node:crypto";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import { syncDirectory, writeDurably } from "../host/durable.ts";
import { type FileSystem, nodeFileSystem } from "../host/file_system.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import { removeTree } from "../host/remove_tree.ts";
import { type Descriptor, fromDescriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm } from "../image/digest.ts";
import { formatImageIndex } from "../image/image_index.ts";
import { openBlobFile, streamBlob } from "./blob_file.ts";
import { ingestBlob } from "./ingest.ts";
import { readLayoutFile } from "./layout_file.ts";
import { layoutIndexJson, REF_NAME } from "./index_entry.ts";
import { blobPathIn } from "./store_layout.ts";
import { verifiedChunks } from "./verified_chunks.ts";

/** What is to become an image layout. */
export type LayoutContent = {
  /** What `index.json` lists, each under its `org.opencontainers.image.ref.name`. */
  readonly entries: readonly Descriptor[];
  /** All that the entries lead to, themselves included, each once. */
  readonly blobs: readonly Descriptor[];
  /** A blob's bytes. They are verified while they are written. */
  readonly open: (blob: Descriptor) => Promise<ReadableStream<Uint8Array>>;
};

export type WriteLayoutOptions = {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((digest: Digest, doneBytes: number) => void) | undefined;
  readonly fileSystem?: FileSystem;
};

/** The bytes of the file that says that a folder is an image layout. */
export const OCI_LAYOUT_BYTES: Uint8Array = new TextEncoder().encode('{"imageLayoutVersion":"1.0.0"}');
const ociLayoutJson = z.object({ imageLayoutVersion: z.literal("1.0.0") });

/** As skopeo's layouts: what the umask takes away is taken from the folder. */
const FILE_ACCESS = { mode: 0o644, groupId: null };
const FOLDER_MODE = 0o755;
const MAX_INDEX_BYTES = 64 * 1024 * 1024;

/**
 * Writes an image layout into a folder. A new one is built beside and renamed, so it is there whole or not at all. To
 * one that is there, blobs are added, and then `index.json` is replaced in one step, with entries of the same names
 * replaced and all others kept; somebody else who writes to it at the same time may lose an entry, as with every tool
 * that writes layouts.
 *
 * @throws {ShimError} CONFLICT when the folder holds something else; MANIFEST_INVALID when it is a broken layout;
 *   CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH when a blob is not what its descriptor says; NO_SPACE, CANCELLED,
 *   BUSY, IO_ERROR
 */
export async function writeLayout(
  path: string,
  content: LayoutContent,
  options: WriteLayoutOptions = {},
): Promise<void> {
  const directory = resolve(path);
  const { fileSystem = nodeFileSystem } = options;
  await withIoErrors({ action: "write image layout", path: directory }, async () => {
    const names = await namesIn(directory, fileSystem);
    if (names.length === 0) await makeLayout(directory, content, { ...options, fileSystem });
    else if (names.includes("oci-layout")) await addToLayout(directory, content, { ...options, fileSystem });
    else {
      throw new ShimError(
        "CONFLICT",
        `Cannot write image layout "${directory}": the folder holds other files, must be empty or an image layout`,
        { details: { remedy: "name another folder", path: directory } },
      );
    }
  });
}

async function namesIn(directory: string, fileSystem: FileSystem): Promise<string[]> {
  try {
    return await fileSystem.readdir(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

type Writing = WriteLayoutOptions & { readonly fileSystem: FileSystem };

async function makeLayout(directory: string, content: LayoutContent, options: Writing): Promise<void> {
  const { fileSystem } = options;
  const random = randomBytes(8).toString("hex");
  const beside = join(dirname(directory), `.${basename(directory)}.${random}`);
  try {
    await fileSystem.mkdir(beside, FOLDER_MODE);
    await writeBlobs(beside, content, options);
    const index = formatImageIndex({ entries: content.entries, annotations: {} });
    await writeDurably(join(beside, "index.json"), index, { ...FILE_ACCESS, fileSystem });
    await writeDurably(join(beside, "oci-layout"), OCI_LAYOUT_BYTES, { ...FILE_ACCESS, fileSystem });
    await fileSystem.rename(beside, directory);
  } catch (error) {
    // The first failure is the one to tell; a random name does no harm.
    await removeTree(beside, fileSystem).catch(() => {});
    throw error;
  }
  await syncDirectory(dirname(directory), fileSystem);
}

async function addToLayout(directory: string, content: LayoutContent, options: Writing): Promise<void> {
  const { fileSystem } = options;
  const read = async <T>(name: string, schema: z.ZodType<T>) => {
    const invalid = (why: string, cause?: unknown) =>
      new ShimError("MANIFEST_INVALID", `Cannot add to image layout "${directory}": "${name}", ${why}`, {
        cause,
      });
    const json = await readLayoutFile(join(directory, name), {
      schema,
      maxBytes: MAX_INDEX_BYTES,
      invalid,
      fileSystem,
    });
    if (json === undefined) throw invalid("it is missing");
    return json;
  };
  await read("oci-layout", ociLayoutJson);
  await read("index.json", layoutIndexJson);
  await writeBlobs(directory, content, options);
  // Read as late as can be: somebody may have added an image while blobs were written.
  const index = await read("index.json", layoutIndexJson);
  const ours = new Set(content.entries.map((entry) => entry.annotations[REF_NAME]));
  const manifests = [
    ...index.manifests.filter((entry) => !ours.has(refNameOf(entry))),
    ...content.entries.map(fromDescriptor),
  ];
  const bytes = new TextEncoder().encode(JSON.stringify({ ...index, manifests }));
  await writeDurably(join(directory, "index.json"), bytes, { ...FILE_ACCESS, fileSystem });
}

const annotatedJson = z.object({ annotations: z.object({ [REF_NAME]: z.string() }) });

function refNameOf(entry: Record<string, unknown>): string | undefined {
  return annotatedJson.safeParse(entry).data?.annotations[REF_NAME];
}

/** Blobs come into being whole: each is written in a folder of its own, and renamed. */
async function writeBlobs(directory: string, content: LayoutContent, options: Writing): Promise<void> {
  const { fileSystem, signal, onProgress } = options;
  const blobs = join(directory, "blobs");
  const ingestDirectory = join(directory, `.bootshim-${randomBytes(8).toString("hex")}`);
  const algorithms = new Set(content.blobs.map((blob) => digestAlgorithm(blob.digest)));
  const folders = [blobs, ...[...algorithms].map((algorithm) => join(blobs, algorithm))];
  for (const folder of folders) await ensureFolder(folder, fileSystem);
  await fileSystem.mkdir(ingestDirectory, 0o700);
  try {
    for (const blob of content.blobs) {
      if (await isIntact(blobPathIn(blobs, blob.digest), blob, options)) continue;
      await ingestBlob(blob, await content.open(blob), {
        ingestDirectory,
        blobDirectory: dirname(blobPathIn(blobs, blob.digest)),
        access: FILE_ACCESS,
        fileSystem,
        signal,
        onProgress: (doneBytes) => onProgress?.(blob.digest, doneBytes),
      });
    }
    for (const folder of folders) await syncDirectory(folder, fileSystem);
  } finally {
    await removeTree(ingestDirectory, fileSystem);
  }
  await syncDirectory(directory, fileSystem);
}

async function ensureFolder(path: string, fileSystem: FileSystem): Promise<void> {
  try {
    await fileSystem.mkdir(path, FOLDER_MODE);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw error;
  }
}

/** Whether a layout that is there has the blob already. A damaged one is replaced. */
async function isIntact(path: string, blob: Descriptor, { fileSystem, signal }: Writing): Promise<boolean> {
  const { digest } = blob;
  try {
    const file = await openBlobFile(path, { digest, flawOf: () => undefined, fileSystem });
    const stream = streamBlob(file, {
      maxBytes: blob.sizeBytes + 1,
      beforeRead: () => throwIfAborted(signal),
      translate: (error) => error,
    });
    for await (const _chunk of verifiedChunks(blob, stream));
    return true;
  } catch (error) {
    if (error instanceof ShimError && ABSENT_OR_DAMAGED.has(error.code)) return false;
    throw error;
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new ShimError("CANCELLED", "Cannot write image layout: cancelled", { cause: signal.reason });
  }
}

const ABSENT_OR_DAMAGED: ReadonlySet<string> = new Set([
  "IMAGE_NOT_FOUND",
  "CONTENT_CORRUPT",
  "CONTENT_SIZE_MISMATCH",
  "CONTENT_DIGEST_MISMATCH",
]);
