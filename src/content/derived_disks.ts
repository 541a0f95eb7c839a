import { dirname, join, resolve } from "node:path";
import type { ByteWindow } from "../boot/byte_window.ts";
import type { DiskPacking } from "../boot/disk_packing.ts";
import { ShimError } from "../errors.ts";
import { type Access, setAccess, statusIfThere, syncDirectory, unlinkIfThere } from "../host/durable.ts";
import {
  effectiveUserId,
  type FileStatus,
  type FileSystem,
  nodeFileSystem,
  type OpenFile,
} from "../host/file_system.ts";
import { withLock } from "../host/flock.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import { ensurePrivateDirectory } from "../host/private_directory.ts";
import { lockDirectoryOf } from "../host/root_directory.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { openBlobFile } from "./blob_file.ts";
import { filesByDigest } from "./cache_survey.ts";
import type { ContentStore } from "./content_store.ts";
import { type DerivedRecord, readDerivedRecord, writeDerivedRecord } from "./derived_record.ts";
import { hashFile, type HashOptions } from "./hash_file.ts";
import { LOCK_TIMEOUT_MS, type StorePaths, storePaths } from "./store_layout.ts";
import { unpackLayer } from "./unpack_layer.ts";
import { UNPACK_LIMITS, type UnpackLimits } from "./unpack_limits.ts";

export type DerivedDisksOptions = {
  /** The content store's own root. */
  readonly rootDirectory: string;
  /** Whose members may read the disks, as in the content store. */
  readonly groupId: number | null;
  /** Where the packed layers are. */
  readonly content: ContentStore;
  readonly fileSystem?: FileSystem;
};

export type UnpackDiskOptions = {
  readonly signal?: AbortSignal | undefined;
  /** Told how many of the layer's own, packed bytes have been read so far. Silent when there is nothing to unpack. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
  readonly limits?: Partial<UnpackLimits> | undefined;
};

/** What became of an unpacked disk that was hashed: a wrong one is gone now. */
export type CheckedDisk =
  | { readonly isSound: true; readonly sizeBytes: number }
  | { readonly isSound: false; readonly why: string };

/** A raw disk that was unpacked from a layer. */
export type UnpackedDisk = { readonly path: string; readonly sizeBytes: number };

/**
 * The disks that were unpacked from packed layers: `ROOT/derived/ALGORITHM/ENCODED.raw`, each with a record beside it,
 * under the digest of the layer, whose blob stays as it is. What is here can be made again at any time.
 *
 * A disk counts when its record is there, which is written last; both are made by one process at a time, whichever
 * comes first, and the next one takes over when that one dies.
 */
export class DerivedDisks {
  readonly #paths: StorePaths;
  readonly #access: Access;
  readonly #content: ContentStore;
  readonly #fileSystem: FileSystem;

  constructor({ rootDirectory, groupId, content, fileSystem = nodeFileSystem }: DerivedDisksOptions) {
    this.#paths = storePaths(resolve(rootDirectory));
    this.#access = { mode: groupId === null ? 0o400 : 0o440, groupId };
    this.#content = content;
    this.#fileSystem = fileSystem;
  }

  /** Where a layer's disk lies or would lie, absolute. Says nothing about whether it is there: see {@link find}. */
  pathOf(digest: Digest): string {
    return this.#pathsOf(digest).disk;
  }

  /**
   * The disk unpacked from a layer, if it is there and usable: complete, a regular file of ours with the right size,
   * writable by nobody else. Its bytes are not hashed. To be asked on every use; group and bits are put right.
   *
   * @returns undefined when there is none, or it is damaged: then {@link unpackedDisk} replaces it
   * @throws {ShimError} BUSY, IO_ERROR
   */
  async find({ digest }: Descriptor): Promise<UnpackedDisk | undefined> {
    const { disk: path, record: recordPath } = this.#pathsOf(digest);
    const fileSystem = this.#fileSystem;
    return await withIoErrors({ action: `look for the disk of layer "${digest}"`, path }, async () => {
      const record = await readDerivedRecord(recordPath, { source: digest, fileSystem });
      if (!record || !await this.#isUsable(digest, record)) return undefined;
      // Whoever made it may not have come to this step yet.
      await syncDirectory(dirname(path), fileSystem);
      return { path, sizeBytes: record.sizeBytes };
    });
  }

  /**
   * A window onto a layer's unpacked disk, for the recognisers. Each read opens the disk anew, so there is nothing to
   * close.
   *
   * A read throws {ShimError} IMAGE_NOT_FOUND, CONTENT_CORRUPT when the disk is no longer what `sizeBytes` says; BUSY,
   * IO_ERROR.
   */
  diskWindow({ digest }: Descriptor, { path, sizeBytes }: UnpackedDisk): ByteWindow {
    const context = { action: `read the disk of layer "${digest}"`, path };
    return {
      sizeBytes,
      read: async (offsetBytes, lengthBytes) =>
        await withIoErrors(context, () =>
          this.#withDisk(digest, sizeBytes, (file) => {
            return readAt(file, offsetBytes, Math.max(0, Math.min(lengthBytes, sizeBytes - offsetBytes)));
          })),
    };
  }

  /**
   * Unpacks a layer's disk unless that was done before. When this resolves, the disk is there, whole and durable; when
   * it rejects, no partial file is left. Zeros take no space.
   *
   * @param packing what `recognisePacking` found
   * @throws {ShimError} FORMAT_MISMATCH when the layer is broken, or holds no disk; LIMIT_EXCEEDED; IMAGE_NOT_FOUND,
   *   CONTENT_CORRUPT for its blob; CANCELLED; NO_SPACE, LOCK_TIMEOUT, CACHE_LAYOUT_INVALID, BUSY, IO_ERROR
   */
  async unpackedDisk(
    descriptor: Descriptor,
    packing: DiskPacking,
    options: UnpackDiskOptions = {},
  ): Promise<UnpackedDisk> {
    const { digest } = descriptor;
    const { signal } = options;
    const fileSystem = this.#fileSystem;
    const limits = { ...UNPACK_LIMITS, ...options.limits };
    const paths = this.#pathsOf(digest);
    const found = await this.find(descriptor);
    if (found) return found;
    return await withIoErrors({ action: `unpack disk layer "${digest}"`, path: paths.disk }, async () => {
      await this.#makeDirectories(digest);
      // As long as another process may take, and a little more.
      const timeoutMs = limits.timeoutMs + LOCK_TIMEOUT_MS;
      return await withLock(paths.lock, { mode: "exclusive", timeoutMs, signal, fileSystem }, async () => {
        const foundNow = await this.find(descriptor);
        if (foundNow) return foundNow;
        const shared = { mode: "shared", timeoutMs: LOCK_TIMEOUT_MS, signal, fileSystem } as const;
        const written = await withLock(
          this.#paths.ingestLock,
          shared,
          () =>
            unpackLayer(descriptor, packing, {
              ...options,
              limits,
              content: this.#content,
              ingestDirectory: this.#paths.ingest,
              path: paths.disk,
              access: this.#access,
              fileSystem,
            }),
        );
        await syncDirectory(dirname(paths.disk), fileSystem);
        const record = { schemaVersion: 1, source: digest, ...written } as const;
        await writeDerivedRecord(paths.record, { record, fileSystem });
        return { path: paths.disk, sizeBytes: written.sizeBytes };
      });
    });
  }

  /** The layers that have a disk here, by their records. @throws {ShimError} BUSY, IO_ERROR */
  async list(): Promise<Digest[]> {
    const path = join(this.#paths.root, "derived");
    return await withIoErrors({ action: "list the unpacked disks", path }, async () => {
      const files = await filesByDigest(path, this.#fileSystem);
      return [...files].filter(([, paths]) => paths.some((each) => each.endsWith(".json")))
        .map(([digest]) => digest);
    });
  }

  /**
   * Hashes a layer's disk anew and compares it with what was unpacked. A wrong one, or one that the device cannot read,
   * is removed: it is made again when it is next asked for.
   *
   * @returns undefined when there is none
   * @throws {ShimError} CANCELLED, LOCK_TIMEOUT, BUSY, IO_ERROR: then nothing was found out
   */
  async check(digest: Digest, options: HashOptions = {}): Promise<CheckedDisk | undefined> {
    const { disk: path, record: recordPath, lock } = this.#pathsOf(digest);
    const fileSystem = this.#fileSystem;
    const locking = {
      mode: "exclusive",
      timeoutMs: LOCK_TIMEOUT_MS,
      signal: options.signal,
      fileSystem,
    } as const;
    return await withIoErrors({ action: `check the disk of layer "${digest}"`, path }, async () => {
      if (!await statusIfThere(recordPath, fileSystem)) return undefined;
      return await withLock(lock, locking, async () => {
        const record = await readDerivedRecord(recordPath, { source: digest, fileSystem });
        if (!record && !await statusIfThere(recordPath, fileSystem)) return undefined; // collected meanwhile
        const why = record ? await this.#flawOf(digest, record, options) : "its record cannot be used";
        if (record && why === undefined) return { isSound: true, sizeBytes: record.sizeBytes };
        // The record first: a disk without one does not count.
        await unlinkIfThere(recordPath, fileSystem);
        await unlinkIfThere(path, fileSystem);
        await syncDirectory(dirname(path), fileSystem);
        return { isSound: false, why: `the disk unpacked from "${digest}" is damaged: ${why}` };
      });
    });
  }

  async #flawOf(
    digest: Digest,
    { sizeBytes, sha256 }: DerivedRecord,
    options: HashOptions,
  ): Promise<string | undefined> {
    try {
      const hashing = { algorithm: "sha256", sizeBytes, ...options };
      const actual = await this.#withDisk(digest, sizeBytes, (file) => hashFile(file, hashing));
      return actual === sha256 ? undefined : "its bytes are not what was unpacked";
    } catch (error) {
      if (errnoOf(error) === "EIO") return "the device cannot read it (EIO)";
      const isLost = error instanceof ShimError &&
        (error.code === "IMAGE_NOT_FOUND" || error.code === "CONTENT_CORRUPT");
      if (isLost) return error.message;
      throw error;
    }
  }

  async #isUsable(digest: Digest, { sizeBytes }: DerivedRecord): Promise<boolean> {
    const { mode, groupId } = this.#access;
    try {
      await this.#withDisk(digest, sizeBytes, async (file) => {
        const status = await file.status();
        const isExact = status.mode === mode && (groupId === null || status.groupId === groupId);
        if (!isExact) await setAccess(file, this.#access);
      });
      return true;
    } catch (error) {
      if (
        error instanceof ShimError && (error.code === "IMAGE_NOT_FOUND" || error.code === "CONTENT_CORRUPT")
      ) return false;
      throw error;
    }
  }

  async #withDisk<T>(digest: Digest, sizeBytes: number, body: (file: OpenFile) => Promise<T>): Promise<T> {
    const flaw = (status: FileStatus) => flawOf(status, sizeBytes);
    const file = await openBlobFile(this.#pathsOf(digest).disk, {
      digest,
      flawOf: flaw,
      fileSystem: this.#fileSystem,
    });
    try {
      return await body(file);
    } finally {
      await file.close();
    }
  }

  async #makeDirectories(digest: Digest): Promise<void> {
    const { groupId } = this.#access;
    const options = { mode: groupId === null ? 0o700 : 0o750, groupId, fileSystem: this.#fileSystem };
    const directory = dirname(this.#pathsOf(digest).disk);
    await ensurePrivateDirectory(dirname(directory), options);
    await ensurePrivateDirectory(directory, options);
  }

  #pathsOf(digest: Digest) {
    const [algorithm, encoded] = [digestAlgorithm(digest), digestEncoded(digest)];
    const directory = join(this.#paths.root, "derived", algorithm);
    return {
      disk: join(directory, `${encoded}.raw`),
      record: join(directory, `${encoded}.json`),
      lock: join(lockDirectoryOf(this.#paths.root), `derived-${algorithm}-${encoded}`),
    };
  }
}

async function readAt(file: OpenFile, offsetBytes: number, lengthBytes: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(lengthBytes);
  return buffer.subarray(0, await file.read(buffer, offsetBytes));
}

/** As for blobs: QEMU's user owning it would mean that a guest's QEMU could have changed it. */
function flawOf({ sizeBytes, ownerId, mode }: FileStatus, expectedBytes: number): string | undefined {
  if (sizeBytes !== expectedBytes) return `it has ${sizeBytes} bytes, must have ${expectedBytes} bytes`;
  if (ownerId !== effectiveUserId()) return `it is owned by user ${ownerId}`;
  return (mode & 0o022) !== 0 ? "it can be written by group or others" : undefined;
}
