import type { LayoutSource } from "../content/layout_source.ts";
import type { ImageSource } from "../image/image_source.ts";
import type { LayoutLocation, Reference } from "../image/reference.ts";
import type { RegistryClient } from "../registry/registry_client.ts";
import type { AgentContext, PullPolicy } from "./agent_context.ts";

type RepositoryName = { readonly host: string; readonly repository: string };

/** Opens the source at its first use, because a cached image needs none: its registry or folder may be gone. */
export type LazySource = () => Promise<ImageSource>;

/**
 * Runs `body` with the place a reference names, and closes it whatever happens.
 *
 * @param body gets null when the policy forbids to ask
 * @throws {ShimError} POLICY_DENIED before anything is asked or read
 */
export async function withSource<T>(
  context: AgentContext,
  { reference, pull }: { readonly reference: Reference; readonly pull: PullPolicy },
  body: (source: LazySource | null) => Promise<T>,
): Promise<T> {
  // Also of what is in the cache: what may not be used is not used because it was allowed once.
  if (reference.transport === "docker") context.registries.requireAllowed(reference);
  if (pull === "never") return await body(null);
  let opening: Promise<LayoutSource | RegistryClient> | undefined;
  try {
    return await body(() => opening ??= openSource(context, reference));
  } finally {
    // One that did not open has told so already.
    const opened = await opening?.catch(() => undefined);
    await opened?.close();
  }
}

async function openSource(
  context: AgentContext,
  reference: Reference,
): Promise<LayoutSource | RegistryClient> {
  if (reference.transport === "docker") return await openRegistry(context, reference);
  const { transport } = reference;
  return await openLayout({ transport, path: transport === "oci" ? reference.directory : reference.file });
}

/** Runs `body` with a whole image layout, and closes it whatever happens. Throws as opening it does. */
export async function withLayout<T>(
  location: LayoutLocation,
  body: (source: LayoutSource) => Promise<T>,
): Promise<T> {
  const source = await openLayout(location);
  try {
    return await body(source);
  } finally {
    await source.close();
  }
}

// Each is loaded when it is first needed: what is cached needs none of them, and a start pays for each file it loads.

/** Loads them all now, for a service: a tenth of a second in the main loop is better spent while nobody waits for it. */
export async function loadSources({ registries }: AgentContext): Promise<void> {
  await import("../content/layout_source.ts");
  await import("../content/archive_source.ts");
  await import("../registry/registry_client.ts");
  // Certificates that cannot be read are told to who needs them.
  await registries.load().catch(() => {});
}

async function openLayout({ transport, path }: LayoutLocation): Promise<LayoutSource> {
  if (transport === "oci") return await (await import("../content/layout_source.ts")).LayoutSource.open(path);
  return await (await import("../content/archive_source.ts")).openArchiveSource(path);
}

async function openRegistry(
  context: AgentContext,
  { host, repository }: RepositoryName,
): Promise<RegistryClient> {
  const { RegistryClient } = await import("../registry/registry_client.ts");
  return new RegistryClient({ host, repository, registries: context.registries });
}

/** Runs `body` with a client of one repository; no connection is made before the first request. */
export async function withRegistry<T>(
  context: AgentContext,
  repository: RepositoryName,
  body: (client: RegistryClient) => Promise<T>,
): Promise<T> {
  const client = await openRegistry(context, repository);
  try {
    return await body(client);
  } finally {
    await client.close();
  }
}
