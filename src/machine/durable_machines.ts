import { statusIfThere, syncDirectory } from "../host/durable.ts";
import type { FileStatus, FileSystem } from "../host/file_system.ts";
import { SharedSync } from "./shared_sync.ts";

/** Of so many machines a process remembers that their names are durable. */
const MAX_KNOWN = 10_000;

/** Makes the names of machines survive a power loss. Rejects with an errno error. */
export class DurableMachines {
  readonly #fileSystem: FileSystem;
  readonly #sync: SharedSync;
  /** By path, which folder of that name is durable. */
  readonly #known = new Map<string, string>();

  /** @param directory in which the machines are */
  constructor(directory: string, fileSystem: FileSystem) {
    this.#fileSystem = fileSystem;
    this.#sync = new SharedSync(() => syncDirectory(directory, fileSystem));
  }

  /**
   * Of a machine that is there: whoever made it may have been killed before he came to it, or his sync failed.
   *
   * @param status of its folder, where it is known
   */
  async settle(path: string, status?: FileStatus): Promise<void> {
    const found = status ?? await statusIfThere(path, this.#fileSystem);
    const folder = found && `${found.device} ${found.inode} ${found.changedMs}`;
    if (folder !== undefined && this.#known.get(path) === folder) return;
    await this.#sync.run();
    if (this.#known.size >= MAX_KNOWN) this.#known.clear();
    if (folder !== undefined) this.#known.set(path, folder);
  }

  /** Of one that is gone. */
  async sync(): Promise<void> {
    await this.#sync.run();
  }
}
