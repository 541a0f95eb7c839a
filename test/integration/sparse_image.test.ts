/** A layer of zeros with some data in it, pulled over the wire. `BOOTSHIM_SPARSE_MIB=10240` makes it full size. */
import { createHash, randomBytes } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { expect, it } from "vitest";
import { fromDescriptor } from "../../src/image/descriptor.ts";
import { digestOf } from "../../src/image/digest.ts";
import { OCI_MANIFEST } from "../../src/image/media_type.ts";
import { blobOf } from "../support/blobs.ts";
import { type Answer, head, type SeenRequest, type Step } from "../support/fault_server.ts";
import { layoutProblems } from "../support/layout_checker.ts";
import { type OsImage, osImage, randomInitramfs, randomKernel } from "../support/os_image.ts";
import { serveImage, withPulls } from "../support/pull_kit.ts";
import { useTemporaryDirectory } from "../support/temporary_directory.ts";

const MIB = 1024 * 1024;
const SIZE_MIB = Number(process.env["BOOTSHIM_SPARSE_MIB"] ?? "256");
/** Of so many MiB one holds data: 100 MiB of 10 GiB. */
const DATA_EVERY = 102.4;
const temporary = useTemporaryDirectory();

const ZEROS = new Uint8Array(MIB);
const data = new Uint8Array(randomBytes(MIB));
const dataAt = new Set(
  Array.from({ length: Math.floor(SIZE_MIB / DATA_EVERY) }, (_none, i) => Math.floor(i * DATA_EVERY)),
);
const mibAt = (index: number) => dataAt.has(index) ? data : ZEROS;

/** The image, whose disk is never in memory. */
function sparseImage(): OsImage {
  const hash = createHash("sha256");
  for (let i = 0; i < SIZE_MIB; i++) hash.update(mibAt(i));
  const image = osImage({ kernel: randomKernel(), initramfs: randomInitramfs() });
  const disk = {
    mediaType: "application/vnd.ironcore.image.rootfs",
    digest: digestOf("sha256", hash.digest("hex")),
    sizeBytes: SIZE_MIB * MIB,
    annotations: {},
  };
  const layers = [...Object.values(image.layers).map(({ descriptor }) => descriptor), disk];
  const json = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: fromDescriptor(image.config.descriptor),
    layers: layers.map(fromDescriptor),
  };
  const manifest = blobOf(new TextEncoder().encode(JSON.stringify(json)), { mediaType: OCI_MANIFEST });
  return {
    ...image,
    manifest,
    layers: { ...image.layers, rootfs: { bytes: new Uint8Array(), descriptor: disk } },
  };
}

function serveDisk({ headers }: SeenRequest): Answer {
  const range = /^bytes=([0-9]+)-([0-9]+)$/.exec(headers.range ?? "");
  const first = Number(range?.[1] ?? 0);
  const end = Number(range?.[2] ?? SIZE_MIB * MIB - 1) + 1;
  const steps: Step[] = [{
    send: head(range ? 206 : 200, {
      "Content-Length": String(end - first),
      ...(range ? { "Content-Range": `bytes ${first}-${end - 1}/${SIZE_MIB * MIB}` } : {}),
    }),
  }];
  for (let at = first; at < end;) {
    const index = Math.floor(at / MIB);
    const next = Math.min((index + 1) * MIB, end);
    steps.push({ send: mibAt(index).subarray(at - index * MIB, next - index * MIB) });
    at = next;
  }
  return steps;
}

it(
  `DC26 an image of ${SIZE_MIB} MiB with ${dataAt.size} MiB of data takes a tenth more than its data`,
  async () => {
    const image = sparseImage();
    const digest = image.layers.rootfs?.descriptor.digest ?? "none";
    const root = join(temporary(), "root");
    const script = (request: SeenRequest) =>
      request.path.endsWith(digest) ? serveDisk(request) : serveImage(request, image);
    const limits = { headersTimeoutMs: 30_000, stallTimeoutMs: 30_000 };
    await withPulls({ root, script, limits }, async ({ pull }) => {
      const { layers } = await pull();
      const { size, blocks } = await stat(layers.find(({ role }) => role === "rootfs")?.path ?? "");
      expect(size).toBe(SIZE_MIB * MIB);
      expect(blocks * 512).toBeGreaterThanOrEqual(dataAt.size * MIB);
      expect(blocks * 512).toBeLessThanOrEqual(dataAt.size * MIB * 1.1);
      // The checker reads files whole; more than that would not fit.
      if (SIZE_MIB <= 1024) expect(layoutProblems(root)).toEqual([]);
    });
  },
  600_000,
);
