import { z } from "zod";
import { ShimError } from "../errors.ts";
import { type DirectorySync, unlinkIfThere, writeDurably } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import { withLock } from "../host/flock.ts";
import { errnoOf } from "../host/io_error.ts";
import type { Descriptor } from "../image/descriptor.ts";
import {
  descriptorOf,
  type EntryJson,
  isPinned,
  type LayoutIndexJson,
  layoutIndexJson,
  makeEntry,
  nameOf,
  type StoredReference,
  withPin,
} from "./index_entry.ts";
import { readLayoutFile } from "./layout_file.ts";
import { damagedName, rebuildIndex } from "./rebuild_index.ts";
import { ReferenceRecords } from "./reference_record.ts";
import { layoutInvalid, LOCK_TIMEOUT_MS, PRIVATE_FILE, type StorePaths } from "./store_layout.ts";

/** Room for a hundred thousand images; it bounds what a damaged file can cost. */
const MAX_INDEX_BYTES = 64 * 1024 * 1024;

export type ReferenceIndexOptions = {
  readonly fileSystem: FileSystem;
  /** Told when a damaged index was made anew. */
  readonly onRebuilt?: ((note: string) => void) | undefined;
  /** The caller holds the collector's lock already. */
  readonly isCollector?: boolean;
};

/**
 * The names in `index.json`. Readers need no lock, because the file is only ever replaced whole; writers hold
 * its lock from reading to replacing, so no update is lost. Each name of ours has a record of its own as well
 * (`reference_record.ts`), written first and removed last; from these a damaged index is made anew by whoever finds it.
 *
 * Every method throws {ShimError} CACHE_LAYOUT_INVALID, and leaves the file, when it is damaged and there are no
 * records, or when a newer version wrote it.
 */
export class ReferenceIndex {
  readonly records: ReferenceRecords;
  readonly #paths: StorePaths;
  readonly #fileSystem: FileSystem;
  readonly #onRebuilt: ReferenceIndexOptions["onRebuilt"];
  readonly #isCollector: boolean;

  constructor(paths: StorePaths, { fileSystem, onRebuilt, isCollector = false }: ReferenceIndexOptions) {
    this.#paths = paths;
    this.#fileSystem = fileSystem;
    this.#onRebuilt = onRebuilt;
    this.#isCollector = isCollector;
    this.records = new ReferenceRecords(paths.references, fileSystem);
  }

  async list(): Promise<StoredReference[]> {
    return (await this.entries()).flatMap((entry) => {
      const name = nameOf(entry);
      return name === undefined ? [] : [{ name, descriptor: this.#descriptorOf(entry, name) }];
    });
  }

  async find(name: string): Promise<StoredReference | undefined> {
    const entry = (await this.entries()).find((each) => nameOf(each) === name);
    return entry && { name, descriptor: this.#descriptorOf(entry, name) };
  }

  /** All entries as they stand there, those of others too. Ours have distinct names and sound descriptors. */
  async entries(): Promise<readonly EntryJson[]> {
    try {
      return (await this.#read()).manifests;
    } catch (error) {
      if (!isDamage(error)) throw error;
      return (await this.#locked(() => this.#readOrRebuild())).manifests;
    }
  }

  /**
   * Its last use is now. A pin stays.
   *
   * @returns undefined when the entry was there already, just so
   */
  async set(
    name: string,
    descriptor: Descriptor,
    annotations: Readonly<Record<string, string>>,
  ): Promise<DirectorySync | undefined> {
    const entry = makeEntry(name, descriptor, annotations);
    const wished = (before: EntryJson | undefined) =>
      before && isPinned(before) ? withPin(entry, true) : entry;
    // Looked at without the lock first: a cached image must also be of use on a read-only file system.
    const known = (await this.entries()).find((each) => nameOf(each) === name);
    if (known && isSame(known, wished(known))) {
      await this.records.touch(name);
      return undefined;
    }
    return await this.#update(async (entries) => {
      const before = entries.find((each) => nameOf(each) === name);
      const after = wished(before);
      if (before && isSame(before, after)) return entries;
      await this.records.write({ name, entry: after });
      return [...entries.filter((other) => nameOf(other) !== name), after];
    });
  }

  /** @returns what the name stands for, undefined when there is none of that name */
  async setPinned(name: string, pinned: boolean): Promise<Descriptor | undefined> {
    let found: Descriptor | undefined;
    await this.#update(async (entries) => {
      const before = entries.find((each) => nameOf(each) === name);
      if (!before) return entries;
      found = this.#descriptorOf(before, name);
      if (isPinned(before) === pinned) return entries;
      const after = withPin(before, pinned);
      await this.records.write({ name, entry: after });
      return entries.map((each) => each === before ? after : each);
    });
    return found;
  }

  /** @returns undefined when there was none of them */
  async remove(names: readonly string[]): Promise<DirectorySync | undefined> {
    const gone = new Set(names);
    return await this.#locked(async () => {
      const sync = await this.#updateLocked((entries) => {
        const others = entries.filter((entry) => !gone.has(nameOf(entry) ?? ""));
        return Promise.resolve(others.length === entries.length ? entries : others);
      });
      await this.records.remove(names);
      return sync;
    });
  }

  /**
   * Removes what crashes left: a half-written index, records without an entry.
   *
   * @throws {ShimError} CACHE_LAYOUT_INVALID for a record without an entry that cannot be read
   */
  async removeStrays(): Promise<void> {
    await this.#locked(async () => {
      const { manifests } = await this.#readOrRebuild();
      await unlinkIfThere(this.#paths.indexTemporary, this.#fileSystem);
      for (const file of await this.strays(manifests)) await this.records.removeStray(file);
    });
  }

  /** File names of records that belong to none of these entries. */
  async strays(entries: readonly EntryJson[]): Promise<string[]> {
    return await this.records.strays(entries.map(nameOf).filter((name) => name !== undefined));
  }

  /**
   * Names whose record says something else than the index, or that have none: a crash between the two leaves it so, and
   * so does whoever edits one of them.
   */
  async compareRecords(): Promise<{ name: string; why: string }[]> {
    const differing: { name: string; why: string }[] = [];
    for (const entry of await this.entries()) {
      const name = nameOf(entry);
      if (name === undefined) continue;
      try {
        const record = await this.records.read(name);
        if (!record) differing.push({ name, why: "it has no record" });
        else if (!isSame(record.entry, entry)) {
          const why = `the index says "${entry["digest"]}", its record says "${record.entry["digest"]}"`;
          differing.push({ name, why });
        }
      } catch (error) {
        if (!isDamage(error)) throw error;
        differing.push({ name, why: error.message });
      }
    }
    return differing;
  }

  /** Makes every name's record say what the index says; a cache of before there were records has none. */
  async writeRecords(): Promise<void> {
    const differing = new Set((await this.compareRecords()).map((each) => each.name));
    if (differing.size === 0) return;
    await this.#locked(async () => {
      for (const entry of (await this.#readOrRebuild()).manifests) {
        const name = nameOf(entry);
        if (name !== undefined && differing.has(name)) await this.records.write({ name, entry });
      }
    });
  }

  /** Names change while nobody collects: a name must not come to stand for something else while it is given up. */
  async #locked<T>(body: () => Promise<T>): Promise<T> {
    const { indexLock, collectLock } = this.#paths;
    const options = { timeoutMs: LOCK_TIMEOUT_MS, fileSystem: this.#fileSystem };
    const change = () => withLock(indexLock, { ...options, mode: "exclusive" }, body);
    if (this.#isCollector) return await change();
    return await withLock(collectLock, { ...options, mode: "shared" }, change);
  }

  /** Writes nothing when `change` gives back the very array it got. */
  async #update(
    change: (entries: EntryJson[]) => Promise<EntryJson[]>,
  ): Promise<DirectorySync | undefined> {
    return await this.#locked(() => this.#updateLocked(change));
  }

  async #updateLocked(
    change: (entries: EntryJson[]) => Promise<EntryJson[]>,
  ): Promise<DirectorySync | undefined> {
    const index = await this.#readOrRebuild();
    const manifests = await change(index.manifests);
    if (manifests === index.manifests) return undefined;
    return await this.#write({ ...index, manifests });
  }

  async #write(index: LayoutIndexJson): Promise<DirectorySync> {
    const { index: path, indexTemporary: temporaryPath } = this.#paths;
    const bytes = new TextEncoder().encode(JSON.stringify(index));
    return await writeDurably(path, bytes, { ...PRIVATE_FILE, fileSystem: this.#fileSystem, temporaryPath });
  }

  /** The caller holds the lock. The damaged file is set aside, not removed: what others wrote may be read off it. */
  async #readOrRebuild(): Promise<LayoutIndexJson> {
    const fileSystem = this.#fileSystem;
    try {
      return await this.#read();
    } catch (error) {
      if (!isDamage(error) || await this.#isNewer()) throw error;
      const entries = await this.#read({ isChecked: false }).then((index) => index.manifests, () => []);
      const damage = { error, entries };
      const { manifests, note } = await rebuildIndex(this.#paths, {
        records: this.records,
        damage,
        fileSystem,
      });
      const index = { schemaVersion: 2 as const, manifests: [...manifests] };
      const aside = await damagedName(this.#paths, fileSystem);
      const isKept = await fileSystem.rename(this.#paths.index, aside).then(() => true, (reason) => {
        if (errnoOf(reason) === "ENOENT") return false;
        throw reason;
      });
      await this.#write(index);
      this.#onRebuilt?.(isKept ? `${note}; the damaged file is kept as "${aside}"` : note);
      return index;
    }
  }

  async #read({ isChecked = true } = {}): Promise<LayoutIndexJson> {
    const { index: path } = this.#paths;
    const index = await readLayoutFile(path, {
      schema: layoutIndexJson,
      maxBytes: MAX_INDEX_BYTES,
      invalid: (why, cause) => damaged(path, why, cause),
      fileSystem: this.#fileSystem,
    });
    if (index === undefined) throw damaged(path, "it is missing, must be an image index");
    if (isChecked) this.#check(index);
    return index;
  }

  /** Whether a version that we do not know wrote it: then it is not damaged, and not ours to replace. */
  async #isNewer(): Promise<boolean> {
    const schema = z.looseObject({ schemaVersion: z.number() });
    const invalid = (why: string) => damaged(this.#paths.index, why);
    const options = { schema, maxBytes: MAX_INDEX_BYTES, invalid, fileSystem: this.#fileSystem };
    const index = await readLayoutFile(this.#paths.index, options).catch(() => undefined);
    return (index?.schemaVersion ?? 0) > 2;
  }

  #check({ manifests }: LayoutIndexJson): void {
    const names = new Set<string>();
    for (const entry of manifests) {
      const name = nameOf(entry);
      if (name === undefined) continue;
      if (names.has(name)) {
        throw damaged(this.#paths.index, `it has several entries for ${JSON.stringify(name)}, must have one`);
      }
      names.add(name);
      this.#descriptorOf(entry, name);
    }
  }

  #descriptorOf(entry: EntryJson, name: string): Descriptor {
    return descriptorOf(
      entry,
      (why, cause) => damaged(this.#paths.index, `the entry of ${JSON.stringify(name)} ${why}`, cause),
    );
  }
}

function isSame(one: EntryJson, other: EntryJson): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function damaged(path: string, why: string, cause?: unknown): ShimError {
  return layoutInvalid(path, why, cause);
}

function isDamage(error: unknown): error is ShimError {
  return error instanceof ShimError && error.code === "CACHE_LAYOUT_INVALID";
}
