import { LayoutSource } from "../content/layout_source.ts";
import type { ImageSource } from "../image/image_source.ts";
import type { Reference } from "../image/reference.ts";
import { RegistryClient } from "../registry/registry_client.ts";
import type { AgentContext, PullPolicy } from "./agent_context.ts";

/** Opens the source at its first use, because a cached image needs none: its registry or folder may be gone. */
export type LazySource = () => Promise<ImageSource>;

/**
 * Runs `body` with the place a reference names, and closes it whatever happens.
 *
 * @param body gets null when the policy forbids to ask
 */
export async function withSource<T>(
  context: AgentContext,
  { reference, pull }: { readonly reference: Reference; readonly pull: PullPolicy },
  body: (source: LazySource | null) => Promise<T>,
): Promise<T> {
  if (pull === "never") return await body(null);
  if (reference.transport === "oci") {
    return await body(async () => await LayoutSource.open(reference.directory));
  }
  return await withRegistry(context, reference, async (client) => await body(() => Promise.resolve(client)));
}

/** Runs `body` with a client of one repository; no connection is made before the first request. */
export async function withRegistry<T>(
  context: AgentContext,
  { host, repository }: { readonly host: string; readonly repository: string },
  body: (client: RegistryClient) => Promise<T>,
): Promise<T> {
  const client = new RegistryClient({ host, repository, insecureHosts: context.insecureRegistries });
  try {
    return await body(client);
  } finally {
    await client.close();
  }
}
