import { randomBytes } from "node:crypto";
import { join, resolve } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import { unlinkIfThere } from "../host/durable.ts";
import { type FileSystem, nodeFileSystem } from "../host/file_system.ts";
import { type HeldLock, takeLock, tryLock, withLock } from "../host/flock.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import { type Descriptor, descriptorJson, fromDescriptor } from "../image/descriptor.ts";
import { type Digest, parseDigest } from "../image/digest.ts";
import { linksIn } from "./document_links.ts";
import { readLayoutFile } from "./layout_file.ts";
import { LOCK_TIMEOUT_MS, type StorePaths, storePaths } from "./store_layout.ts";

const leaseJson = z.strictObject({ schemaVersion: z.literal(1), needs: z.array(descriptorJson) });
/** An index of four MiB lists some ten thousand blobs. */
const MAX_LEASE_BYTES = 16 * 1024 * 1024;

/** Keeps blobs from being collected while it lasts. */
export interface Lease {
  /**
   * When this resolves, those of these blobs that are in the cache stay there, and those that come, too; with a
   * document goes all that it leads to. So first lease, then look.
   *
   * @throws {ShimError} LOCK_TIMEOUT, CANCELLED, NO_SPACE, BUSY, IO_ERROR
   */
  add(descriptors: readonly Descriptor[]): Promise<void>;
  /**
   * Tells of a document that was found in the cache after it was leased: all that it names is leased with it, so that
   * it need not be written down again.
   */
  noteRead(digest: Digest, bytes: Uint8Array): void;
}

/** What a living lease names. */
export type Needs = readonly Digest[];

export type LeasesOptions = { readonly rootDirectory: string; readonly fileSystem?: FileSystem };

/**
 * The leases of operations under way: `ROOT/leases/RANDOM.json`, each locked by its living owner, so that one whose
 * lock can be taken is dead whatever a clock says. They bridge the time from looking for something in the cache to the
 * durable record (of a name, of a machine) that says who uses it; whoever drops one has such a record.
 */
export class Leases {
  readonly #paths: StorePaths;
  readonly #fileSystem: FileSystem;

  constructor({ rootDirectory, fileSystem = nodeFileSystem }: LeasesOptions) {
    this.#paths = storePaths(resolve(rootDirectory));
    this.#fileSystem = fileSystem;
  }

  /**
   * Runs `body` with a lease of its own. Where nothing can be written nothing can be collected either, so there the
   * lease is an empty word.
   *
   * @throws {ShimError} what `body` throws
   */
  async withLease<T>(
    body: (lease: Lease) => Promise<T>,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<T> {
    const path = join(this.#paths.leases, `${randomBytes(16).toString("hex")}.json`);
    const lease = new OwnLease({
      path,
      collectLock: this.#paths.collectLock,
      fileSystem: this.#fileSystem,
      signal,
    });
    try {
      return await body(lease);
    } finally {
      await lease.drop();
    }
  }

  /**
   * What living owners need; dead ones' leases are removed. For who holds the collector's lock.
   *
   * @throws {ShimError} CACHE_LAYOUT_INVALID when a living one cannot be read; errno errors pass
   */
  async living(): Promise<Needs> {
    const { leases } = this.#paths;
    const fileSystem = this.#fileSystem;
    const needs = new Set<Digest>();
    for (const name of await fileSystem.readdir(leases)) {
      const path = join(leases, name);
      const dead = await tryLock(path, { mode: "exclusive", fileSystem });
      if (dead) {
        await unlinkIfThere(path, fileSystem).finally(() => dead.release());
      } else for (const digest of await this.#read(path)) needs.add(digest);
    }
    return [...needs];
  }

  async #read(path: string): Promise<Digest[]> {
    const invalid = (why: string, cause?: unknown) =>
      new ShimError("CACHE_LAYOUT_INVALID", `Cannot use lease "${path}": ${why}`, {
        cause,
        details: { remedy: "wait for the bootshim that holds it (see lslocks), or end it", path },
      });
    const options = { schema: leaseJson, maxBytes: MAX_LEASE_BYTES, invalid, fileSystem: this.#fileSystem };
    const status = await this.#fileSystem.lstat(path).catch((error: unknown) => {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    });
    // Gone: its owner has a record by now. Empty: it needs nothing yet.
    if (status === undefined || status.sizeBytes === 0) return [];
    const lease = await readLayoutFile(path, options);
    return lease?.needs.map(({ digest }) => parseDigest(digest)) ?? [];
  }
}

type OwnLeaseOptions = {
  readonly path: string;
  readonly collectLock: string;
  readonly fileSystem: FileSystem;
  readonly signal: AbortSignal | undefined;
};

/** Its file is made with the first word in it: an operation that needs nothing costs nothing. */
class OwnLease implements Lease {
  readonly #options: OwnLeaseOptions;
  readonly #needs = new Map<Digest, Descriptor>();
  /** Documents whose links the collector will follow from what is needed, and all that these lead to. */
  readonly #followed = new Set<Digest>();
  readonly #covered = new Set<Digest>();
  #lock: HeldLock | undefined;
  #isVain = false;
  #writtenBytes = 0;
  #last = Promise.resolve();

  constructor(options: OwnLeaseOptions) {
    this.#options = options;
  }

  async add(descriptors: readonly Descriptor[]): Promise<void> {
    const known = this.#needs.size;
    for (const each of descriptors) {
      if (this.#covered.has(each.digest)) continue;
      this.#needs.set(each.digest, { ...each, annotations: {} });
      this.#followed.add(each.digest);
    }
    // Even when all is known: a write of it may be under way, or may have failed.
    if (this.#needs.size > known) this.#last = this.#last.catch(() => {}).then(() => this.#write());
    await this.#last;
  }

  noteRead(digest: Digest, bytes: Uint8Array): void {
    if (!this.#followed.has(digest)) return;
    const { documents, blobs } = linksIn(bytes);
    for (const each of documents) this.#followed.add(each);
    for (const each of [...documents, ...blobs]) this.#covered.add(each);
  }

  async drop(): Promise<void> {
    await this.#last.catch(() => {});
    if (!this.#lock) return;
    // What is left of it is a dead owner's, which the collector removes.
    await unlinkIfThere(this.#options.path, this.#options.fileSystem).catch(() => {});
    await this.#lock.release();
  }

  async #write(): Promise<void> {
    if (this.#isVain) return;
    const { path, collectLock, fileSystem, signal } = this.#options;
    const json = { schemaVersion: 1, needs: [...this.#needs.values()].map(fromDescriptor) };
    const bytes = new TextEncoder().encode(JSON.stringify(json));
    const lock = { timeoutMs: LOCK_TIMEOUT_MS, fileSystem };
    try {
      // While no collector looks: it would take a file that is not locked yet for a dead owner's.
      await withLock(collectLock, { ...lock, mode: "shared", signal }, async () => {
        this.#lock ??= await takeLock(path, { ...lock, mode: "exclusive", isNew: true });
        const { file } = this.#lock;
        await withIoErrors({ action: "lease what is needed", path }, async () => {
          // In place: the file is the lock. Only the collector reads it, and not now.
          await file.write(bytes, 0);
          if (bytes.length < this.#writtenBytes) await file.truncate(bytes.length);
          this.#writtenBytes = bytes.length;
        });
      });
    } catch (error) {
      if (this.#lock || !isReadOnly(error)) throw error;
      this.#isVain = true;
    }
  }
}

function isReadOnly(error: unknown): boolean {
  return error instanceof ShimError && ["EROFS", "EACCES"].includes(String(error.details["errno"]));
}
