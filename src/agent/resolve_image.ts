import type { RoleLayer } from "../boot/prepared_boot.ts";
import { assignRoles } from "../boot/roles.ts";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { type ImageIndex, parseImageIndex } from "../image/image_index.ts";
import {
  type ImageConfig,
  type ImageManifest,
  parseImageConfig,
  parseImageManifest,
} from "../image/image_manifest.ts";
import type { ImageSource, VerifiedDocument } from "../image/image_source.ts";
import { isIndexType, isManifestType } from "../image/media_type.ts";
import { formatReference, type Reference } from "../image/reference.ts";
import {
  type Offer,
  offersOf,
  type PlatformWish,
  requirePlatform,
  selectManifest,
  undecidedEntries,
} from "../image/select_manifest.ts";
import type { AgentContext, PullPolicy } from "./agent_context.ts";
import type { LazySource } from "./open_source.ts";

export type ImageWish = PlatformWish & { readonly reference: Reference; readonly pull: PullPolicy };

/** A reference led to one manifest. Every document on the way is in hand and verified; no layer was touched. */
export type ResolvedImage = {
  /** The canonical spelling; the cache knows the image by it. */
  readonly name: string;
  /** What the reference stands for: an index or a manifest. */
  readonly root: Descriptor;
  /** Null when the reference led to a lone manifest. */
  readonly index: ImageIndex | null;
  readonly offers: readonly Offer[];
  readonly chosen: Offer;
  readonly manifest: ImageManifest;
  readonly config: ImageConfig;
  readonly layers: readonly RoleLayer[];
  readonly notes: readonly string[];
  /** Every document that was read, children before parents: the order in which they are stored. */
  readonly documents: readonly VerifiedDocument[];
  /** Bytes of documents that had to be asked for. */
  readonly transferredBytes: number;
  /** Where missing layers come from; null when the policy forbids asking. */
  readonly source: LazySource | null;
};

type Asking = { readonly source: LazySource | null; readonly signal?: AbortSignal | undefined };

/**
 * Reference to descriptor to index to manifest. Asks the source only for what the cache does not hold.
 *
 * @throws {ShimError} IMAGE_NOT_FOUND under `never` when something is missing; PLATFORM_NOT_FOUND; MEDIA_TYPE_UNSUPPORTED;
 *   LAYER_MISSING, LAYER_DUPLICATE; MANIFEST_INVALID and its kin; REGISTRY_* of the source
 */
export async function resolveImage(
  context: AgentContext,
  wish: ImageWish,
  asking: Asking,
): Promise<ResolvedImage> {
  const name = formatReference(wish.reference);
  const reader = new DocumentReader(context, name, asking);
  const root = await reader.readRoot(wish);
  const { index, chosen, annotations } = await chooseManifest(reader, root, wish);
  const manifestDocument = await reader.read(chosen.descriptor);
  const manifest = parseImageManifest(manifestDocument.bytes, chosen.descriptor);
  const configDocument = await reader.readConfig(manifest.config);
  const config = parseImageConfig(configDocument.bytes, manifest.config);
  // An index vouches for the platform of its entries; a lone manifest has only itself and its configuration.
  if (!index) {
    requirePlatform(root.descriptor, wish, {
      annotations: manifest.annotations,
      architecture: config.architecture,
    });
  }
  const { layers, notes } = assignRoles(manifest);
  return {
    name,
    root: root.descriptor,
    index,
    offers: index ? offersOf(index, annotations) : [chosen],
    chosen,
    manifest,
    config,
    layers,
    notes,
    documents: reader.childrenFirst(),
    transferredBytes: reader.transferredBytes,
    source: asking.source,
  };
}

async function chooseManifest(
  reader: DocumentReader,
  root: VerifiedDocument,
  wish: PlatformWish,
): Promise<
  {
    index: ImageIndex | null;
    chosen: Offer;
    annotations: ReadonlyMap<Digest, Readonly<Record<string, string>>>;
  }
> {
  const { mediaType, digest } = root.descriptor;
  if (isIndexType(mediaType)) {
    const index = parseImageIndex(root.bytes, root.descriptor);
    const annotations = new Map<Digest, Readonly<Record<string, string>>>();
    for (const entry of undecidedEntries(index, wish)) {
      const document = await reader.read(entry);
      annotations.set(entry.digest, parseImageManifest(document.bytes, entry).annotations);
    }
    return { index, chosen: selectManifest(index, wish, annotations), annotations };
  }
  if (!isManifestType(mediaType)) {
    throw new ShimError(
      "MEDIA_TYPE_UNSUPPORTED",
      `Cannot read image "${digest}": media type is "${mediaType}", must be an image index or an image manifest`,
    );
  }
  const manifest = parseImageManifest(root.bytes, root.descriptor);
  const chosen = requirePlatform(root.descriptor, wish, {
    annotations: manifest.annotations,
    architecture: undefined,
  });
  return { index: null, chosen, annotations: new Map() };
}

/** Reads documents from the cache, else from the source, and remembers each of them in the order of first use. */
class DocumentReader {
  readonly #context: AgentContext;
  readonly #name: string;
  readonly #asking: Asking;
  readonly #documents = new Map<Digest, VerifiedDocument>();
  transferredBytes = 0;

  constructor(context: AgentContext, name: string, asking: Asking) {
    this.#context = context;
    this.#name = name;
    this.#asking = asking;
  }

  /** What the reference stands for: the cache's word for it, unless the policy is to ask anew. */
  async readRoot(wish: ImageWish): Promise<VerifiedDocument> {
    const { reference, pull } = wish;
    const cached = pull === "always" && !reference.digest ? undefined : await this.#cachedRoot(reference);
    if (cached) return await this.read(cached);
    const document = await (await this.#requireSource()).resolve(
      reference.digest ?? reference.tag,
      this.#asking,
    );
    return this.#remember(document, true);
  }

  async read(descriptor: Descriptor): Promise<VerifiedDocument> {
    return await this.#readWith(
      descriptor,
      async (source) => await source.fetchDocument(descriptor, this.#asking),
    );
  }

  async readConfig(descriptor: Descriptor): Promise<VerifiedDocument> {
    return await this.#readWith(
      descriptor,
      async (source) => ({ descriptor, bytes: await source.fetchSmallBlob(descriptor, this.#asking) }),
    );
  }

  /** The order of reading is parents first: an index, its manifests, their configurations. */
  childrenFirst(): VerifiedDocument[] {
    return [...this.#documents.values()].reverse();
  }

  async #readWith(
    descriptor: Descriptor,
    fetch: (source: ImageSource) => Promise<VerifiedDocument>,
  ): Promise<VerifiedDocument> {
    const known = this.#documents.get(descriptor.digest);
    if (known) return known;
    if (await this.#context.content.hasBlob(descriptor)) {
      return this.#remember(await this.#context.content.readDocument(descriptor), false);
    }
    return this.#remember(await fetch(await this.#requireSource()), true);
  }

  /** A digest names the same image under any name, so any cached reference to it will do. */
  async #cachedRoot(reference: Reference): Promise<Descriptor | undefined> {
    const found = reference.digest
      ? (await this.#context.content.references()).find((each) => each.descriptor.digest === reference.digest)
      : await this.#context.content.findReference(this.#name);
    return found && await this.#context.content.hasBlob(found.descriptor) ? found.descriptor : undefined;
  }

  #remember(document: VerifiedDocument, isTransferred: boolean): VerifiedDocument {
    this.#documents.set(document.descriptor.digest, document);
    if (isTransferred) this.transferredBytes += document.bytes.length;
    return document;
  }

  async #requireSource(): Promise<ImageSource> {
    if (this.#asking.source) return await this.#asking.source();
    throw new ShimError(
      "IMAGE_NOT_FOUND",
      `Cannot use image "${this.#name}": it is not complete in the cache, and pulling is "never"`,
      {
        details: { remedy: `run: bootshim pull ${this.#name}` },
      },
    );
  }
}
