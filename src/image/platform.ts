import { ShimError } from "../errors.ts";

export type Architecture = "amd64" | "arm64";
export type Variant = "virtualization" | "metal";

/** Every spelling seen in images and typed by people. */
const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  amd64: "amd64",
  x86_64: "amd64",
  "x86-64": "amd64",
  x64: "amd64",
  arm64: "arm64",
  aarch64: "arm64",
  arch64: "arm64",
  v8: "arm64",
};

const VARIANTS: Readonly<Record<string, Variant>> = {
  virtualization: "virtualization",
  kvm: "virtualization",
  vm: "virtualization",
  metal: "metal",
  baremetal: "metal",
};

/** The architecture a word means, or undefined for one that bootshim does not boot. */
export function architectureOf(word: string): Architecture | undefined {
  return meaningIn(ARCHITECTURES, word);
}

/** The variant a word means, or undefined when the word is about something else (arm64's `v8`, for one). */
export function variantOf(word: string): Variant | undefined {
  return meaningIn(VARIANTS, word);
}

/** No word of ours is longer; an image's may be as long as its documents. */
const MAX_WORD_LENGTH = 32;

function meaningIn<T>(words: Readonly<Record<string, T>>, word: string): T | undefined {
  const key = word.slice(0, MAX_WORD_LENGTH).toLowerCase();
  return Object.hasOwn(words, key) ? words[key] : undefined;
}

/**
 * The architecture that the end of a name hints at: `1.0-arm64`, `gardenlinux-x86_64`. A name is only a label, so this
 * is for telling people, never for deciding.
 */
export function architectureHint(name: string): Architecture | undefined {
  const word = Object.keys(ARCHITECTURES).find((each) => name === each || name.endsWith(`-${each}`));
  return word === undefined ? undefined : ARCHITECTURES[word];
}

/** @throws {ShimError} REQUEST_INVALID */
export function requireArchitecture(word: string): Architecture {
  const architecture = architectureOf(word);
  if (architecture) return architecture;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use architecture ${JSON.stringify(word)}: must be one of ${
      Object.keys(ARCHITECTURES).join(", ")
    }`,
  );
}

/** @throws {ShimError} REQUEST_INVALID */
export function requireVariant(word: string): Variant {
  const variant = variantOf(word);
  if (variant) return variant;
  throw new ShimError(
    "REQUEST_INVALID",
    `Cannot use variant ${JSON.stringify(word)}: must be one of ${Object.keys(VARIANTS).join(", ")}`,
  );
}
