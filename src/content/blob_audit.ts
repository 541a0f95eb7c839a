import { randomBytes } from "node:crypto";
import { dirname, join, resolve } from "node:path";
import type { JudgedDisk } from "../boot/judge_disk.ts";
import { ShimError } from "../errors.ts";
import { currentBootId } from "../host/boot_id.ts";
import { readdirIfThere, statusIfThere, syncDirectory } from "../host/durable.ts";
import { type FileStatus, type FileSystem, nodeFileSystem } from "../host/file_system.ts";
import { errnoOf, withIoErrors } from "../host/io_error.ts";
import {
  type Digest,
  DIGEST_ALGORITHMS,
  digestAlgorithm,
  digestEncoded,
  digestIfAny,
} from "../image/digest.ts";
import { blobCorrupt, flawOfOwnBlob, openBlobFile } from "./blob_file.ts";
import { BlobVerdicts } from "./blob_verdict.ts";
import type { DiskQuestion } from "./disk_verdict.ts";
import { hashFile, type HashOptions } from "./hash_file.ts";
import { blobPathIn, type StorePaths, storePaths } from "./store_layout.ts";

export type AuditOptions = HashOptions & {
  /** Hash even what was found to be right in this boot. */
  readonly isAnew?: boolean;
};

/**
 * What was found out about a blob: that its bytes are right; that there is none; or that what was there is damaged, and
 * lies at `quarantinePath` now.
 */
export type AuditedBlob =
  | { readonly state: "sound"; readonly status: FileStatus }
  | { readonly state: "absent" }
  | { readonly state: "quarantined"; readonly why: string; readonly quarantinePath: string };

/** Whether blobs at rest still are what their names say. */
export class BlobAudit {
  readonly #paths: StorePaths;
  readonly #fileSystem: FileSystem;
  readonly #verdicts: BlobVerdicts;

  constructor(
    { rootDirectory, fileSystem = nodeFileSystem }: {
      readonly rootDirectory: string;
      readonly fileSystem?: FileSystem;
    },
  ) {
    this.#paths = storePaths(resolve(rootDirectory));
    this.#fileSystem = fileSystem;
    this.#verdicts = new BlobVerdicts(this.#paths, fileSystem);
  }

  /** Everything under a blob's name, of whatever kind. @throws {ShimError} BUSY, IO_ERROR */
  async list(): Promise<Digest[]> {
    const context = { action: "list the cache's blobs", path: this.#paths.blobs };
    return await withIoErrors(context, async () => {
      const digests: Digest[] = [];
      for (const algorithm of DIGEST_ALGORITHMS) {
        const names = await readdirIfThere(`${this.#paths.blobs}/${algorithm}`, this.#fileSystem);
        for (const name of names) {
          const digest = digestIfAny(`${algorithm}:${name}`);
          if (digest) digests.push(digest);
        }
      }
      return digests;
    });
  }

  /**
   * Hashes a blob, unless this very file was hashed or brought in since the host booted. A damaged one, or one whose
   * bytes the device cannot read, is moved out of the way, into `quarantine/`: whoever wants it brings it in again.
   *
   * @param sizeBytes what it must have; undefined when only its name is known
   * @throws {ShimError} CANCELLED; NO_SPACE, BUSY, IO_ERROR: then nothing was found out
   */
  async audit(
    digest: Digest,
    sizeBytes: number | undefined,
    options: AuditOptions = {},
  ): Promise<AuditedBlob> {
    const path = blobPathIn(this.#paths.blobs, digest);
    return await withIoErrors({ action: `check blob "${digest}"`, path }, async () => {
      const before = await statusIfThere(path, this.#fileSystem);
      if (!before) return { state: "absent" };
      // One look is enough for what is as it was; all else is told by opening it.
      if (!options.isAnew && await this.#isAsItWas(digest, before, sizeBytes)) {
        return { state: "sound", status: before };
      }
      try {
        return { state: "sound", status: await this.#requireSound(digest, sizeBytes, options) };
      } catch (error) {
        if (!(error instanceof ShimError)) throw error;
        if (error.code === "IMAGE_NOT_FOUND") return { state: "absent" };
        if (error.code !== "CONTENT_CORRUPT") throw error;
        const quarantinePath = await this.#quarantine(digest, before);
        if (quarantinePath === undefined) return await this.audit(digest, sizeBytes, options);
        return { state: "quarantined", why: error.message, quarantinePath };
      }
    });
  }

  /** Says that a blob is right, for who has just brought it in. Rejects with an errno error. */
  async noteSound(digest: Digest): Promise<void> {
    const status = await statusIfThere(blobPathIn(this.#paths.blobs, digest), this.#fileSystem);
    if (status) await this.#verdicts.write(digest, { ...status, bootId: await currentBootId() });
  }

  /**
   * What the gate found this blob to be, if that was asked since its bytes were hashed, and nobody changed it since.
   *
   * @throws {ShimError} BUSY, IO_ERROR
   */
  async findDisk(digest: Digest, question: DiskQuestion): Promise<JudgedDisk | undefined> {
    const path = blobPathIn(this.#paths.blobs, digest);
    return await withIoErrors({ action: `look at blob "${digest}"`, path }, async () => {
      const status = await statusIfThere(path, this.#fileSystem);
      if (!status) return undefined;
      return await this.#verdicts.findDisk(digest, { question, status, bootId: await currentBootId() });
    });
  }

  /**
   * Asks the gate, and keeps its answer beside the blob for {@link findDisk}. Kept is only what is about the very file
   * whose bytes were hashed; a refusal is none, so the gate gives it each time.
   *
   * @param judge reads the blob's bytes
   * @throws {ShimError} what `judge` throws; BUSY, IO_ERROR
   */
  async judge(
    digest: Digest,
    question: DiskQuestion,
    judge: () => Promise<JudgedDisk>,
  ): Promise<JudgedDisk> {
    const path = blobPathIn(this.#paths.blobs, digest);
    return await withIoErrors({ action: `judge blob "${digest}"`, path }, async () => {
      // A change while it is read shows in what the file is like afterwards.
      const status = await statusIfThere(path, this.#fileSystem);
      const judged = await judge();
      const bootId = await currentBootId();
      if (status && await this.#verdicts.isKnown(digest, status, bootId)) {
        await this.#verdicts.write(digest, { ...status, bootId, disk: { ...question, judged } });
      }
      return judged;
    });
  }

  async #isAsItWas(
    digest: Digest,
    status: FileStatus,
    expectedBytes = status.sizeBytes,
  ): Promise<boolean> {
    return status.kind === "file" && flawOfOwnBlob(status, { sizeBytes: expectedBytes }) === undefined &&
      await this.#verdicts.isKnown(digest, status, await currentBootId());
  }

  async #requireSound(
    digest: Digest,
    expectedBytes: number | undefined,
    options: AuditOptions,
  ): Promise<FileStatus> {
    const path = blobPathIn(this.#paths.blobs, digest);
    const flawOf = (status: FileStatus) =>
      flawOfOwnBlob(status, { sizeBytes: expectedBytes ?? status.sizeBytes });
    const file = await openBlobFile(path, { digest, flawOf, fileSystem: this.#fileSystem });
    try {
      const status = await file.status();
      const bootId = await currentBootId();
      const actual = await hashFile(file, {
        algorithm: digestAlgorithm(digest),
        sizeBytes: status.sizeBytes,
        ...options,
      }).catch((error: unknown) => {
        // What the device cannot give is lost like what it gives wrong; a device that is gone cannot be renamed on, either.
        if (errnoOf(error) !== "EIO") throw error;
        throw blobCorrupt(digest, { path, why: "the device cannot read it (EIO)", cause: error });
      });
      if (actual !== digestEncoded(digest)) {
        throw blobCorrupt(digest, { path, why: "its bytes are not what its name says" });
      }
      await this.#verdicts.write(digest, { ...status, bootId });
      return status;
    } finally {
      await file.close().catch(() => {}); // only read from
    }
  }

  /** @returns undefined when something else is in the place by now: somebody has replaced it */
  async #quarantine(digest: Digest, before: FileStatus): Promise<string | undefined> {
    const path = blobPathIn(this.#paths.blobs, digest);
    const now = await statusIfThere(path, this.#fileSystem);
    if (now?.inode !== before.inode || now.device !== before.device) return undefined;
    const name = `${digestAlgorithm(digest)}-${digestEncoded(digest)}.${randomBytes(4).toString("hex")}`;
    const quarantinePath = join(this.#paths.quarantine, name);
    try {
      await this.#fileSystem.rename(path, quarantinePath);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
    await syncDirectory(this.#paths.quarantine, this.#fileSystem);
    await syncDirectory(dirname(path), this.#fileSystem);
    return quarantinePath;
  }
}
