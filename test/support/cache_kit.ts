import { join } from "node:path";
import { Collector } from "../../src/content/collector.ts";
import type { CacheUser } from "../../src/content/cache_survey.ts";
import { ContentStore } from "../../src/content/content_store.ts";
import { Leases } from "../../src/content/lease.ts";
import { type FileSystem, nodeFileSystem } from "../../src/host/file_system.ts";
import type { Descriptor } from "../../src/image/descriptor.ts";
import type { Digest } from "../../src/image/digest.ts";
import { OCI_INDEX } from "../../src/image/media_type.ts";
import { type Blob, blobOf, randomBlob, randomManifest } from "./blobs.ts";
import { randomWord } from "./random_word.ts";

/** A cached image with everything it is made of. */
export type KitImage = {
  readonly name: string;
  readonly root: Blob;
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
  /** All of the above, each once. */
  readonly blobs: readonly Blob[];
};

export type CacheKit = {
  readonly rootDirectory: string;
  readonly store: ContentStore;
  readonly leases: Leases;
  readonly collector: Collector;
  /** Who uses the cache from outside; tests push into it. */
  readonly users: CacheUser[];
};

/** The parts of a cache over one root, as several processes would open them. */
export async function openCache(
  rootDirectory: string,
  { fileSystem = nodeFileSystem, users = [] }: {
    readonly fileSystem?: FileSystem;
    readonly users?: CacheUser[];
  } = {},
): Promise<CacheKit> {
  const store = await ContentStore.open({ rootDirectory, groupId: null, fileSystem });
  const leases = new Leases({ rootDirectory, fileSystem });
  const collector = new Collector({ rootDirectory, fileSystem, users: () => Promise.resolve(users) });
  return { rootDirectory, store, leases, collector, users };
}

/** An index over one manifest over some layers that nobody can have guessed. */
export function makeImage(
  { name = `127.0.0.1:5000/os/${randomWord()}:1`, layers = [randomBlob(5000)], more = [] }: {
    readonly name?: string;
    readonly layers?: readonly Blob[];
    /** Further entries of the index. */
    readonly more?: readonly Descriptor[];
  } = {},
): KitImage {
  const config = randomConfig();
  const manifest = randomManifest({
    config: config.descriptor,
    layers: layers.map((layer) => layer.descriptor),
  });
  const entries = [manifest.descriptor, ...more].map(({ mediaType, digest, sizeBytes }) => ({
    mediaType,
    digest,
    size: sizeBytes,
    platform: { os: "linux", architecture: "amd64" },
  }));
  const json = JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries });
  const root = blobOf(new TextEncoder().encode(json), { mediaType: OCI_INDEX });
  return { name, root, manifest, config, layers, blobs: [root, manifest, config, ...layers] };
}

function randomConfig(): Blob {
  return blobOf(new TextEncoder().encode(JSON.stringify({ word: randomWord() })), {
    mediaType: "application/vnd.oci.image.config.v1+json",
  });
}

/** Stores all of an image, and names it. */
export async function cacheImage({ store }: Pick<CacheKit, "store">, image: KitImage): Promise<KitImage> {
  await storeBlobs({ store }, image.blobs);
  await store.setReference(image.name, image.root.descriptor);
  return image;
}

export async function storeBlobs({ store }: Pick<CacheKit, "store">, blobs: readonly Blob[]): Promise<void> {
  for (const { descriptor, bytes } of [...blobs].reverse()) await store.ingestBytes({ descriptor, bytes });
}

/** Which of these blobs are there. */
export async function presentOf(
  { store }: Pick<CacheKit, "store">,
  blobs: readonly Blob[],
): Promise<Digest[]> {
  const present: Digest[] = [];
  for (const { descriptor } of blobs) if (await store.hasBlob(descriptor)) present.push(descriptor.digest);
  return present;
}

export const digestsOf = (blobs: readonly Blob[]): Digest[] => blobs.map((blob) => blob.descriptor.digest);

/** A machine made of an image. */
export function userOf(id: string, image: KitImage): CacheUser {
  return {
    id,
    manifestDigest: image.manifest.descriptor.digest,
    needs: digestsOf(image.layers),
    digests: [image.root.descriptor.digest],
  };
}

export const inRoot = ({ rootDirectory }: Pick<CacheKit, "rootDirectory">, ...names: string[]): string =>
  join(rootDirectory, ...names);
