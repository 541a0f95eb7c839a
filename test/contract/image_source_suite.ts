import { describe, expect, it } from "vitest";
import type { ErrorCode } from "../../src/errors.ts";
import type { ImageSource, VerifiedDocument } from "../../src/image/image_source.ts";
import { type Blob, blobOf, randomBlob, randomManifest } from "../support/blobs.ts";
import { codeOf, failureOf } from "../support/failures.ts";
import { randomWord } from "../support/random_word.ts";
import { collect } from "../support/streams.ts";

/** What a source under test has to offer. All of it is random, so nothing can be answered by heart. */
export type PublishedImage = {
  readonly tag: string;
  /** What the tag stands for. */
  readonly document: VerifiedDocument;
  /** A manifest known by its digest alone. */
  readonly untagged: VerifiedDocument;
  /** The configuration and the layer that both manifests name. */
  readonly config: Blob;
  readonly layer: Blob;
};

export type SourceUnderTest = { readonly source: ImageSource; close(): Promise<void> };

export type ImageSourceSuiteOptions = {
  /** Publishes the image where a new source can get it. */
  readonly publish: (image: PublishedImage) => Promise<SourceUnderTest>;
  /** The code for something that is not there. */
  readonly notFound: ErrorCode;
};

function randomImage(): PublishedImage {
  const config = blobOf(new TextEncoder().encode(JSON.stringify({ random: randomWord() })), {
    mediaType: "application/vnd.oci.image.config.v1+json",
  });
  const layer = randomBlob(1_500_003);
  const parts = { config: config.descriptor, layers: [layer.descriptor] };
  return {
    tag: randomWord(),
    document: randomManifest(parts),
    untagged: randomManifest(parts),
    config,
    layer,
  };
}

/** What every {@link ImageSource} promises; to be run against each of them. */
export function imageSourceSuite(name: string, { publish, notFound }: ImageSourceSuiteOptions): void {
  async function withImage(
    body: (source: ImageSource, image: PublishedImage) => Promise<void>,
  ): Promise<void> {
    const image = randomImage();
    const { source, close } = await publish(image);
    try {
      await body(source, image);
    } finally {
      await close();
    }
  }
  const absent = randomBlob(100).descriptor;
  const aborted = () => ({ signal: AbortSignal.abort("enough") });

  describe(`ImageSource: ${name}`, () => {
    it("resolves a tag to the document's own digest, size, type and bytes", () =>
      withImage(async (source, { tag, document }) => {
        const { descriptor: { mediaType, digest, sizeBytes }, bytes } = await source.resolve(tag);
        expect({ mediaType, digest, sizeBytes, annotations: {} }).toEqual(document.descriptor);
        expect(bytes).toEqual(document.bytes);
      }));

    it("resolves a digest, whether a tag leads there or not", () =>
      withImage(async (source, { document, untagged }) => {
        for (const wanted of [document, untagged]) {
          const { descriptor: { mediaType, digest, sizeBytes }, bytes } = await source.resolve(
            wanted.descriptor.digest,
          );
          expect({ mediaType, digest, sizeBytes, annotations: {} }).toEqual(wanted.descriptor);
          expect(bytes).toEqual(wanted.bytes);
        }
      }));

    it("says that a tag or digest is not there", () =>
      withImage(async (source) => {
        expect(await codeOf(source.resolve(randomWord()))).toBe(notFound);
        expect(await codeOf(source.resolve(absent.digest))).toBe(notFound);
      }));

    it("fetches a document by descriptor", () =>
      withImage(async (source, { untagged }) => {
        expect(await source.fetchDocument(untagged.descriptor)).toEqual(untagged);
        expect(await codeOf(source.fetchDocument({ ...untagged.descriptor, digest: absent.digest }))).toBe(
          notFound,
        );
      }));

    it("refuses a document over 4 MiB unread", () =>
      withImage(async (source, { untagged }) => {
        const descriptor = { ...untagged.descriptor, sizeBytes: 4 * 1024 * 1024 + 1 };
        expect(await codeOf(source.fetchDocument(descriptor))).toBe("MANIFEST_TOO_LARGE");
      }));

    it("HM08 refuses documents and small blobs of another size than declared", () =>
      withImage(async (source, { untagged, config }) => {
        for (const wrong of [-1, 1]) {
          const document = { ...untagged.descriptor, sizeBytes: untagged.descriptor.sizeBytes + wrong };
          const blob = { ...config.descriptor, sizeBytes: config.descriptor.sizeBytes + wrong };
          expect(await codeOf(source.fetchDocument(document))).toBe("CONTENT_SIZE_MISMATCH");
          expect(await codeOf(source.fetchSmallBlob(blob))).toBe("CONTENT_SIZE_MISMATCH");
        }
      }));

    it("fetches a small blob, refuses a large one", () =>
      withImage(async (source, { config }) => {
        expect(await source.fetchSmallBlob(config.descriptor)).toEqual(config.bytes);
        const large = { ...config.descriptor, sizeBytes: 1024 ** 3 };
        expect(await codeOf(source.fetchSmallBlob(large))).toBe("LIMIT_EXCEEDED");
        expect(await codeOf(source.fetchSmallBlob({ ...config.descriptor, digest: absent.digest }))).toBe(
          notFound,
        );
      }));

    it("streams a layer", () =>
      withImage(async (source, { layer }) => {
        const bytes = await collect(await source.openBlob(layer.descriptor));
        expect(blobOf(bytes).descriptor).toEqual(layer.descriptor);
      }));

    it("streams the rest of a layer from any byte", () =>
      withImage(async (source, { layer }) => {
        const { length } = layer.bytes;
        for (const startByte of [1, Math.floor(length / 2), length - 1]) {
          const bytes = await collect(await source.openBlob(layer.descriptor, { startByte }));
          expect(blobOf(bytes)).toEqual(blobOf(layer.bytes.slice(startByte)));
        }
      }));

    it("lets go of a layer that is not wanted any more", () =>
      withImage(async (source, { layer }) => {
        const reader = (await source.openBlob(layer.descriptor)).getReader();
        const { value } = await reader.read();
        expect(value?.length).toBeGreaterThan(0);
        await reader.cancel();
        expect(await reader.read()).toEqual({ done: true, value: undefined });
      }));

    it("gives a layer's first bytes, and all of a shorter one", () =>
      withImage(async (source, { layer, config }) => {
        expect(await source.readHead(layer.descriptor, 4096)).toEqual(layer.bytes.slice(0, 4096));
        expect(await source.readHead(config.descriptor, 4096)).toEqual(config.bytes);
        expect(await codeOf(source.readHead(absent, 4096))).toBe(notFound);
      }));

    it("says that a layer is not there", () =>
      withImage(async (source) => {
        const all = async () => collect(await source.openBlob(absent));
        expect(await codeOf(all())).toBe(notFound);
      }));

    it("does nothing for a caller who has gone", () =>
      withImage(async (source, { tag, document, config, layer }) => {
        const openAll = async () => collect(await source.openBlob(layer.descriptor, aborted()));
        for (
          const call of [
            () => source.resolve(tag, aborted()),
            () => source.fetchDocument(document.descriptor, aborted()),
            () => source.fetchSmallBlob(config.descriptor, aborted()),
            () => source.readHead(layer.descriptor, 4096, aborted()),
            openAll,
          ]
        ) {
          expect((await failureOf(call())).code).toBe("CANCELLED");
        }
      }));

    it("ends a stream when its caller goes", () =>
      withImage(async (source, { layer }) => {
        const abort = new AbortController();
        const reader = (await source.openBlob(layer.descriptor, { signal: abort.signal })).getReader();
        await reader.read();
        abort.abort("enough");
        const rest = async () => {
          while (!(await reader.read()).done);
        };
        expect(await codeOf(rest())).toBe("CANCELLED");
      }));
  });
}
