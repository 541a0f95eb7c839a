import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import type { DiskPacking } from "../boot/disk_packing.ts";
import { ShimError } from "../errors.ts";
import { type Access, setAccess, unlinkIfThere } from "../host/durable.ts";
import { CREATE_NEW, type FileSystem, type OpenFile, withOpenFile } from "../host/file_system.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { digestEncoded } from "../image/digest.ts";
import { blobCorrupt } from "./blob_file.ts";
import type { ContentStore } from "./content_store.ts";
import { HOLE_BYTES, writeSparsely } from "../host/sparse_writer.ts";
import { openPackedDisk, type PackedDisk, type PackingStep } from "./unpack_disk.ts";
import { type UnpackLimits, UnpackMeter } from "./unpack_limits.ts";
import { verifiedChunks } from "./verified_chunks.ts";

/** Bytes collected before they are hashed and written, as ingest does: a whole number of holes. */
const BLOCK_BYTES = 256 * HOLE_BYTES;

export type UnpackLayerOptions = {
  readonly content: ContentStore;
  readonly ingestDirectory: string;
  /** Where the disk goes, on the file system of `ingestDirectory`. */
  readonly path: string;
  readonly access: Access;
  readonly limits: UnpackLimits;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
  readonly fileSystem: FileSystem;
};

/** What came of a layer. */
export type UnpackedLayer = {
  readonly steps: PackingStep[];
  readonly memberName: string | null;
  readonly sizeBytes: number;
  /** Of the disk's bytes. */
  readonly sha256: string;
};

/**
 * The write transaction: the disk lies whole and synced under its name, which the directory's next sync makes durable,
 * or nothing has changed there. Memory does not depend on its size, nor does space on its zeros.
 *
 * @throws {ShimError} as `DerivedDisks.unpackedDisk`; errno errors pass
 */
export async function unpackLayer(
  descriptor: Descriptor,
  packing: DiskPacking,
  options: UnpackLayerOptions,
): Promise<UnpackedLayer> {
  const { ingestDirectory, path, access, limits, signal, fileSystem } = options;
  const word = randomBytes(8).toString("hex");
  const temporaryPath = join(ingestDirectory, `derived-${digestEncoded(descriptor.digest)}.${word}`);
  const availableBytes = await fileSystem.availableBytes(ingestDirectory);
  const meter = new UnpackMeter({ limits, availableBytes, signal });
  try {
    const packed = await openPackedDisk(layerChunks(descriptor, { meter, ...options }), packing, {
      onDecoded: (bytes) => meter.decode(bytes.length),
    });
    try {
      const written = await withOpenFile(temporaryPath, { flags: CREATE_NEW, fileSystem }, async (file) => {
        const result = await writeDisk(file, packed, meter);
        await setAccess(file, access);
        await file.sync();
        return result;
      });
      await fileSystem.rename(temporaryPath, path);
      return { steps: [...packed.steps], memberName: packed.memberName, ...written };
    } finally {
      await packed.close();
    }
  } catch (error) {
    // The first failure is the one to tell. What even now stays behind is swept when the store is next opened.
    await unlinkIfThere(temporaryPath, fileSystem).catch(() => {});
    throw await blame(error, { descriptor, meter, content: options.content });
  }
}

type Layer = Pick<UnpackLayerOptions, "content" | "onProgress"> & { readonly meter: UnpackMeter };

/** The layer's bytes, hashed on the way: the blob may have changed on disk since it was stored. */
async function* layerChunks(
  descriptor: Descriptor,
  { content, meter, onProgress }: Layer,
): AsyncGenerator<Uint8Array> {
  let doneBytes = 0;
  for await (const chunk of verifiedChunks(descriptor, await content.openBlob(descriptor))) {
    doneBytes += chunk.length;
    meter.take(chunk.length);
    onProgress?.(doneBytes);
    yield chunk;
  }
}

/**
 * A layer that cannot be unpacked is its publisher's fault while the blob is what its name says, and this host's when
 * it no longer is: that one is made good by pulling again.
 */
async function blame(
  error: unknown,
  { descriptor, meter, content }: Layer & { readonly descriptor: Descriptor },
): Promise<unknown> {
  const { digest } = descriptor;
  const corrupt = (cause: unknown) =>
    blobCorrupt(digest, {
      path: content.blobPath(digest),
      why: "its bytes are not what its name says",
      cause,
    });
  if (isMismatch(error)) return corrupt(error);
  if (!(error instanceof ShimError && error.code === "FORMAT_MISMATCH")) return error;
  try {
    for await (const _ of layerChunks(descriptor, { content, meter })); // hashed to its end
    return error;
  } catch (reason) {
    return isMismatch(reason) ? corrupt(reason) : error;
  }
}

function isMismatch(error: unknown): boolean {
  return error instanceof ShimError &&
    (error.code === "CONTENT_DIGEST_MISMATCH" || error.code === "CONTENT_SIZE_MISMATCH");
}

async function writeDisk(
  file: OpenFile,
  { chunks }: PackedDisk,
  meter: UnpackMeter,
): Promise<Pick<UnpackedLayer, "sizeBytes" | "sha256">> {
  const hash = createHash("sha256");
  const metered: Pick<OpenFile, "write"> = {
    write: (bytes, offsetBytes) => {
      meter.write(bytes.length);
      return file.write(bytes, offsetBytes);
    },
  };
  let sizeBytes = 0;
  for await (const block of blocksOf(chunks)) {
    hash.update(block);
    await writeSparsely(metered, block, sizeBytes);
    sizeBytes += block.length;
  }
  await file.truncate(sizeBytes);
  return { sizeBytes, sha256: hash.digest("hex") };
}

/** The same bytes in blocks of one size, the last one smaller. The memory of one is used again for the next. */
async function* blocksOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const block = new Uint8Array(BLOCK_BYTES);
  let filled = 0;
  for await (const chunk of chunks) {
    for (let taken = 0; taken < chunk.length;) {
      const part = chunk.subarray(taken, taken + BLOCK_BYTES - filled);
      block.set(part, filled);
      filled += part.length;
      taken += part.length;
      if (filled < BLOCK_BYTES) continue;
      yield block;
      filled = 0;
    }
  }
  if (filled > 0) yield block.subarray(0, filled);
}
