import { join } from "node:path";
import { ShimError } from "../errors.ts";
import { unlinkIfThere } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import { tryLock, withLock } from "../host/flock.ts";
import { errnoOf } from "../host/io_error.ts";
import { type Digest, parseDigest } from "../image/digest.ts";
import { blobLockPath } from "./blob_lock.ts";
import { canBeContinued, partialPaths, partOfTransfer, removePartial } from "./partial.ts";
import { blobPathIn, type StorePaths } from "./store_layout.ts";

/**
 * Removes from `ingest/` what can never be continued: transfers whose two files are not both there or do not fit
 * together, or whose blob is there; and all other files. Whether their owner is dead is asked of its lock, never of a clock: what belongs to
 * somebody who lives stays. Interrupted transfers that can be continued stay, too.
 */
export async function sweepIngest(paths: StorePaths, fileSystem: FileSystem): Promise<void> {
  const names = await fileSystem.readdir(paths.ingest);
  if (names.length === 0) return;
  const digests = new Set(names.map(digestOfTransfer).filter((digest) => digest !== undefined));
  for (const digest of digests) await sweepTransfer(digest, paths, fileSystem);
  if (names.every((name) => digestOfTransfer(name) !== undefined)) return;
  try {
    // Whoever writes files of other names holds this lock shared.
    await withLock(paths.ingestLock, { mode: "exclusive", timeoutMs: 0, fileSystem }, async () => {
      for (const name of await fileSystem.readdir(paths.ingest)) {
        if (digestOfTransfer(name) === undefined) await unlinkIfThere(join(paths.ingest, name), fileSystem);
      }
    });
  } catch (error) {
    if (!(error instanceof ShimError && error.code === "LOCK_TIMEOUT")) throw error;
  }
}

async function sweepTransfer(digest: Digest, paths: StorePaths, fileSystem: FileSystem): Promise<void> {
  const partial = partialPaths(paths.ingest, digest);
  const isDead = async () =>
    !await canBeContinued(partial, digest, fileSystem) ||
    await isThere(blobPathIn(paths.blobs, digest), fileSystem);
  if (!await isDead()) return;
  const lock = await tryLock(blobLockPath(paths, digest), {
    mode: "exclusive",
    fileSystem,
  });
  if (!lock) return;
  try {
    if (await isDead()) await removePartial(partial, fileSystem);
  } finally {
    await lock.release();
  }
}

function digestOfTransfer(name: string): Digest | undefined {
  const key = partOfTransfer(name)?.key;
  if (key === undefined) return undefined;
  try {
    return parseDigest(key.replace("-", ":"));
  } catch {
    return undefined;
  }
}

async function isThere(path: string, fileSystem: FileSystem): Promise<boolean> {
  try {
    await fileSystem.lstat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}
