import { dirname } from "node:path";
import { type DirectorySync, statusIfThere, syncDirectory } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";

/** As many as one service's warm images have documents; then all is found out anew. */
const MAX_KNOWN = 10_000;

/**
 * Makes the names of files survive a power loss, whoever gave them: he may not have come to it yet. What this process has
 * once made durable is so as long as it is the same file.
 */
export class DurableNames {
  readonly #fileSystem: FileSystem;
  /** By path, which file it was. */
  readonly #known = new Map<string, string>();

  constructor(fileSystem: FileSystem) {
    this.#fileSystem = fileSystem;
  }

  /** @returns what came of each directory that had to be synced. Rejects with an errno error */
  async settle(paths: readonly string[]): Promise<DirectorySync[]> {
    const fresh = new Map<string, string>();
    for (const path of paths) {
      const status = await statusIfThere(path, this.#fileSystem);
      const file = status && `${status.device} ${status.inode} ${status.changedMs}`;
      if (file === undefined || this.#known.get(path) !== file) fresh.set(path, file ?? "");
    }
    const outcomes: DirectorySync[] = [];
    for (const directory of new Set([...fresh.keys()].map((path) => dirname(path)))) {
      outcomes.push(await syncDirectory(directory, this.#fileSystem));
    }
    if (this.#known.size + fresh.size > MAX_KNOWN) this.#known.clear();
    for (const [path, file] of fresh) this.#known.set(path, file);
    return outcomes;
  }
}
