import { ShimError } from "../errors.ts";

/** A checked digest, `algorithm:encoded`. Only {@link parseDigest} and {@link digestOf} make one, so it is safe in a path. */
export type Digest = string & { readonly __brand: "Digest" };

/** The algorithms that image-spec registers, with the length of their lower-case hexadecimal encoding. */
const ENCODED_LENGTH = { sha256: 64, sha512: 128 } as const;
export type DigestAlgorithm = keyof typeof ENCODED_LENGTH;
/** Those that bootshim can check. */
export const DIGEST_ALGORITHMS = ["sha256", "sha512"] as const satisfies readonly DigestAlgorithm[];

/** The grammar of any digest, known algorithm or not. Linear: no nested repetition. */
const GRAMMAR = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
const LOWER_HEX = /^[a-f0-9]+$/;
/** All that is right, in one look: ten thousand images have a hundred thousand digests. */
const DIGEST = /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/;
const MAX_LENGTH = 256;

/**
 * Checks a digest string.
 *
 * @throws {ShimError} MANIFEST_INVALID when it is no digest at all; DIGEST_UNSUPPORTED when its algorithm is not
 *   sha256 or sha512
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests
 */
export function parseDigest(text: string): Digest {
  if (DIGEST.test(text)) return text as Digest;
  if (text.length > MAX_LENGTH || !GRAMMAR.test(text)) {
    throw new ShimError(
      "MANIFEST_INVALID",
      `Cannot read digest ${JSON.stringify(text.slice(0, 100))}: must be "algorithm:encoded"`,
    );
  }
  const [algorithm = "", encoded = ""] = text.split(":");
  if (!Object.hasOwn(ENCODED_LENGTH, algorithm)) {
    throw new ShimError(
      "DIGEST_UNSUPPORTED",
      `Cannot verify digest "${text}": algorithm is "${algorithm}", must be sha256 or sha512`,
    );
  }
  const length = ENCODED_LENGTH[algorithm as DigestAlgorithm];
  if (encoded.length !== length || !LOWER_HEX.test(encoded)) {
    throw new ShimError(
      "MANIFEST_INVALID",
      `Cannot read digest "${text}": must be ${length} lower-case hexadecimal characters after "${algorithm}:"`,
    );
  }
  return text as Digest;
}

/** The digest that it is, undefined for what is none that we can check. */
export function digestIfAny(text: unknown): Digest | undefined {
  try {
    return typeof text === "string" ? parseDigest(text) : undefined;
  } catch {
    return undefined;
  }
}

/** Makes a digest of an already computed hash. */
export function digestOf(algorithm: DigestAlgorithm, encoded: string): Digest {
  return parseDigest(`${algorithm}:${encoded}`);
}

export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.slice(0, digest.indexOf(":")) as DigestAlgorithm;
}

export function digestEncoded(digest: Digest): string {
  return digest.slice(digest.indexOf(":") + 1);
}

/** The first characters, for people: `sha256:0123456789ab`. */
export function shortDigest(digest: string): string {
  return digest.slice(0, digest.indexOf(":") + 1 + 12);
}
