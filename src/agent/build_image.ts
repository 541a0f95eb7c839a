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

/** The files of one manifest to be. */
export type BuildPart = {
  readonly architecture: Architecture;
  readonly variant: Variant;
  /** The kernel's command line, which goes into the image configuration, where today's consumers look for it. */
  readonly commandLine: string | undefined;
  /** Paths by role, in the order in which they become layers. */
  readonly files: ReadonlyMap<Exclude<Role, "cmdline">, string>;
};

export type BuiltImage = {
  readonly reference: string;
  readonly digest: Digest;
  readonly manifests: readonly Descriptor[];
};

/**
 * Makes an image of files and keeps it in the cache under a name. The same files give the same digests.
 *
 * Virtualization manifests come before metal ones in the index, because consumers that know no variant take the first
 * entry of their architecture.
 *
 * @throws {ShimError} REQUEST_INVALID for two parts of one architecture and variant, or a file that cannot be read;
 *   CMDLINE_INVALID
 */
export async function buildImage(
  context: AgentContext,
  name: Reference,
  parts: readonly BuildPart[],
): Promise<BuiltImage> {
  if (name.digest || name.transport !== "docker") {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot build image "${formatReference(name)}": must be named like HOST/REPOSITORY:TAG`,
    );
  }
  requireDistinct(parts);
  const ordered = parts.toSorted((a, b) => Number(a.variant === "metal") - Number(b.variant === "metal"));
  const manifests: Descriptor[] = [];
  for (const part of ordered) manifests.push(await buildManifest(context, part));
  const bytes = formatImageIndex({ entries: manifests, annotations: {} });
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

async function buildManifest(context: AgentContext, part: BuildPart): Promise<Descriptor> {
  const layers: Descriptor[] = [];
  for (const [role, path] of part.files) {
    layers.push(await context.content.ingestFile(path, { mediaType: mediaTypeOf(role) }));
  }
  const commandLine = part.commandLine === undefined
    ? undefined
    : mergeCommandLine({ replacement: part.commandLine });
  const config = await keep(
    context,
    encode(commandLine === undefined ? {} : { commandLine }),
    IRONCORE_CONFIG,
  );
  const annotations = { architecture: part.architecture, variant: part.variant };
  const manifest = await keep(context, formatImageManifest({ config, layers, annotations }), OCI_MANIFEST);
  return {
    ...manifest,
    platform: { architecture: part.architecture, os: "linux" },
    annotations: { variant: part.variant },
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
