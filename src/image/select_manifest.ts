import { ShimError } from "../errors.ts";
import type { Descriptor } from "./descriptor.ts";
import type { Digest } from "./digest.ts";
import type { ImageIndex } from "./image_index.ts";
import {
  type Annotations,
  completeStatement,
  NOTHING_READ,
  type Offer,
  type ReadDocuments,
  type Statement,
  statementOf,
  type Survey,
  surveyIndex,
} from "./offer.ts";
import { type Architecture, architectureOf, type Variant } from "./platform.ts";

/** What the caller wants out of an index. */
export type PlatformWish = { readonly architecture: Architecture; readonly variant: Variant };

/** Either the choice, or the one document that must be read before more can be said. */
export type ChoiceStep =
  | { readonly kind: "chosen"; readonly offer: Offer; readonly survey: Survey }
  | { readonly kind: "read"; readonly descriptor: Descriptor };

/** So many indexes may lie inside each other, the root among them. */
const MAX_DEPTH = 4;
/** Documents that one choice may cost; indexes in the wild have a few dozen entries, most of which need no reading. */
const MAX_READ = 64;

/**
 * One step of choosing the manifest for a wish: right architecture, `linux` (or no word) before other operating-system
 * words, the stated wanted variant before manifests that state none; the first of equals. Manifests and nested indexes
 * are asked for one by one, and only while they may change the choice. Call again with what was read.
 *
 * @throws {ShimError} PLATFORM_NOT_FOUND, with all there is in `details.offered`; DIGEST_UNSUPPORTED when only entries
 *   that cannot be verified would do; LIMIT_EXCEEDED over 1,000 descriptors, 64 documents or 4 indexes inside each other
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md "the first matching entry SHOULD be used"
 */
export function nextStep(index: ImageIndex, wish: PlatformWish, read: ReadDocuments): ChoiceStep {
  const survey = surveyIndex(index, read);
  const hasLinux = survey.manifests.some(({ os, architecture }) =>
    os === "linux" && architecture === wish.architecture
  );
  // Where linux is to be had, another system's word is no way out.
  const belongs = [mayBeLinux, ...(hasLinux ? [] : [() => true])];
  for (const isIn of belongs) {
    const manifests = survey.manifests.filter((offer) => isIn(offer) && fits(offer, wish));
    const placed = manifests.filter(({ architecture }) => architecture !== undefined);
    const stated = placed.find(({ variant }) => variant !== undefined);
    if (stated) return { kind: "chosen", offer: stated, survey };
    const open = manifests.find((offer) => isOpen(offer, read)) ??
      survey.unread.find((nested) => isIn(nested) && fits(nested, wish));
    if (open) return readStep(open, read);
    const [silent] = placed;
    if (silent) return { kind: "chosen", offer: silent, survey };
  }
  const lone = loneSilent(survey);
  if (lone && fits(lone, wish)) return { kind: "chosen", offer: lone, survey };
  // Only for the list of what there is.
  const [nested] = survey.unread;
  if (nested) return readStep(nested, read);
  throw nothingChosen(survey, wish);
}

/** An index around one manifest of which nothing tells the architecture is as good as the manifest alone. */
function loneSilent({ manifests: [first, second], unread, unverifiable }: Survey): Offer | undefined {
  const isAlone = second === undefined && unread.length === 0 && unverifiable.length === 0;
  return isAlone && first?.architectureWord === undefined ? first : undefined;
}

function mayBeLinux({ os }: Statement): boolean {
  return os === undefined || os === "linux";
}

/** Whether reading a manifest may tell more. */
function isOpen({ architectureWord, variant, descriptor }: Offer, read: ReadDocuments): boolean {
  return (architectureWord === undefined || variant === undefined) && !read.manifests.has(descriptor.digest);
}

/** Whether nothing that is stated speaks against the wish. */
function fits({ architectureWord, architecture, variant }: Statement, wish: PlatformWish): boolean {
  return (architectureWord === undefined || architecture === wish.architecture) &&
    (variant === undefined || variant === wish.variant);
}

function readStep(wanted: Offer & { readonly depth?: number }, read: ReadDocuments): ChoiceStep {
  if (wanted.depth !== undefined && wanted.depth > MAX_DEPTH) {
    throw tooMuch(`indexes are nested over ${MAX_DEPTH} deep in it`);
  }
  if (read.indexes.size + read.manifests.size >= MAX_READ) {
    throw tooMuch(`${MAX_READ} documents in it were read, and none decides`);
  }
  return { kind: "read", descriptor: wanted.descriptor };
}

function tooMuch(why: string): ShimError {
  return new ShimError("LIMIT_EXCEEDED", `Cannot choose a manifest from the image index: ${why}`, {
    details: { remedy: "name the manifest itself: …@sha256:DIGEST" },
  });
}

/** What a manifest without an index is taken to be, until {@link confirmPlatform} has looked into it. */
export function loneOffer(descriptor: Descriptor): Offer {
  return { descriptor, ...statementOf(descriptor) };
}

/** What a manifest and its configuration say themselves, and what else there is to choose from. */
export type InsideStatement = {
  readonly annotations: Annotations;
  /** The configuration's word. */
  readonly architecture: string | undefined;
  readonly offers: readonly Offer[];
};

/**
 * Compares the chosen manifest with what it says itself: whoever chose it, it must not be for something else.
 *
 * @throws {ShimError} PLATFORM_NOT_FOUND
 */
export function confirmPlatform(chosen: Offer, wish: PlatformWish, inside: InsideStatement): Offer {
  const own = statementOf({ annotations: inside.annotations });
  const word = own.architectureWord ?? (inside.architecture || undefined);
  const said: Statement = {
    ...own,
    architectureWord: word,
    architecture: word === undefined ? undefined : architectureOf(word),
  };
  const confirmed = { ...chosen, ...completeStatement(chosen, said) };
  const isRight = fits(confirmed, wish) && fits({ ...said, variant: undefined }, wish);
  if (isRight) return confirmed;
  const contradicting = { ...confirmed, ...completeStatement(said, chosen) };
  const offers = inside.offers.map((offer) =>
    offer.descriptor.digest === chosen.descriptor.digest ? contradicting : offer
  );
  throw platformNotFound(wish, offers.map(describeOffer));
}

function nothingChosen({ manifests, unverifiable }: Survey, wish: PlatformWish): ShimError {
  const wanted = unverifiable.find((each) => each.architecture === wish.architecture && fits(each, wish));
  if (wanted) {
    return new ShimError(
      "DIGEST_UNSUPPORTED",
      `Cannot choose a manifest: the one for ${wish.architecture}/${wish.variant} has digest "${
        wanted.digest.slice(0, 100)
      }", must be sha256 or sha512`,
    );
  }
  return platformNotFound(wish, [
    ...manifests.map(describeOffer),
    ...unverifiable.map((each) => ({ ...describeStatement(each), digest: each.digest })),
  ]);
}

type Offered = Described & { readonly digest: string };

/** Platforms named in the message; `details.offered` has them all. */
const MAX_NAMED = 16;

function platformNotFound(wish: PlatformWish, offered: readonly Offered[]): ShimError {
  const platforms = new Set(
    offered.map(({ architecture, variant }) => `${architecture ?? "any"}/${variant ?? "unstated"}`),
  );
  const named = [...platforms].slice(0, MAX_NAMED).join(", ");
  const more = platforms.size > MAX_NAMED ? ` and ${platforms.size - MAX_NAMED} more` : "";
  return new ShimError(
    "PLATFORM_NOT_FOUND",
    `Cannot choose a manifest: wanted ${wish.architecture}/${wish.variant}, the image offers ${
      named || "nothing"
    }${more}`,
    { details: { offered, remedy: "choose one of the offered with --arch and --variant" } },
  );
}

/** The manifests that an index offers, as far as its documents were read. @throws {ShimError} LIMIT_EXCEEDED */
export function offersOf(index: ImageIndex, read: ReadDocuments = NOTHING_READ): readonly Offer[] {
  return surveyIndex(index, read).manifests;
}

type Described = {
  readonly architecture: string | null;
  readonly os: string | null;
  readonly variant: string | null;
};

/** An offer as data: CONTRACT's `{architecture, os, variant, digest}`. */
export function describeOffer(offer: Offer): Described & { readonly digest: Digest } {
  return { ...describeStatement(offer), digest: offer.descriptor.digest };
}

/** An image's own words are shown up to here. */
const MAX_WORD_LENGTH = 64;

function describeStatement({ architecture, architectureWord, os, variant }: Statement): Described {
  return {
    architecture: architecture ?? architectureWord?.slice(0, MAX_WORD_LENGTH) ?? null,
    os: os?.slice(0, MAX_WORD_LENGTH) ?? null,
    variant: variant ?? null,
  };
}
