/**
 * What images say their manifests are for, by every way in which they say it. Reading one more way is adding a row.
 */
import { ShimError } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { ImageIndex } from "./image_index.ts";
import { isIndexType, isManifestType } from "./media_type.ts";
import { type Architecture, architectureOf, type Variant, variantOf } from "./platform.ts";

export type Annotations = Readonly<Record<string, string>>;

/** `other`: somebody says what it is for, and it is for neither (a cloud's own flavour, for one). */
export type StatedVariant = Variant | "other" | undefined;

/** What is said about a manifest; undefined where nothing is said. */
export type Statement = {
  /** The architecture's own word, for people. */
  readonly architectureWord: string | undefined;
  readonly architecture: Architecture | undefined;
  readonly os: string | undefined;
  readonly variant: StatedVariant;
};

/** One manifest on offer. */
export type Offer = Statement & { readonly descriptor: Descriptor };

/** What was read so far below an index, by digest: nested indexes whole, of manifests their annotations. */
export type ReadDocuments = {
  readonly indexes: ReadonlyMap<Digest, ImageIndex>;
  readonly manifests: ReadonlyMap<Digest, Annotations>;
};

/** For callers that have the index alone. */
export const NOTHING_READ: ReadDocuments = { indexes: new Map(), manifests: new Map() };

type Source = Pick<Descriptor, "annotations" | "platform">;

/** In the order in which they count. */
const WAYS_OF_STATING_A_VARIANT: readonly ((source: Source) => StatedVariant)[] = [
  ({ annotations }) => variantOfWord(annotations["variant"]),
  // Most words here are about the processor (arm64's v8), which is no statement about ours.
  ({ platform }) => platform?.variant === undefined ? undefined : variantOf(platform.variant),
  ({ annotations }) => variantOfCname(annotations["cname"]),
  ({ annotations }) => variantOfFeatures(annotations["feature_set"]),
];

/** Reads a descriptor with its annotations, or a manifest's own annotations. */
export function statementOf(source: Source): Statement {
  // Go writes words that nobody set as "": they state nothing.
  const word = source.platform?.architecture || source.annotations["architecture"] || undefined;
  return {
    architectureWord: word,
    architecture: word === undefined ? undefined : architectureOf(word),
    os: source.platform?.os || undefined,
    variant: firstOf(WAYS_OF_STATING_A_VARIANT.map((read) => read(source))),
  };
}

/** A statement, completed by what others state. The earlier counts; none of its words is ever contradicted. */
export function completeStatement(statement: Statement, ...others: readonly Statement[]): Statement {
  const worded = [statement, ...others].find((each) => each.architectureWord !== undefined);
  return {
    architectureWord: worded?.architectureWord,
    architecture: worded?.architecture,
    os: statement.os ?? firstOf(others.map((each) => each.os)),
    variant: statement.variant ?? firstOf(others.map((each) => each.variant)),
  };
}

/** What of a statement the choice looks at: below another one of these, the same index offers other things. */
function meaningOf({ architecture, architectureWord, os, variant }: Statement): string {
  const system = os === undefined || os === "linux" ? os : "other";
  return `${architecture ?? (architectureWord && "other")} ${system} ${variant}`;
}

function firstOf<T>(values: readonly (T | undefined)[]): T | undefined {
  return values.find((value) => value !== undefined);
}

function variantOfWord(word: string | undefined): StatedVariant {
  return word ? variantOf(word) ?? "other" : undefined;
}

/** Garden Linux's canonical name starts with its platform: `kvm-gardener_prod-amd64-…`, `metal_pxe-arm64-…`. */
function variantOfCname(cname: string | undefined): StatedVariant {
  if (!cname) return undefined;
  if (cname.startsWith("kvm")) return "virtualization";
  return cname.startsWith("metal") || cname.startsWith("baremetal") ? "metal" : "other";
}

/** Garden Linux's lists have a few hundred characters; they are read anew at every step of the choice. */
const MAX_FEATURES_LENGTH = 4096;

/** Garden Linux's list of features names the platform among the others: `base,_slim,kvm,log`. */
function variantOfFeatures(features: string | undefined): StatedVariant {
  if (!features) return undefined;
  const words = features.slice(0, MAX_FEATURES_LENGTH).split(",");
  if (words.includes("kvm")) return "virtualization";
  return words.includes("metal") || words.includes("baremetal") ? "metal" : "other";
}

/** A nested index that was not read yet. */
export type NestedIndex = Offer & {
  /** Counted from the root, which is 1: 2 for an index that the root itself lists. */
  readonly depth: number;
};

/** All that an index offers, as far as its documents were read, in the order in which it lists them. */
export type Survey = {
  readonly manifests: readonly Offer[];
  readonly unread: readonly NestedIndex[];
  /** What entries offer that cannot be used, because nobody here can verify their digests. */
  readonly unverifiable: readonly (Statement & { readonly digest: string })[];
};

/** Descriptors that are looked at in all, nested indexes included. */
const MAX_DESCRIPTORS = 1000;

/**
 * Reads an index and those below it. What an entry states holds for all that is below it and states nothing itself; a
 * manifest's own annotations come last. An index that is listed twice counts once.
 *
 * @throws {ShimError} LIMIT_EXCEEDED over 1,000 descriptors
 */
export function surveyIndex(root: ImageIndex, read: ReadDocuments): Survey {
  const manifests: Offer[] = [];
  const unread: NestedIndex[] = [];
  const unverifiable: (Statement & { digest: string })[] = [];
  const visited = new Set<string>();
  let descriptors = 0;
  const visit = (index: ImageIndex, above: Statement, depth: number) => {
    descriptors += index.entries.length + index.unverifiable.length;
    if (descriptors > MAX_DESCRIPTORS) {
      throw new ShimError(
        "LIMIT_EXCEEDED",
        `Cannot read the image index: with the indexes inside it has over ${MAX_DESCRIPTORS} entries`,
      );
    }
    for (const { digest, platform, annotations } of index.unverifiable) {
      const source = { annotations: annotations ?? {}, platform: platform ?? undefined };
      unverifiable.push({ ...completeStatement(statementOf(source), above), digest });
    }
    for (const descriptor of index.entries) {
      const stated = completeStatement(statementOf(descriptor), above);
      if (isManifestType(descriptor.mediaType)) {
        const own = read.manifests.get(descriptor.digest);
        const known = own ? completeStatement(stated, statementOf({ annotations: own })) : stated;
        manifests.push({ descriptor, ...known });
      } else if (isIndexType(descriptor.mediaType)) {
        const key = `${descriptor.digest} ${meaningOf(stated)}`;
        if (visited.has(key)) continue;
        visited.add(key);
        const nested = read.indexes.get(descriptor.digest);
        if (nested) visit(nested, stated, depth + 1);
        else unread.push({ descriptor, ...stated, depth: depth + 1 });
      }
    }
  };
  visit(root, statementOf({ annotations: {} }), 1);
  return { manifests, unread, unverifiable };
}
