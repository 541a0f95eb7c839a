/**
 * @module content: the cache, an OCI image layout under ROOT/images that skopeo and oras can read and whose
 *   blobs are the very files QEMU opens; and layouts of others, in folders and archives: read as image sources
 *   (`layout_source.ts`, `archive_source.ts`), and written (`layout_writer.ts`, `archive_writer.ts`).
 *
 * May import `errors.ts`, `image/`, `boot/` types and `host/`. Invariants: a file under `blobs/` hashes to
 * its name, from its first moment on; `index.json` is always a whole document; a reference is only set on a
 * blob that is there; nobody but this user and QEMU's group can read anything. Several processes may use one
 * root at once. Files that were tampered with are reported, never deleted.
 */
import { resolve } from "node:path";
import type { ByteWindow } from "../boot/byte_window.ts";
import { ShimError } from "../errors.ts";
import { type Access, type DirectorySync, setAccess, statusIfThere } from "../host/durable.ts";
import { type FileStatus, type FileSystem, nodeFileSystem, type OpenFile } from "../host/file_system.ts";
import { requireFreeSpace } from "../host/free_space.ts";
import { toIoError, withIoErrors } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import { type Digest } from "../image/digest.ts";
import type { OpenContent, VerifiedDocument } from "../image/image_source.ts";
import { BlobAudit } from "./blob_audit.ts";
import { flawOfOwnBlob, openBlobFile, streamBlob } from "./blob_file.ts";
import { blobWindow } from "./blob_window.ts";
import { readOwnDocument } from "./own_document.ts";
import { BlobTransfers, type LockBlobsOptions, type LockedBlobs } from "./blob_transfers.ts";
import { describeFile, openUserFile } from "./user_file.ts";
import { DurableNames } from "./durable_names.ts";
import type { IngestOptions } from "./ingest.ts";
import type { StoredReference } from "./index_entry.ts";
import type { Lease } from "./lease.ts";
import { ReferenceIndex } from "./reference_index.ts";
import { blobPathIn, openLayout, type StorePaths, storePaths, writeVersion } from "./store_layout.ts";
import { sweepIngest } from "./sweep_ingest.ts";

export type ContentStoreOptions = {
  /** The root; made with its parents when missing. */
  readonly rootDirectory: string;
  /** Whose members may read blobs (`qemuGroupId()`); null: nobody but this user. */
  readonly groupId: number | null;
  readonly fileSystem?: FileSystem;
  /** Told once when this file system cannot make a rename survive a power loss; and when a damaged index was made anew. */
  readonly onWarning?: ((message: string) => void) | undefined;
};

export class ContentStore {
  readonly #paths: StorePaths;
  readonly #blobAccess: Access;
  readonly #fileSystem: FileSystem;
  readonly #index: ReferenceIndex;
  readonly #transfers: BlobTransfers;
  readonly #options: ContentStoreOptions;
  readonly #durableNames: DurableNames;
  readonly #lease: Lease | undefined;
  #onWarning: ContentStoreOptions["onWarning"];

  private constructor(
    paths: StorePaths,
    fileSystem: FileSystem,
    options: ContentStoreOptions & { readonly lease?: Lease; readonly durableNames?: DurableNames },
  ) {
    this.#options = options;
    this.#durableNames = options.durableNames ?? new DurableNames(fileSystem);
    this.#lease = options.lease;
    this.#paths = paths;
    this.#fileSystem = fileSystem;
    this.#blobAccess = { mode: options.groupId === null ? 0o400 : 0o440, groupId: options.groupId };
    this.#index = new ReferenceIndex(paths, { fileSystem, onRebuilt: options.onWarning });
    const audit = new BlobAudit({ rootDirectory: paths.root, fileSystem });
    this.#transfers = new BlobTransfers({
      paths,
      access: this.#blobAccess,
      fileSystem,
      durableNames: this.#durableNames,
      hasBlob: (descriptor) => this.hasBlob(descriptor),
      note: (sync) => this.#note(sync),
      onStored: (digest) => audit.noteSound(digest),
    });
    this.#onWarning = options.onWarning;
  }

  /**
   * Makes or takes the cache under a root, forces owner, group and modes, and removes what killed processes
   * left and nobody can continue.
   *
   * @throws {ShimError} CACHE_LAYOUT_INVALID when a directory is a link, is another user's or can be written
   *   by others, when the root holds other files, or when the layout is of another version or incomplete;
   *   LOCK_TIMEOUT, NO_SPACE, BUSY, IO_ERROR
   */
  static async open(options: ContentStoreOptions): Promise<ContentStore> {
    const { rootDirectory, groupId, fileSystem = nodeFileSystem } = options;
    const paths = storePaths(resolve(rootDirectory));
    return await withIoErrors({ action: "open the cache", path: paths.root }, async () => {
      const { needsRecords } = await openLayout(paths, { groupId, fileSystem });
      const store = new ContentStore(paths, fileSystem, options);
      if (needsRecords) {
        await store.#index.writeRecords();
        await writeVersion(paths, fileSystem);
      }
      await sweepIngest(paths, fileSystem);
      return store;
    });
  }

  /**
   * The same store, for an operation that has a lease: whatever it looks for or brings in is leased first, so that what
   * it has once seen stays.
   */
  underLease(lease: Lease): ContentStore {
    const durableNames = this.#durableNames;
    return new ContentStore(this.#paths, this.#fileSystem, { ...this.#options, lease, durableNames });
  }

  /** Leases many at once: cheaper than one by one, when they are looked for. Nothing without a lease. */
  async lease(descriptors: readonly Descriptor[]): Promise<void> {
    await this.#lease?.add(descriptors);
  }

  /** Absolute path of the image layout, for messages and for other tools. */
  get layoutDirectory(): string {
    return this.#paths.images;
  }

  /**
   * Where a blob lies or would lie, absolute. Says nothing about whether it is there: see {@link locateBlob}.
   */
  blobPath(digest: Digest): string {
    return blobPathIn(this.#paths.blobs, digest);
  }

  /**
   * Whether a blob is there and usable: a regular file of ours with the right size, writable by nobody else.
   * Its bytes are not hashed. One that is there and damaged counts as missing, so that pulling again replaces
   * it.
   *
   * @param seen what its file is like, for who has just looked
   * @throws {ShimError} BUSY, IO_ERROR
   */
  async hasBlob(descriptor: Descriptor, seen?: FileStatus): Promise<boolean> {
    try {
      await this.locateBlob(descriptor, seen);
      return true;
    } catch (error) {
      if (
        error instanceof ShimError && (error.code === "IMAGE_NOT_FOUND" || error.code === "CONTENT_CORRUPT")
      ) return false;
      throw error;
    }
  }

  /**
   * The absolute path of a blob that passes {@link hasBlob}'s checks now; to be asked on every use. Its group
   * and bits are put right: QEMU may have come to this host after the blob did.
   *
   * @throws {ShimError} IMAGE_NOT_FOUND; CONTENT_CORRUPT, naming what is wrong; BUSY, IO_ERROR
   */
  async locateBlob(descriptor: Descriptor, seen?: FileStatus): Promise<string> {
    const { mode, groupId } = this.#blobAccess;
    const path = this.blobPath(descriptor.digest);
    await this.#lease?.add([descriptor]);
    // One look is enough for what is as it should be; all else is told by opening it.
    const found = seen ?? await withIoErrors(
      { action: `read blob "${descriptor.digest}"`, path },
      () => statusIfThere(path, this.#fileSystem),
    );
    const isAsMeant = found?.kind === "file" && found.mode === mode &&
      (groupId === null || found.groupId === groupId) && flawOfOwnBlob(found, descriptor) === undefined;
    if (isAsMeant) return path;
    return await this.#withBlob(descriptor, async (file) => {
      const status = await file.status();
      const isExact = status.mode === mode && (groupId === null || status.groupId === groupId);
      if (!isExact) await setAccess(file, this.#blobAccess);
      return this.blobPath(descriptor.digest);
    });
  }

  /**
   * Takes a blob in, once on this host however many ask. When this resolves, the blob is there, verified and durable,
   * whoever stored it; when it rejects, `blobs/` is as before. What an interrupted transfer left in `ingest/` is
   * continued; a failure that passes by itself, and a cancellation, leave what came there.
   *
   * @param open may be called again from byte 0: when bytes turn out to be wrong, all are fetched once more
   * @returns bytes that this call had from the source; 0 when another process brought the blob in
   * @throws {ShimError} CONTENT_SIZE_MISMATCH, CONTENT_DIGEST_MISMATCH; NO_SPACE, before the first byte when
   *   the blob as a whole does not fit; CANCELLED; LOCK_TIMEOUT, BUSY, IO_ERROR; the stream's own failure
   *   passes unless it is a bare errno
   */
  async ingest(
    descriptor: Descriptor,
    open: OpenContent,
    options: IngestOptions & Pick<LockBlobsOptions, "source" | "stallMs"> = {},
  ): Promise<{ readonly receivedBytes: number }> {
    await this.#lease?.add([descriptor]);
    return await this.#transfers.ingest(descriptor, open, options);
  }

  /**
   * Runs `body` as the only one on this host who brings in those of these blobs that are missing. Waits for others who
   * do; a blob that they have brought is not missing any more.
   *
   * @throws {ShimError} as {@link ingest} does
   */
  async withMissing<T>(
    descriptors: readonly Descriptor[],
    options: LockBlobsOptions,
    body: (locked: LockedBlobs) => Promise<T>,
  ): Promise<T> {
    await this.#lease?.add(descriptors);
    return await this.#transfers.withLocks(descriptors, options, body);
  }

  /**
   * Asks whether so much will fit, before the first byte of it is fetched.
   *
   * @throws {ShimError} NO_SPACE with both numbers; IO_ERROR
   */
  async requireRoom(sizeBytes: number): Promise<void> {
    const action = "take in what is missing";
    const path = this.#paths.ingest;
    const fileSystem = this.#fileSystem;
    await withIoErrors({ action, path }, () => requireFreeSpace(path, { sizeBytes, action, fileSystem }));
  }

  /**
   * Takes in manifests and indexes that are in memory already, children first. Throws as {@link ingest} does.
   */
  async ingestBytes(
    documents: VerifiedDocument | readonly VerifiedDocument[],
    options: IngestOptions = {},
  ): Promise<void> {
    const each = "bytes" in documents ? [documents] : documents;
    await this.#lease?.add(each.map(({ descriptor }) => descriptor));
    await this.#transfers.ingestBytes(each, options);
  }

  /**
   * A small blob, whole and verified anew: the disk may have changed since.
   *
   * @throws {ShimError} MANIFEST_TOO_LARGE over 4 MiB; IMAGE_NOT_FOUND; CONTENT_CORRUPT; BUSY, IO_ERROR
   */
  async readDocument(descriptor: Descriptor): Promise<VerifiedDocument> {
    await this.#lease?.add([descriptor]);
    const path = this.blobPath(descriptor.digest);
    const options = { path, fileSystem: this.#fileSystem };
    const action = `read blob "${descriptor.digest}"`;
    const bytes = await withIoErrors({ action, path }, () => readOwnDocument(descriptor, options));
    this.#lease?.noteRead(descriptor.digest, bytes);
    return { descriptor, bytes };
  }

  /**
   * Makes the names of blobs that are there survive a power loss: whoever stored them may not have come to it yet.
   *
   * @throws {ShimError} BUSY, IO_ERROR
   */
  async settle(digests: readonly Digest[]): Promise<void> {
    await this.#transfers.syncNames(digests);
  }

  /**
   * A blob's bytes, for handing it on; not hashed on the way, because whoever receives them checks. The stream
   * must be read to its end or cancelled: it holds an open file.
   *
   * @param options.startByte where to begin; default 0
   * @throws {ShimError} IMAGE_NOT_FOUND, CONTENT_CORRUPT; BUSY, IO_ERROR, which the stream may fail with, too
   */
  async openBlob(
    descriptor: Descriptor,
    { startByte = 0 }: { readonly startByte?: number } = {},
  ): Promise<ReadableStream<Uint8Array>> {
    const { digest, sizeBytes } = descriptor;
    const path = this.blobPath(digest);
    const context = { action: `read blob "${digest}"`, path };
    await this.#lease?.add([descriptor]);
    return await withIoErrors(context, async () => {
      const flawOf = (status: FileStatus) => flawOfOwnBlob(status, descriptor);
      const file = await openBlobFile(path, { digest, flawOf, fileSystem: this.#fileSystem });
      return streamBlob(file, {
        startByte,
        maxBytes: sizeBytes - startByte,
        beforeRead: () => {},
        translate: (error) => toIoError(error, context),
      });
    });
  }

  /**
   * Takes a file of the user's in as a blob. It is read twice: a blob's name must be known before it is
   * stored, and what is stored is checked against that name, so a file that changes meanwhile is refused.
   *
   * @returns its descriptor
   * @throws {ShimError} REQUEST_INVALID when the file cannot be read; otherwise as {@link ingest}
   */
  async ingestFile(
    path: string,
    options: IngestOptions & { readonly mediaType: string },
  ): Promise<Descriptor> {
    const { mediaType, ...rest } = options;
    const descriptor = await describeFile(path, { mediaType, fileSystem: this.#fileSystem });
    const fileSystem = this.#fileSystem;
    await this.ingest(descriptor, (startByte) => openUserFile(path, { startByte, fileSystem }), rest);
    return descriptor;
  }

  /**
   * A window onto a blob for the format recognisers. Each read opens the blob anew, so there is nothing to
   * close.
   *
   * A read throws {ShimError} IMAGE_NOT_FOUND, CONTENT_CORRUPT, BUSY, IO_ERROR; LIMIT_EXCEEDED over 4 MiB.
   */
  blobWindow(descriptor: Descriptor): ByteWindow {
    return blobWindow(descriptor, (body) => this.#withBlob(descriptor, body));
  }

  /**
   * All images this cache offers, in the order in which they were set. Entries that others wrote are not
   * offered.
   *
   * @throws {ShimError} CACHE_LAYOUT_INVALID when the index is damaged and cannot be made anew; BUSY, IO_ERROR
   */
  async references(): Promise<StoredReference[]> {
    return await this.#withIndex("read the cache's index", () => this.#index.list());
  }

  /** One image by its exact name, or undefined. Throws as {@link references} does. */
  async findReference(name: string): Promise<StoredReference | undefined> {
    return await this.#withIndex("read the cache's index", () => this.#index.find(name));
  }

  /**
   * Makes `name` stand for a blob of this cache, in place of what it stood for. Durable when this resolves;
   * concurrent updates of any process all take effect.
   *
   * @param name the canonical reference, as `formatReference` gives it
   * @param options.annotations of our own, beside those of the descriptor
   * @throws {ShimError} IMAGE_NOT_FOUND, CONTENT_CORRUPT when the blob is not there to be named;
   *   CACHE_LAYOUT_INVALID; LOCK_TIMEOUT, NO_SPACE, BUSY, IO_ERROR
   */
  async setReference(
    name: string,
    descriptor: Descriptor,
    options: { readonly annotations?: Readonly<Record<string, string>> } = {},
  ): Promise<void> {
    await this.#withIndex(`name image ${JSON.stringify(name)}`, async () => {
      await this.locateBlob(descriptor);
      const sync = await this.#index.set(name, descriptor, options.annotations ?? {});
      // Whoever wrote what is there already may not have come to making it durable.
      const settled = sync ? [sync] : await this.#durableNames.settle([this.#paths.index]);
      for (const each of settled) this.#note(each);
    });
  }

  /** Forgets a name; its blobs stay. Forgetting an unknown one changes nothing. Throws as {@link setReference} does. */
  async removeReference(name: string): Promise<void> {
    await this.#withIndex(`forget image ${JSON.stringify(name)}`, async () => {
      this.#note(await this.#index.remove([name]));
    });
  }

  /**
   * Keeps an image from being collected for want of space, or no longer.
   *
   * @returns what the name stands for, undefined when there is none of that name
   * @throws {ShimError} as {@link setReference}
   */
  async setPinned(name: string, pinned: boolean): Promise<Descriptor | undefined> {
    return await this.#withIndex(
      `${pinned ? "pin" : "unpin"} image ${JSON.stringify(name)}`,
      () => this.#index.setPinned(name, pinned),
    );
  }

  async #withIndex<T>(action: string, body: () => Promise<T>): Promise<T> {
    return await withIoErrors({ action, path: this.#paths.index }, body);
  }

  async #withBlob<T>(descriptor: Descriptor, body: (file: OpenFile) => Promise<T>): Promise<T> {
    const { digest } = descriptor;
    const path = this.blobPath(digest);
    const flawOf = (status: FileStatus) => flawOfOwnBlob(status, descriptor);
    await this.#lease?.add([descriptor]);
    return await withIoErrors({ action: `read blob "${digest}"`, path }, async () => {
      const file = await openBlobFile(path, { digest, flawOf, fileSystem: this.#fileSystem });
      try {
        return await body(file);
      } finally {
        await file.close();
      }
    });
  }

  #note(sync: DirectorySync | undefined): void {
    if (sync !== "unsupported" || !this.#onWarning) return;
    this.#onWarning(
      `The file system of "${this.#paths.root}" cannot sync directories: a power loss may undo the last change`,
    );
    this.#onWarning = undefined;
  }
}
