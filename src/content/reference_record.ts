import { createHash } from "node:crypto";
import { join } from "node:path";
import { z } from "zod";
import { ShimError } from "../errors.ts";
import { footprintIfThere, syncDirectory, unlinkIfThere, writeDurably } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import { type EntryJson, entryJson, nameOf } from "./index_entry.ts";
import { readLayoutFile } from "./layout_file.ts";
import { PRIVATE_FILE } from "./store_layout.ts";

const MAX_RECORD_BYTES = 1024 * 1024;
const RECORD_FILE = /^[a-f0-9]{64}\.json$/;

/** A record of another version was written by another bootshim, and counts as unreadable. */
const recordJson = z.strictObject({ schemaVersion: z.literal(1), name: z.string(), entry: entryJson });

/** Our own note of one name: the very entry that stands in `index.json` for it. */
export type ReferenceRecord = { readonly name: string; readonly entry: EntryJson };

/** A record's last use counts in milliseconds since 1970. */
export type RecordStatus = { readonly modifiedMs: number };

/**
 * The records of images: `ROOT/references/SHA256-OF-NAME.json`, one for each of our entries in `index.json`, written
 * before the entry and removed after it. From them a damaged index is made anew; their time of change is the image's
 * last use. Writers hold the index's lock. Rejects with errno errors.
 */
export class ReferenceRecords {
  readonly #directory: string;
  readonly #fileSystem: FileSystem;

  constructor(directory: string, fileSystem: FileSystem) {
    this.#directory = directory;
    this.#fileSystem = fileSystem;
  }

  /** Durable when it resolves. */
  async write({ name, entry }: ReferenceRecord): Promise<void> {
    const path = this.#pathOf(name);
    const bytes = new TextEncoder().encode(JSON.stringify({ schemaVersion: 1, name, entry }));
    const fileSystem = this.#fileSystem;
    await writeDurably(path, bytes, { ...PRIVATE_FILE, fileSystem, temporaryPath: `${path}.new` });
  }

  async remove(names: readonly string[]): Promise<void> {
    let isChanged = false;
    for (const name of names) {
      if (await unlinkIfThere(this.#pathOf(name), this.#fileSystem)) isChanged = true;
    }
    if (isChanged) await syncDirectory(this.#directory, this.#fileSystem);
  }

  /** Says that the image was used now. A record that is not there, or cannot be changed, stays as it is. */
  async touch(name: string): Promise<void> {
    try {
      await this.#fileSystem.touch(this.#pathOf(name));
    } catch (error) {
      // Knowing the last use is worth less than the use itself: on a read-only file system above all.
      if (errnoOf(error) === undefined) throw error;
    }
  }

  /** @returns null when there is no record */
  async lastUse(name: string): Promise<RecordStatus | null> {
    return await footprintIfThere(this.#pathOf(name), this.#fileSystem) ?? null;
  }

  /** @returns undefined when there is none. @throws {ShimError} CACHE_LAYOUT_INVALID when it cannot be read */
  async read(name: string): Promise<ReferenceRecord | undefined> {
    return await this.#readFile(fileNameOf(name));
  }

  /** File names of records that belong to none of these names, and of temporary files that a crash left. */
  async strays(names: Iterable<string>): Promise<string[]> {
    const known = new Set(Array.from(names, fileNameOf));
    return (await this.#fileSystem.readdir(this.#directory)).filter((file) => !known.has(file));
  }

  /**
   * Removes what a crash left: a record whose entry was not written yet, or is gone already.
   *
   * @throws {ShimError} CACHE_LAYOUT_INVALID for one that cannot be read: nobody knows what it kept
   */
  async removeStray(file: string): Promise<void> {
    await this.requireReadable(file);
    await unlinkIfThere(join(this.#directory, file), this.#fileSystem);
  }

  /** @throws {ShimError} CACHE_LAYOUT_INVALID for a record that cannot be read */
  async requireReadable(file: string): Promise<void> {
    if (RECORD_FILE.test(file)) await this.#readFile(file);
  }

  /** All of them; one that cannot be read does not hide the others. */
  async list(): Promise<{ records: ReferenceRecord[]; unreadable: ShimError[] }> {
    const records: ReferenceRecord[] = [];
    const unreadable: ShimError[] = [];
    const files = (await this.#fileSystem.readdir(this.#directory)).filter((name) => RECORD_FILE.test(name));
    for (const file of files.sort()) {
      try {
        const record = await this.#readFile(file);
        if (record) records.push(record);
      } catch (error) {
        if (!(error instanceof ShimError)) throw error;
        unreadable.push(error);
      }
    }
    return { records, unreadable };
  }

  async #readFile(file: string): Promise<ReferenceRecord | undefined> {
    const path = join(this.#directory, file);
    const invalid = (why: string, cause?: unknown) =>
      new ShimError("CACHE_LAYOUT_INVALID", `Cannot use image record "${path}": ${why}`, {
        cause,
        details: { remedy: "move it away; `bootshim check --repair` writes it anew from the index", path },
      });
    const options = { schema: recordJson, maxBytes: MAX_RECORD_BYTES, invalid, fileSystem: this.#fileSystem };
    const record = await readLayoutFile(path, options);
    if (!record) return undefined;
    const { name, entry } = record;
    if (fileNameOf(name) !== file || nameOf(entry) !== name) throw invalid("it is of another name");
    return { name, entry };
  }

  #pathOf(name: string): string {
    return join(this.#directory, fileNameOf(name));
  }
}

function fileNameOf(name: string): string {
  return `${createHash("sha256").update(name).digest("hex")}.json`;
}
