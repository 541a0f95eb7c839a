import type { UploadMemory } from "../image/image_source.ts";
import type { Endpoint } from "./endpoint.ts";
import type { RegistryLimits } from "./limits.ts";

/** An upload that the registry has begun. */
export type Session = {
  /** Where the next request goes; the registry may change it with every answer. */
  readonly url: URL;
  /** What the registry has. */
  readonly offsetBytes: number;
  readonly chunkBytes: number;
};

/**
 * The upload that an earlier run had begun, if one is remembered. It is only a hint: the registry is asked what it has of
 * it, and checks the digest of the whole at the end.
 */
export async function recallSession(
  memory: UploadMemory | undefined,
  { endpoint, limits }: { readonly endpoint: Endpoint; readonly limits: RegistryLimits },
): Promise<Session | undefined> {
  const remembered = await memory?.recall();
  if (remembered === undefined || !URL.canParse(remembered.url)) return undefined;
  const url = new URL(remembered.url);
  if (url.origin !== endpoint.baseUrl.origin) return undefined;
  return { url, offsetBytes: 0, chunkBytes: Math.max(limits.chunkBytes, remembered.chunkBytes) };
}

/**
 * Keeps where the next run would go on. A session elsewhere than at the registry itself is not kept: such addresses are
 * signed, and whoever has one needs no other right.
 */
export async function keepSession(
  memory: UploadMemory | undefined,
  { url, chunkBytes }: Session,
  endpoint: Endpoint,
): Promise<void> {
  if (url.origin === endpoint.baseUrl.origin) await memory?.keep({ url: url.href, chunkBytes });
}
