import { openArchiveSource } from "../content/archive_source.ts";
import { LayoutSource } from "../content/layout_source.ts";
import type { ImageSource } from "../image/image_source.ts";
import type { LayoutLocation, Reference } from "../image/reference.ts";
import { RegistryClient } from "../registry/registry_client.ts";
import type { AgentContext, PullPolicy } from "./agent_context.ts";

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
  if (reference.transport === "docker") {
    return await withRegistry(
      context,
      reference,
      async (client) => await body(() => Promise.resolve(client)),
    );
  }
  const { transport } = reference;
  const path = reference.transport === "oci" ? reference.directory : reference.file;
  let opening: Promise<LayoutSource> | undefined;
  try {
    return await body(() => opening ??= openLayout({ transport, path }));
  } finally {
    // One that did not open has told so already.
    const opened = await opening?.catch(() => undefined);
    await opened?.close();
  }
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

async function openLayout({ transport, path }: LayoutLocation): Promise<LayoutSource> {
  return transport === "oci" ? await LayoutSource.open(path) : await openArchiveSource(path);
}

/** Runs `body` with a client of one repository; no connection is made before the first request. */
export async function withRegistry<T>(
  context: AgentContext,
  { host, repository }: { readonly host: string; readonly repository: string },
  body: (client: RegistryClient) => Promise<T>,
): Promise<T> {
  const client = new RegistryClient({ host, repository, registries: context.registries });
  try {
    return await body(client);
  } finally {
    await client.close();
  }
}
