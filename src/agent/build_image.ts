import { mediaTypeOf } from "../boot/roles.ts";
import type { Role } from "../boot/prepared_boot.ts";
import { mergeCommandLine } from "../boot/command_line.ts";
import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import { formatImageIndex } from "../image/image_index.ts";
import { formatImageManifest } from "../image/image_manifest.ts";
import { IRONCORE_CONFIG, OCI_INDEX, OCI_MANIFEST } from "../image/media_type.ts";
import type { Architecture, Variant } from "../image/platform.ts";
import { formatReference, type Reference } from "../image/reference.ts";
import { hashBytes } from "../image/verification.ts";
import type { AgentContext } from "./agent_context.ts";
import { withLease } from "./with_lease.ts";

/**
 * Whose media types the layers get: `ironcore` is what tools write and providers read today, `spec` what the format's
 * current specification says. They differ in the disk only: both have plain OCI manifests, and the command line in the
 * image configuration, because the current specification knows no layer for it.
 */
export type BuildFormat = "ironcore" | "spec";

/** The disk's name in the specification. */
const SPECIFIED_DISK = "application/vnd.ironcore.image.disk.img";

const TITLE = "org.opencontainers.image.title";

/** How Garden Linux's canonical names begin. Consumers of metal images look for theirs before anything else. */
const CNAME_PREFIX: Readonly<Record<Variant, string>> = { virtualization: "kvm", metal: "metal_pxe" };

/** Layers stand in this order, whatever the order in which they were given. */
const LAYER_ORDER = ["rootfs", "kernel", "initramfs", "squashfs", "uki", "iso"] as const;

/** The files of one manifest to be. */
export type BuildPart = {
  readonly architecture: Architecture;
  readonly variant: Variant;
  /** The kernel's command line, which goes into the image configuration, where today's consumers look for it. */
  readonly commandLine: string | undefined;
  /** Paths by role. */
  readonly files: ReadonlyMap<Exclude<Role, "cmdline">, string>;
};

export type BuildOptions = {
  readonly format?: BuildFormat;
  /** Of the index. */
  readonly annotations?: ReadonlyMap<string, string>;
  readonly signal?: AbortSignal | undefined;
};

export type BuiltImage = {
  readonly reference: string;
  readonly digest: Digest;
  readonly manifests: readonly Descriptor[];
};

/**
 * Makes an image of files and keeps it in the cache under a name. The same files give the same digests, whatever their
 * paths and times, and whatever the order of parts and annotations; the name is no part of the image.
 *
 * Virtualization manifests come before metal ones in the index, because consumers that know no variant take the first
 * entry of their architecture. Those that know it find it in the index entry, as a word and as a canonical name, and in
 * the manifest. It is not in `platform.variant`: there it would hide the image from container tools, to which a variant is
 * one of the processor.
 *
 * @throws {ShimError} REQUEST_INVALID for two parts of one architecture and variant, or a file that cannot be read;
 *   CMDLINE_INVALID
 */
export async function buildImage(
  context: AgentContext,
  name: Reference,
  parts: readonly BuildPart[],
  { format = "ironcore", annotations = new Map(), signal }: BuildOptions = {},
): Promise<BuiltImage> {
  if (name.digest || name.transport !== "docker") {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot build image "${formatReference(name)}": must be named like HOST/REPOSITORY:TAG`,
    );
  }
  requireDistinct(parts);
  return await withLease(
    context,
    { signal },
    (leased) => buildLeased(leased, name, parts, { format, annotations, signal }),
  );
}

async function buildLeased(
  context: AgentContext,
  name: Reference,
  parts: readonly BuildPart[],
  { format, annotations, signal }: Required<Omit<BuildOptions, "signal">> & Pick<BuildOptions, "signal">,
): Promise<BuiltImage> {
  const ordered = parts.toSorted((a, b) =>
    Number(a.variant === "metal") - Number(b.variant === "metal") ||
    (a.architecture < b.architecture ? -1 : 1)
  );
  const manifests: Descriptor[] = [];
  for (const part of ordered) manifests.push(await buildManifest(context, part, { format, signal }));
  const bytes = formatImageIndex({
    entries: manifests,
    annotations: Object.fromEntries([...annotations].sort(([a], [b]) => a < b ? -1 : 1)),
  });
  const index = await keep(context, bytes, OCI_INDEX);
  await context.content.setReference(formatReference(name), index);
  return { reference: formatReference(name), digest: index.digest, manifests };
}

function requireDistinct(parts: readonly BuildPart[]): void {
  const seen = new Set<string>();
  for (const { architecture, variant } of parts) {
    const platform = `${architecture}/${variant}`;
    if (seen.has(platform)) {
      throw new ShimError(
        "REQUEST_INVALID",
        `Cannot build the image: two configurations are for ${platform}, must be one each`,
      );
    }
    seen.add(platform);
  }
}

async function buildManifest(
  context: AgentContext,
  part: BuildPart,
  { format, signal }: { readonly format: BuildFormat; readonly signal: AbortSignal | undefined },
): Promise<Descriptor> {
  const layers: Descriptor[] = [];
  for (const role of LAYER_ORDER) {
    const path = part.files.get(role);
    if (path === undefined) continue;
    const mediaType = role === "rootfs" && format === "spec" ? SPECIFIED_DISK : mediaTypeOf(role);
    const layer = await context.content.ingestFile(path, { mediaType, signal });
    // Generic tools make files of titles; the file's own name is no part of the image.
    layers.push({ ...layer, annotations: { [TITLE]: role } });
  }
  const commandLine = part.commandLine === undefined
    ? undefined
    : mergeCommandLine({ replacement: part.commandLine });
  const config = await keep(
    context,
    encode(commandLine === undefined ? {} : { commandLine }),
    IRONCORE_CONFIG,
  );
  const { architecture, variant } = part;
  const annotations = { architecture, [TITLE]: `${variant}-${architecture}`, variant };
  const manifest = await keep(context, formatImageManifest({ config, layers, annotations }), OCI_MANIFEST);
  return {
    ...manifest,
    platform: { architecture, os: "linux" },
    annotations: { architecture, cname: `${CNAME_PREFIX[variant]}-${architecture}`, variant },
  };
}

function encode(json: Readonly<Record<string, string>>): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(json));
}

async function keep(context: AgentContext, bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
  const descriptor: Descriptor = {
    mediaType,
    digest: hashBytes(bytes),
    sizeBytes: bytes.length,
    annotations: {},
  };
  await context.content.ingestBytes({ descriptor, bytes });
  return descriptor;
}
