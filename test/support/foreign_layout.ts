import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Blob } from "./blobs.ts";

export type ForeignEntry = Blob & { readonly tag?: string };

/** Writes an image layout as another tool would; `entries` are listed in its index, `blobs` are only there. */
export async function writeForeignLayout(
  directory: string,
  { entries, blobs }: { entries: readonly ForeignEntry[]; blobs: readonly Blob[] },
): Promise<void> {
  for (const { descriptor: { digest }, bytes } of [...entries, ...blobs]) {
    const path = join(directory, "blobs", ...digest.split(":"));
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, bytes);
  }
  const manifests = entries.map(({ descriptor: { mediaType, digest, sizeBytes: size }, tag }) => ({
    mediaType,
    digest,
    size,
    ...(tag === undefined ? {} : { annotations: { "org.opencontainers.image.ref.name": tag } }),
  }));
  await writeFile(join(directory, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await writeFile(join(directory, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }));
}
