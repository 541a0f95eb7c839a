import { randomBytes } from "node:crypto";
import type { Role } from "../../src/boot/prepared_boot.ts";
import { fromDescriptor } from "../../src/image/descriptor.ts";
import type { VerifiedDocument } from "../../src/image/image_source.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/image/media_type.ts";
import type { LayoutReference } from "../../src/image/reference.ts";
import { type Blob, blobOf } from "./blobs.ts";
import { bzImage } from "./disk_bytes.ts";
import { writeForeignLayout } from "./foreign_layout.ts";

/** One manifest with its blobs, as a source would publish it. */
export type OsImage = {
  readonly manifest: VerifiedDocument;
  readonly config: Blob;
  readonly layers: Readonly<Partial<Record<Role, Blob>>>;
};

const MEDIA_TYPE = "application/vnd.ironcore.image.";

/** A manifest of these layers, which no other test has. */
export function osImage(
  layers: Readonly<Partial<Record<Role, Uint8Array>>>,
  { commandLine, architecture = "amd64", variant, os = "linux" }: {
    commandLine?: string;
    architecture?: string;
    variant?: string;
    os?: string;
  } = {},
): OsImage {
  const encode = (json: unknown) => new TextEncoder().encode(JSON.stringify(json));
  const config = blobOf(encode({ commandLine, random: randomBytes(8).toString("hex") }), {
    mediaType: `${MEDIA_TYPE}config.v1+json`,
  });
  const blobs = Object.entries(layers).map(([role, bytes]) =>
    [role, blobOf(bytes, { mediaType: `${MEDIA_TYPE}${role}` })] as const
  );
  const { bytes, descriptor } = blobOf(
    encode({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: fromDescriptor(config.descriptor),
      layers: blobs.map(([, blob]) => fromDescriptor(blob.descriptor)),
    }),
    { mediaType: OCI_MANIFEST },
  );
  return {
    manifest: {
      bytes,
      descriptor: {
        ...descriptor,
        platform: { architecture, os },
        annotations: variant === undefined ? {} : { variant },
      },
    },
    config,
    layers: Object.fromEntries(blobs),
  };
}

export function osIndex(
  images: readonly OsImage[],
  { annotations }: { readonly annotations?: Readonly<Record<string, string>> } = {},
): VerifiedDocument {
  const manifests = images.map(({ manifest }) => fromDescriptor(manifest.descriptor));
  const json = { schemaVersion: 2, mediaType: OCI_INDEX, manifests, ...(annotations ? { annotations } : {}) };
  return blobOf(new TextEncoder().encode(JSON.stringify(json)), { mediaType: OCI_INDEX });
}

/**
 * Writes an image layout whose tag `1` stands for an index of these images.
 *
 * @returns the reference to it, and the index
 */
export async function publishLayout(
  directory: string,
  images: readonly OsImage[],
  options: { readonly annotations?: Readonly<Record<string, string>> } = {},
): Promise<{ name: string; reference: LayoutReference; index: VerifiedDocument }> {
  const index = osIndex(images, options);
  await writeForeignLayout(directory, {
    entries: [{ ...index, tag: "1" }],
    blobs: images.flatMap(({ manifest, config, layers }) => [manifest, config, ...Object.values(layers)]),
  });
  return { name: `oci:${directory}:1`, reference: { transport: "oci", directory, tag: "1" }, index };
}

/** A kernel that no other test has. */
export function randomKernel(): Uint8Array {
  return new Uint8Array([...bzImage(), ...randomBytes(16)]);
}

/** The head of a cpio archive, and bytes that nobody can have guessed. */
export function randomInitramfs(): Uint8Array {
  return new Uint8Array([...new TextEncoder().encode("070701"), ...randomBytes(1000)]);
}
