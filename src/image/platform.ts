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
  const key = word.toLowerCase();
  return Object.hasOwn(ARCHITECTURES, key) ? ARCHITECTURES[key] : undefined;
}

/** The variant a word means, or undefined when the word is about something else (arm64's `v8`, for one). */
export function variantOf(word: string): Variant | undefined {
  const key = word.toLowerCase();
  return Object.hasOwn(VARIANTS, key) ? VARIANTS[key] : undefined;
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
