import { z } from "zod";
import { type Descriptor, descriptorJson, fromDescriptor, toDescriptor } from "../image/descriptor.ts";
import { describeIssues } from "../image/json_document.ts";
import { toRefName } from "./reference_name.ts";

/** What other tools know an entry by. */
export const REF_NAME = "org.opencontainers.image.ref.name";
/** Our own annotations; `reference` is the exact name, and only entries that have it are ours. */
const OWN_PREFIX = "io.bootshim.";
const MARKER = "io.bootshim.reference";
/** Collection leaves an image that has it. */
const PINNED = "io.bootshim.pinned";

export const entryJson = z.record(z.string(), z.unknown());
export type EntryJson = z.infer<typeof entryJson>;

/**
 * Entries stay as they are until one is asked for: foreign ones are kept word for word, whatever they hold.
 */
export const layoutIndexJson = z.looseObject({ schemaVersion: z.literal(2), manifests: z.array(entryJson) });
export type LayoutIndexJson = z.infer<typeof layoutIndexJson>;

/** An image we know by name. The descriptor's annotations are all of the entry's, ours included. */
export type StoredReference = { readonly name: string; readonly descriptor: Descriptor };

/** The exact name of an entry that we wrote, else undefined. */
export function nameOf(entry: EntryJson): string | undefined {
  return annotationOf(entry, MARKER);
}

export function isPinned(entry: EntryJson): boolean {
  return annotationOf(entry, PINNED) === "true";
}

function annotationOf({ annotations }: EntryJson, key: string): string | undefined {
  if (typeof annotations !== "object" || annotations === null || !(key in annotations)) return undefined;
  const value: unknown = Reflect.get(annotations, key);
  return typeof value === "string" ? value : undefined;
}

/** @param annotations of our own, beside those of the descriptor */
export function makeEntry(
  name: string,
  descriptor: Descriptor,
  annotations: Readonly<Record<string, string>>,
): EntryJson {
  // What an image says of itself must not pass for what we say of it.
  const foreign = Object.entries(descriptor.annotations).filter(([key]) => !key.startsWith(OWN_PREFIX));
  return fromDescriptor({
    ...descriptor,
    annotations: {
      ...Object.fromEntries(foreign),
      ...annotations,
      [REF_NAME]: toRefName(name),
      [MARKER]: name,
    },
  });
}

/** The same entry, pinned or not. */
export function withPin(entry: EntryJson, pinned: boolean): EntryJson {
  const { annotations } = entry;
  const all = typeof annotations === "object" && annotations !== null ? Object.entries(annotations) : [];
  const others = all.filter(([key]) => key !== PINNED);
  return {
    ...entry,
    annotations: Object.fromEntries(pinned ? [[PINNED, "true"], ...others] : others),
  };
}

/**
 * What an entry stands for.
 *
 * @param invalid makes the error for one that is no descriptor
 */
export function descriptorOf(
  entry: EntryJson,
  invalid: (why: string, cause?: unknown) => Error,
): Descriptor {
  const result = descriptorJson.safeParse(entry);
  if (!result.success) throw invalid(`is no descriptor, ${describeIssues(result.error)}`);
  try {
    return toDescriptor(result.data);
  } catch (error) {
    throw invalid("has no usable digest", error);
  }
}
