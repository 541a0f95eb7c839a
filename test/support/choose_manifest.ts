import { expect } from "vitest";
import type { Digest } from "../../src/image/digest.ts";
import { type ImageIndex, parseImageIndex } from "../../src/image/image_index.ts";
import { isIndexType } from "../../src/image/media_type.ts";
import type { Annotations } from "../../src/image/offer.ts";
import { type ChoiceStep, nextStep, type PlatformWish } from "../../src/image/select_manifest.ts";
import {
  descriptorJsonOf,
  entryJsonOf,
  indexDocument,
  indexJsonOf,
  type JsonObject,
} from "./image_documents.ts";

export const VM: PlatformWish = { architecture: "amd64", variant: "virtualization" };
export const METAL: PlatformWish = { architecture: "amd64", variant: "metal" };
export const ARM: PlatformWish = { architecture: "arm64", variant: "virtualization" };

/** The index of these entries, as it is read. */
export function indexOf(...entries: readonly JsonObject[]): ImageIndex {
  const { bytes, descriptor } = indexDocument(indexJsonOf(entries));
  return parseImageIndex(bytes, descriptor);
}

type Chosen = Extract<ChoiceStep, { kind: "chosen" }>;
export type Below = {
  readonly manifests?: ReadonlyMap<Digest, Annotations>;
  readonly indexes?: ReadonlyMap<Digest, ImageIndex>;
};

/** The choice to its end, and what had to be read for it. A manifest that nobody describes states nothing. */
export function choose(
  index: ImageIndex,
  wish: PlatformWish,
  below: Below = {},
): Chosen & { read: Digest[] } {
  const read = { indexes: new Map<Digest, ImageIndex>(), manifests: new Map<Digest, Annotations>() };
  const order: Digest[] = [];
  for (;;) {
    const step = nextStep(index, wish, read);
    if (step.kind === "chosen") return { ...step, read: order };
    const { mediaType, digest } = step.descriptor;
    expect(order).not.toContain(digest);
    order.push(digest);
    if (isIndexType(mediaType)) read.indexes.set(digest, below.indexes?.get(digest) ?? indexOf());
    else read.manifests.set(digest, below.manifests?.get(digest) ?? {});
  }
}

/** What the manifests at these places of the index say of themselves. */
export function annotationsAt(
  index: ImageIndex,
  byPlace: Readonly<Record<number, Record<string, string>>>,
): ReadonlyMap<Digest, Annotations> {
  return new Map(
    Object.entries(byPlace).map(([place, annotations]) => [digestAt(index, Number(place)), annotations]),
  );
}

export function digestAt(index: ImageIndex, place: number): Digest {
  const entry = index.entries[place];
  if (!entry) throw new Error(`The index has no entry ${place}`);
  return entry.digest;
}

/** The place in the index of the chosen entry. */
export function chosenPlace(
  index: ImageIndex,
  wish: PlatformWish,
  manifests: ReadonlyMap<Digest, Annotations> = new Map(),
): number {
  return index.entries.indexOf(choose(index, wish, { manifests }).offer.descriptor);
}

/** The places of the entries that had to be read. */
export function readPlaces(index: ImageIndex, wish: PlatformWish, below: Below = {}): number[] {
  return choose(index, wish, below).read.map((digest) =>
    index.entries.findIndex((entry) => entry.digest === digest)
  );
}

export const amd64 = (changes: Parameters<typeof entryJsonOf>[1] = {}) => entryJsonOf("amd64", changes);
export const arm64 = (changes: Parameters<typeof entryJsonOf>[1] = {}) => entryJsonOf("arm64", changes);
export const annotated = (annotations: Record<string, string>, architecture = "amd64") =>
  entryJsonOf(architecture, { annotations });
/** Without a platform. */
export const annotatedOnly = (annotations: Record<string, string>) => descriptorJsonOf({ annotations });
/** Without a word about itself. */
export const silent = (changes: JsonObject = {}) => descriptorJsonOf(changes);
