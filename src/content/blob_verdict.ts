import { randomBytes } from "node:crypto";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { JudgedDisk } from "../boot/judge_disk.ts";
import { ShimError } from "../errors.ts";
import { readdirIfThere, unlinkIfThere } from "../host/durable.ts";
import { CREATE_NEW, type FileStatus, type FileSystem, withOpenFile } from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import { type Digest, digestAlgorithm, digestEncoded } from "../image/digest.ts";
import { type DiskQuestion, type DiskVerdict, diskVerdictJson, isAnswerTo } from "./disk_verdict.ts";
import { readLayoutFile } from "./layout_file.ts";
import type { StorePaths } from "./store_layout.ts";

/**
 * A file that was hashed, and in which boot of the host: when none of this differs, nobody wrote to the file since. What
 * a disk does to bytes at rest shows when they are read for the first time after a boot. As long as it counts, so does
 * what the gate found the bytes to be.
 */
const verdictJson = z.strictObject({
  schemaVersion: z.literal(1),
  device: z.number(),
  inode: z.number(),
  sizeBytes: z.number(),
  modifiedMs: z.number(),
  changedMs: z.number(),
  bootId: z.string(),
  disk: diskVerdictJson.optional(),
});
/** A disk may have some hundred partitions, each with a name. */
const MAX_VERDICT_BYTES = 256 * 1024;

type Watched = Pick<FileStatus, "device" | "inode" | "sizeBytes" | "modifiedMs" | "changedMs">;

type Verdict = z.infer<typeof verdictJson>;
/** Verdicts that a process remembers: some hundred bytes each, but for disks of many partitions. */
const MAX_REMEMBERED = 1000;

/** `ROOT/verdicts/ALGORITHM/ENCODED.json`: worth a hash each, so none is ever waited for or missed. */
export class BlobVerdicts {
  readonly #paths: StorePaths;
  readonly #fileSystem: FileSystem;
  /** What this process has read or written: about the same file it says the same, whoever wrote another since. */
  readonly #remembered = new Map<Digest, Verdict>();

  constructor(paths: StorePaths, fileSystem: FileSystem) {
    this.#paths = paths;
    this.#fileSystem = fileSystem;
  }

  /** Whether this very file was found to be right in this boot. */
  async isKnown(digest: Digest, status: Watched, bootId: string | null): Promise<boolean> {
    return await this.#find(digest, status, bootId) !== undefined;
  }

  /** What the gate found this very file to be, in this boot. */
  async findDisk(
    digest: Digest,
    { question, status, bootId }: { question: DiskQuestion; status: Watched; bootId: string | null },
  ): Promise<JudgedDisk | undefined> {
    const verdict = await this.#find(digest, status, bootId, (known) => known.disk !== undefined);
    return verdict?.disk && isAnswerTo(verdict.disk, question) ? verdict.disk.judged : undefined;
  }

  async #find(
    digest: Digest,
    status: Watched,
    bootId: string | null,
    isEnough: (verdict: Verdict) => boolean = () => true,
  ): Promise<Verdict | undefined> {
    if (bootId === null) return undefined;
    const remembered = this.#remembered.get(digest);
    if (remembered && isEnough(remembered) && isAbout(remembered, status, bootId)) return remembered;
    const verdict = await this.#read(digest);
    if (!verdict || !isAbout(verdict, status, bootId)) return undefined;
    this.#remember(digest, verdict);
    return verdict;
  }

  #remember(digest: Digest, verdict: Verdict): void {
    this.#remembered.delete(digest);
    this.#remembered.set(digest, verdict);
    const [oldest] = this.#remembered.keys();
    if (oldest !== undefined && this.#remembered.size > MAX_REMEMBERED) this.#remembered.delete(oldest);
  }

  /**
   * Says that this very file was found to be right, and what disk it is if that is known. What cannot be written will be
   * found out again.
   */
  async write(
    digest: Digest,
    { disk, bootId, ...status }: Watched & { readonly bootId: string | null; readonly disk?: DiskVerdict },
  ): Promise<void> {
    if (bootId === null) return;
    const { device, inode, sizeBytes, modifiedMs, changedMs } = status;
    const json = { schemaVersion: 1, device, inode, sizeBytes, modifiedMs, changedMs, bootId };
    const stored = diskVerdictJson.optional().safeParse(disk);
    const bytes = new TextEncoder().encode(JSON.stringify({ ...json, disk: stored.data }));
    if (bytes.length > MAX_VERDICT_BYTES) return;
    const path = this.#pathOf(digest);
    const temporaryPath = `${path}.${randomBytes(8).toString("hex")}`;
    const fileSystem = this.#fileSystem;
    try {
      await fileSystem.mkdir(dirname(path), 0o700).catch((error: unknown) => {
        if (errnoOf(error) !== "EEXIST") throw error;
      });
      // Not synced: what a crash leaves of it is of another boot.
      await withOpenFile(temporaryPath, { flags: CREATE_NEW, fileSystem }, (file) => file.write(bytes, 0));
      await fileSystem.rename(temporaryPath, path);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      await unlinkIfThere(temporaryPath, fileSystem).catch(() => {});
    }
  }

  async #read(digest: Digest): Promise<Verdict | undefined> {
    const invalid = (why: string) => new ShimError("CONTENT_CORRUPT", why);
    const options = {
      schema: verdictJson,
      maxBytes: MAX_VERDICT_BYTES,
      invalid,
      fileSystem: this.#fileSystem,
    };
    try {
      return await readLayoutFile(this.#pathOf(digest), options);
    } catch (error) {
      if (error instanceof ShimError) return undefined;
      throw error;
    }
  }

  #pathOf(digest: Digest): string {
    return verdictPath(this.#paths, digest);
  }
}

function isAbout(verdict: Verdict, status: Watched, bootId: string): boolean {
  return verdict.bootId === bootId && verdict.device === status.device && verdict.inode === status.inode &&
    verdict.sizeBytes === status.sizeBytes && verdict.modifiedMs === status.modifiedMs &&
    verdict.changedMs === status.changedMs;
}

/** Removes verdicts on blobs that are gone, and what crashes left. For the collector. Rejects with an errno error. */
export async function removeStrayVerdicts(paths: StorePaths, fileSystem: FileSystem): Promise<void> {
  for (const algorithm of await readdirIfThere(paths.verdicts, fileSystem)) {
    const blobs = new Set(await readdirIfThere(join(paths.blobs, algorithm), fileSystem));
    for (const name of await readdirIfThere(join(paths.verdicts, algorithm), fileSystem)) {
      const [encoded = "", ...endings] = name.split(".");
      const isKept = blobs.has(encoded) && endings.length === 1;
      if (!isKept) await unlinkIfThere(join(paths.verdicts, algorithm, name), fileSystem);
    }
  }
}

export function verdictPath({ verdicts }: StorePaths, digest: Digest): string {
  // Not joined: a collection asks forty thousand times.
  return `${verdicts}/${digestAlgorithm(digest)}/${digestEncoded(digest)}.json`;
}
