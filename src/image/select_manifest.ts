import { ShimError } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { ImageIndex } from "./image_index.ts";
import { isManifestType } from "./media_type.ts";
import { type Architecture, architectureOf, type Variant, variantOf } from "./platform.ts";

/** What the caller wants out of an index. */
export type PlatformWish = { readonly architecture: Architecture; readonly variant: Variant };

/** `other`: the entry says what it is for, and it is for neither (a cloud's own flavour, for one). */
export type StatedVariant = Variant | "other" | undefined;

/** One manifest on offer, read by every way in which images state such things. */
export type Offer = {
  readonly descriptor: Descriptor;
  readonly architecture: Architecture | undefined;
  /** The architecture's own word, for people. */
  readonly architectureWord: string | undefined;
  readonly os: string | undefined;
  readonly variant: StatedVariant;
};

/** Annotations of manifests that were fetched because their index entries did not say enough, by digest. */
export type ManifestAnnotations = ReadonlyMap<Digest, Readonly<Record<string, string>>>;

/** Reads what every entry of an index offers. `manifests` fills in what only the manifests themselves tell. */
export function offersOf(index: ImageIndex, manifests: ManifestAnnotations = new Map()): Offer[] {
  return index.entries.filter((entry) => isManifestType(entry.mediaType)).map((entry) => {
    const own = manifests.get(entry.digest) ?? {};
    // Go writes words that nobody set as "": they state nothing.
    const word = entry.platform?.architecture || entry.annotations["architecture"] || own["architecture"] ||
      undefined;
    return {
      descriptor: entry,
      architecture: word === undefined ? undefined : architectureOf(word),
      architectureWord: word,
      os: entry.platform?.os,
      variant: statedVariant(entry) ?? annotatedVariant(own),
    };
  });
}

/** In order: the `variant` annotation, `platform.variant`, the `cname` annotation. */
function statedVariant(entry: Descriptor): StatedVariant {
  const platformVariant = entry.platform?.variant;
  return wordVariant(entry.annotations["variant"]) ??
    // Most words here are about the processor (arm64's v8), which is no statement about ours.
    (platformVariant === undefined ? undefined : variantOf(platformVariant)) ??
    cnameVariant(entry.annotations["cname"]);
}

function annotatedVariant(annotations: Readonly<Record<string, string>>): StatedVariant {
  return wordVariant(annotations["variant"]) ?? cnameVariant(annotations["cname"]);
}

function wordVariant(word: string | undefined): StatedVariant {
  return word ? variantOf(word) ?? "other" : undefined;
}

/** Garden Linux's canonical name starts with its platform: `kvm-gardener_prod-amd64-…`, `metal_pxe-arm64-…`. */
function cnameVariant(cname: string | undefined): StatedVariant {
  if (!cname) return undefined;
  if (cname.startsWith("kvm")) return "virtualization";
  return cname.startsWith("metal") || cname.startsWith("baremetal") ? "metal" : "other";
}

/**
 * The entries that only their own manifests can place: fetch these few, then call {@link selectManifest} with what
 * they say. None when the index itself decides.
 */
export function undecidedEntries(index: ImageIndex, wish: PlatformWish): Descriptor[] {
  const offers = offersOf(index);
  const placed = placedOffers(offers, wish);
  if (placed.some((offer) => offer.variant === wish.variant)) return [];
  // Where linux entries exist, no other entry has a chance, whatever its manifest says.
  const open = placed.some(isLinux)
    ? placed
    : offers.filter((offer) => offer.architectureWord === undefined || placed.includes(offer));
  return open.filter((offer) => offer.variant === undefined || offer.architectureWord === undefined).map((
    offer,
  ) => offer.descriptor);
}

/** The offers of the wished architecture: those for linux, or all of them when there is none. */
function placedOffers(offers: readonly Offer[], wish: PlatformWish): readonly Offer[] {
  const ofArchitecture = offers.filter((offer) => offer.architecture === wish.architecture);
  return ofArchitecture.some(isLinux) ? ofArchitecture.filter(isLinux) : ofArchitecture;
}

function isLinux(offer: Offer): boolean {
  return offer.os === "linux";
}

/**
 * Chooses the manifest for a wish: right architecture, `linux` before other operating-system words, the stated wanted
 * variant before entries that state none; the first of equals.
 *
 * @throws {ShimError} PLATFORM_NOT_FOUND; `details.offered` lists what there is
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md "the first matching entry SHOULD be used"
 */
export function selectManifest(
  index: ImageIndex,
  wish: PlatformWish,
  manifests: ManifestAnnotations = new Map(),
): Offer {
  const offers = offersOf(index, manifests);
  // An index around one manifest that says nothing is as good as the manifest alone.
  const alone = offers.length === 1 && offers[0]?.architectureWord === undefined ? offers : [];
  const candidates = [...placedOffers(offers, wish), ...alone];
  const chosen = candidates.find((offer) => offer.variant === wish.variant) ??
    candidates.find((offer) => offer.variant === undefined);
  if (chosen) return chosen;
  throw platformNotFound(wish, offers);
}

/**
 * Accepts a manifest that no index led to, unless it states another architecture or variant than wished.
 *
 * @throws {ShimError} PLATFORM_NOT_FOUND
 */
export function requirePlatform(
  descriptor: Descriptor,
  wish: PlatformWish,
  stated: { annotations: Readonly<Record<string, string>>; architecture: string | undefined },
): Offer {
  const word = stated.annotations["architecture"] || stated.architecture || undefined;
  const offer: Offer = {
    descriptor,
    architecture: word === undefined ? undefined : architectureOf(word),
    architectureWord: word,
    os: undefined,
    variant: annotatedVariant(stated.annotations),
  };
  const isRight = (word === undefined || offer.architecture === wish.architecture) &&
    (offer.variant === undefined || offer.variant === wish.variant);
  if (isRight) return offer;
  throw platformNotFound(wish, [offer]);
}

function platformNotFound(wish: PlatformWish, offers: readonly Offer[]): ShimError {
  const offered = offers.map(describeOffer);
  const list = offered.map((offer) => `${offer.architecture ?? "any"}/${offer.variant ?? "unstated"}`).join(
    ", ",
  );
  return new ShimError(
    "PLATFORM_NOT_FOUND",
    `Cannot choose a manifest: wanted ${wish.architecture}/${wish.variant}, the image offers ${
      list || "nothing"
    }`,
    { details: { offered, remedy: "choose one of the offered with --arch and --variant" } },
  );
}

/** An offer as data: CONTRACT's `{architecture, os, variant, digest}`. */
export function describeOffer(
  offer: Offer,
): { architecture: string | null; os: string | null; variant: string | null; digest: Digest } {
  return {
    architecture: offer.architecture ?? offer.architectureWord ?? null,
    os: offer.os ?? null,
    variant: offer.variant ?? null,
    digest: offer.descriptor.digest,
  };
}
