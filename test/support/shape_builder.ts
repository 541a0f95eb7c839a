import type { Digest } from "../../src/image/digest.ts";
import { OCI_INDEX, OCI_MANIFEST } from "../../src/image/media_type.ts";
import type { PlatformWish } from "../../src/image/select_manifest.ts";
import type { Role } from "../../src/boot/prepared_boot.ts";
import { type Blob, blobOf, randomBlob } from "./blobs.ts";
import { writeForeignLayout } from "./foreign_layout.ts";
import type { JsonObject } from "./image_documents.ts";

/** The bytes of an operating system's parts, real or random. */
export type ShapeParts = {
  /** A whole disk with its partition table. */
  readonly disk: Uint8Array;
  readonly kernel: Uint8Array;
  readonly initramfs: Uint8Array;
  readonly squashfs: Uint8Array;
  /** A bare one, that can be written. */
  readonly fileSystem: Uint8Array;
  readonly uki: Uint8Array;
  readonly iso: Uint8Array;
  readonly cmdline: string;
};

/** Every wish there is, in the order of {@link BuiltShape}'s choices. */
export const WISHES: readonly PlatformWish[] = [
  { architecture: "amd64", variant: "virtualization" },
  { architecture: "amd64", variant: "metal" },
  { architecture: "arm64", variant: "virtualization" },
  { architecture: "arm64", variant: "metal" },
];

/** One image, and what is to be read out of it. */
export type BuiltShape = {
  readonly tag: string;
  readonly root: Blob;
  /** Manifests and indexes, children before parents: the root is the last. */
  readonly documents: readonly Blob[];
  /** Configurations and layers. */
  readonly blobs: readonly Blob[];
  /** The manifest for each of {@link WISHES}; null where there is none: PLATFORM_NOT_FOUND. */
  readonly choices: readonly (Digest | null)[];
  /** What the manifest for amd64 and virtualization holds. */
  readonly expected: {
    readonly layers: readonly { readonly role: Role; readonly digest: Digest }[];
    /** As the configuration has it. */
    readonly commandLine: string | undefined;
    readonly notes: readonly string[];
  };
};

type ManifestOptions = {
  readonly mediaType?: string;
  /** Added to the JSON; a field of `undefined` is left out. */
  readonly changes?: JsonObject;
  readonly config?: JsonObject;
};

/** Collects documents and blobs while a shape is put together. JSON is written here, not by the code under test. */
export class ShapeBuilder {
  readonly #documents = new Map<Digest, Blob>();
  readonly #blobs = new Map<Digest, Blob>();

  /** A layer's descriptor. Its bytes are some that nobody needs, unless told. */
  layer(mediaType: string, bytes?: Uint8Array, annotations?: Readonly<Record<string, string>>): JsonObject {
    const blob = bytes ? blobOf(bytes, { mediaType }) : randomBlob(64);
    this.#blobs.set(blob.descriptor.digest, blob);
    return entryOf(blob, { mediaType, ...(annotations ? { annotations } : {}) });
  }

  config(mediaType: string, json: unknown): JsonObject {
    return this.layer(mediaType, encode(json));
  }

  manifest(layers: readonly JsonObject[], options: ManifestOptions = {}): Blob {
    const { mediaType = OCI_MANIFEST, config = this.config(CONFIG, {}), changes = {} } = options;
    return this.#document({ schemaVersion: 2, mediaType, config, layers, ...changes }, mediaType);
  }

  index(entries: readonly JsonObject[], changes: JsonObject = {}, mediaType = OCI_INDEX): Blob {
    return this.#document({ schemaVersion: 2, mediaType, manifests: entries, ...changes }, mediaType);
  }

  #document(json: JsonObject, mediaType: string): Blob {
    const document = blobOf(encode(json), { mediaType });
    this.#documents.set(document.descriptor.digest, document);
    return document;
  }

  /** @param choices the manifest for each of {@link WISHES} */
  finish(
    root: Blob,
    choices: readonly (Blob | null)[],
    expected: {
      layers: readonly (readonly [Role, Uint8Array])[];
      commandLine?: string;
      notes?: readonly string[];
      tag?: string;
    },
  ): BuiltShape {
    return {
      tag: expected.tag ?? "1",
      root,
      documents: [...this.#documents.values()],
      blobs: [...this.#blobs.values()],
      choices: choices.map((choice) => choice && choice.descriptor.digest),
      expected: {
        layers: expected.layers.map(([role, bytes]) => ({ role, digest: blobOf(bytes).descriptor.digest })),
        commandLine: expected.commandLine,
        notes: expected.notes ?? [],
      },
    };
  }
}

export const CONFIG = "application/vnd.ironcore.image.config.v1+json";

/** A document as its parent lists it. */
export function entryOf({ descriptor }: Blob, changes: JsonObject = {}): JsonObject {
  return {
    mediaType: descriptor.mediaType,
    digest: descriptor.digest,
    size: descriptor.sizeBytes,
    ...changes,
  };
}

function encode(json: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(json));
}

/** Writes a shape as an image layout, for `oci:DIR:TAG`. */
export async function writeShape(directory: string, built: BuiltShape): Promise<void> {
  await writeForeignLayout(directory, {
    entries: [{ ...built.root, tag: built.tag }],
    blobs: [...built.documents, ...built.blobs],
  });
}

/**
 * Pushes a shape to a registry on loopback, by requests of its own.
 *
 * @returns the status of the first document that the registry refuses, else 201
 */
export async function pushShape(repositoryUrl: string, built: BuiltShape): Promise<number> {
  for (const { descriptor, bytes } of built.blobs) {
    const upload = await fetch(`${repositoryUrl}/blobs/uploads/`, { method: "POST" });
    const location = new URL(upload.headers.get("location") ?? "", repositoryUrl);
    location.searchParams.set("digest", descriptor.digest);
    const stored = await fetch(location, { method: "PUT", body: new Uint8Array(bytes) });
    if (stored.status !== 201) throw new Error(`The registry answers ${stored.status} to a blob`);
  }
  for (const { descriptor, bytes } of built.documents) {
    const name = descriptor.digest === built.root.descriptor.digest ? built.tag : descriptor.digest;
    const stored = await fetch(`${repositoryUrl}/manifests/${name}`, {
      method: "PUT",
      headers: { "content-type": descriptor.mediaType },
      body: new Uint8Array(bytes),
    });
    if (stored.status !== 201) return stored.status;
  }
  return 201;
}
