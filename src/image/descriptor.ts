import { z } from "zod";
import { ShimError } from "../errors.ts";
import { type Digest, parseDigest } from "./digest.ts";

/**
 * What an index entry says its manifest is for. Words are kept verbatim, and empty where there are none; `platform.ts`
 * gives them meaning.
 */
export type Platform = {
  readonly architecture: string;
  readonly os: string;
  readonly variant?: string | undefined;
};

/**
 * The currency of the whole line: what some bytes are, how many, and what they hash to.
 *
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#properties
 */
export type Descriptor = {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly annotations: Readonly<Record<string, string>>;
  readonly platform?: Platform | undefined;
};

/** `type "/" subtype` of RFC 6838, section 4.2. */
const mediaType = z.string().max(255).regex(
  /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*$/,
);

export const annotationsJson = z.record(z.string(), z.string());

/** Go writes a word that nobody set as ""; other encoders leave it out, or write null. */
const platformWord = z.string().nullish().transform((word) => word ?? "");

/** The JSON form. The digest stays text here: a broken one must not spoil an entry that nobody needs. */
export const descriptorJson = z.object({
  mediaType,
  digest: z.string(),
  size: z.int().min(0),
  annotations: annotationsJson.nullish(),
  platform: z.object({ architecture: platformWord, os: platformWord, variant: z.string().optional() })
    .nullish(),
});
export type DescriptorJson = z.infer<typeof descriptorJson>;

/** @throws {ShimError} MANIFEST_INVALID, DIGEST_UNSUPPORTED: see {@link parseDigest} */
export function toDescriptor(json: DescriptorJson): Descriptor {
  return {
    mediaType: json.mediaType,
    digest: parseDigest(json.digest),
    sizeBytes: json.size,
    annotations: json.annotations ?? {},
    ...(json.platform ? { platform: json.platform } : {}),
  };
}

/**
 * One digest is one sequence of bytes, so it has one size wherever a document names it: of two, one is a lie, and which
 * one would be believed depended on who reads.
 *
 * @throws {ShimError} MANIFEST_INVALID
 */
export function requireOneSize(descriptors: readonly DescriptorJson[], what: string): void {
  if (descriptors.length < 2) return;
  const sizes = new Map<string, number>();
  for (const { digest, size } of descriptors) {
    const other = sizes.get(digest) ?? size;
    if (other !== size) {
      throw new ShimError(
        "MANIFEST_INVALID",
        `Cannot read ${what}: it gives "${digest}" two sizes, ${other} and ${size} bytes, must give it one`,
      );
    }
    sizes.set(digest, size);
  }
}

/** The other way: what a manifest or an index holds. Key order is fixed, so that equal images have equal digests. */
export function fromDescriptor(descriptor: Descriptor): Record<string, unknown> {
  const { mediaType, digest, sizeBytes, platform, annotations } = descriptor;
  return {
    mediaType,
    digest,
    size: sizeBytes,
    ...(platform
      ? {
        platform: {
          architecture: platform.architecture,
          os: platform.os,
          ...(platform.variant ? { variant: platform.variant } : {}),
        },
      }
      : {}),
    ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
  };
}

/** @throws {ShimError} LIMIT_EXCEEDED when the descriptor declares more than `maxBytes` */
export function requireAtMost(descriptor: Descriptor, maxBytes: number, what: string): void {
  if (descriptor.sizeBytes > maxBytes) {
    throw new ShimError(
      "LIMIT_EXCEEDED",
      `Cannot take ${what} "${descriptor.digest}": declared ${descriptor.sizeBytes} bytes, limit is ${maxBytes} bytes`,
    );
  }
}
