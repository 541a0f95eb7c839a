import { z } from "zod";
import { type DirectorySync, writeDurably } from "../host/durable.ts";
import type { FileSystem } from "../host/file_system.ts";
import { withLock } from "../host/flock.ts";
import { type Descriptor, descriptorJson, fromDescriptor, toDescriptor } from "../image/descriptor.ts";
import { describeIssues } from "../image/json_document.ts";
import { readLayoutFile } from "./layout_file.ts";
import { toRefName } from "./reference_name.ts";
import { layoutInvalid, LOCK_TIMEOUT_MS, PRIVATE_FILE, type StorePaths } from "./store_layout.ts";

/** What other tools know an entry by. */
export const REF_NAME = "org.opencontainers.image.ref.name";
/** Our own annotations; `reference` is the exact name, and only entries that have it are ours. */
const OWN_PREFIX = "io.bootshim.";
const MARKER = "io.bootshim.reference";

/** Room for a hundred thousand images; it bounds what a damaged file can cost. */
const MAX_INDEX_BYTES = 64 * 1024 * 1024;

const entryJson = z.record(z.string(), z.unknown());
type EntryJson = z.infer<typeof entryJson>;

/**
 * Entries stay as they are until one is asked for: foreign ones are kept word for word, whatever they hold.
 */
export const layoutIndexJson = z.looseObject({ schemaVersion: z.literal(2), manifests: z.array(entryJson) });
type LayoutIndexJson = z.infer<typeof layoutIndexJson>;

/** An image we know by name. The descriptor's annotations are all of the entry's, ours included. */
export type StoredReference = { readonly name: string; readonly descriptor: Descriptor };

/**
 * The names in `index.json`. Readers need no lock, because the file is only ever replaced whole; writers hold
 * its lock from reading to replacing, so no update is lost.
 *
 * Every method throws {ShimError} CACHE_LAYOUT_INVALID when the file is missing or is no image index, and
 * leaves it.
 */
export class ReferenceIndex {
  readonly #paths: StorePaths;
  readonly #fileSystem: FileSystem;

  constructor(paths: StorePaths, fileSystem: FileSystem) {
    this.#paths = paths;
    this.#fileSystem = fileSystem;
  }

  async list(): Promise<StoredReference[]> {
    const index = await this.#read();
    const references: StoredReference[] = [];
    const names = new Set<string>();
    for (const entry of index.manifests) {
      const name = nameOf(entry);
      if (name === undefined) continue;
      if (names.has(name)) throw this.#duplicate(name);
      names.add(name);
      references.push({ name, descriptor: this.#toDescriptor(entry, name) });
    }
    return references;
  }

  async find(name: string): Promise<StoredReference | undefined> {
    const entries = (await this.#read()).manifests.filter((entry) => nameOf(entry) === name);
    if (entries.length > 1) throw this.#duplicate(name);
    const [entry] = entries;
    return entry && { name, descriptor: this.#toDescriptor(entry, name) };
  }

  /** @returns undefined when the entry was there already, just so */
  async set(
    name: string,
    descriptor: Descriptor,
    annotations: Readonly<Record<string, string>>,
  ): Promise<DirectorySync | undefined> {
    // What an image says of itself must not pass for what we say of it.
    const foreign = Object.entries(descriptor.annotations).filter(([key]) => !key.startsWith(OWN_PREFIX));
    const entry = fromDescriptor({
      ...descriptor,
      annotations: {
        ...Object.fromEntries(foreign),
        ...annotations,
        [REF_NAME]: toRefName(name),
        [MARKER]: name,
      },
    });
    return await this.#update((entries) => {
      const same = entries.filter((other) => nameOf(other) === name);
      if (same.length === 1 && JSON.stringify(same[0]) === JSON.stringify(entry)) return entries;
      return [...entries.filter((other) => nameOf(other) !== name), entry];
    });
  }

  /** @returns undefined when there was none */
  async remove(name: string): Promise<DirectorySync | undefined> {
    return await this.#update((entries) => {
      const others = entries.filter((entry) => nameOf(entry) !== name);
      return others.length === entries.length ? entries : others;
    });
  }

  /** Writes nothing when `change` gives back the very array it got. */
  async #update(change: (entries: EntryJson[]) => EntryJson[]): Promise<DirectorySync | undefined> {
    const { index: path, indexLock, indexTemporary: temporaryPath } = this.#paths;
    const fileSystem = this.#fileSystem;
    return await withLock(
      indexLock,
      { mode: "exclusive", timeoutMs: LOCK_TIMEOUT_MS, fileSystem },
      async () => {
        const index = await this.#read();
        const manifests = change(index.manifests);
        if (manifests === index.manifests) return undefined;
        const bytes = new TextEncoder().encode(JSON.stringify({ ...index, manifests }));
        return await writeDurably(path, bytes, { ...PRIVATE_FILE, fileSystem, temporaryPath });
      },
    );
  }

  async #read(): Promise<LayoutIndexJson> {
    const { index: path } = this.#paths;
    const index = await readLayoutFile(path, {
      schema: layoutIndexJson,
      maxBytes: MAX_INDEX_BYTES,
      invalid: (why, cause) => layoutInvalid(path, why, cause),
      fileSystem: this.#fileSystem,
    });
    if (index === undefined) throw layoutInvalid(path, "it is missing, must be an image index");
    return index;
  }

  #toDescriptor(entry: EntryJson, name: string): Descriptor {
    const { index: path } = this.#paths;
    const result = descriptorJson.safeParse(entry);
    if (!result.success) {
      throw layoutInvalid(
        path,
        `the entry of ${JSON.stringify(name)} is no descriptor, ${describeIssues(result.error)}`,
      );
    }
    try {
      return toDescriptor(result.data);
    } catch (error) {
      throw layoutInvalid(path, `the entry of ${JSON.stringify(name)} has no usable digest`, error);
    }
  }

  #duplicate(name: string): Error {
    return layoutInvalid(
      this.#paths.index,
      `it has several entries for ${JSON.stringify(name)}, must have one`,
    );
  }
}

/** The exact name of an entry that we wrote, else undefined. */
function nameOf({ annotations }: EntryJson): string | undefined {
  if (typeof annotations !== "object" || annotations === null || !(MARKER in annotations)) return undefined;
  const name = annotations[MARKER];
  return typeof name === "string" ? name : undefined;
}
