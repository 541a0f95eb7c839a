import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContentStore } from "../../src/content/content_store.ts";
import { fromDescriptor } from "../../src/image/descriptor.ts";
import { type Blob, blobOf } from "./blobs.ts";
import { osImage, osIndex, randomInitramfs, randomKernel } from "./os_image.ts";

export const nameOfImage = (number: number): string => `127.0.0.1:5000/many/os-${number}:1`;

/**
 * A cache of many bootable images, written file by file and not through the store, which would sync each of them. All
 * share kernel and initramfs; index, manifest, configuration and command line are each image's own.
 */
export async function writeManyImages(rootDirectory: string, count: number): Promise<void> {
  await ContentStore.open({ rootDirectory, groupId: null });
  const images = join(rootDirectory, "images");
  const write = ({ descriptor, bytes }: Blob) => {
    const path = join(images, "blobs", ...descriptor.digest.split(":"));
    writeFileSync(path, bytes, { mode: 0o400 });
  };
  const [kernel, initramfs] = [randomKernel(), randomInitramfs()];
  for (const bytes of [kernel, initramfs]) write(blobOf(bytes));
  const manifests: unknown[] = [];
  mkdirSync(join(rootDirectory, "references"), { recursive: true });
  for (let number = 0; number < count; number++) {
    const cmdline = new TextEncoder().encode(`console=ttyS0 number=${number}`);
    const image = osImage({ kernel, initramfs, cmdline }, { variant: "kvm" });
    const index = osIndex([image]);
    for (const blob of [index, image.manifest, image.config, blobOf(cmdline)]) write(blob);
    const name = nameOfImage(number);
    const annotations = { "org.opencontainers.image.ref.name": name, "io.bootshim.reference": name };
    const entry = fromDescriptor({ ...index.descriptor, annotations });
    manifests.push(entry);
    const file = `${createHash("sha256").update(name).digest("hex")}.json`;
    writeFileSync(
      join(rootDirectory, "references", file),
      JSON.stringify({ schemaVersion: 1, name, entry }),
      { mode: 0o600 },
    );
  }
  writeFileSync(join(images, "index.json"), JSON.stringify({ schemaVersion: 2, manifests }), { mode: 0o600 });
}
