import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { AgentContext } from "./agent_context.ts";
import type { ResolvedImage } from "./resolve_image.ts";

/** What an image says of the kernel's command line; the layer is stronger than the configuration. */
export type StatedCommandLine = { readonly layer: string | undefined; readonly config: string | undefined };

/**
 * Reads what the image says, from the cache, else from its source where that may be asked.
 *
 * @throws {ShimError} CMDLINE_INVALID for a layer that is no UTF-8; as `ImageSource.fetchSmallBlob`
 */
export async function readStatedCommandLine(
  context: AgentContext,
  image: ResolvedImage,
  { signal }: { readonly signal?: AbortSignal | undefined } = {},
): Promise<StatedCommandLine> {
  const config = image.config.commandLine;
  const layer = image.layers.find((each) => each.role === "cmdline")?.descriptor;
  if (!layer) return { layer: undefined, config };
  if (await context.content.hasBlob(layer)) {
    return { layer: decode(layer, (await context.content.readDocument(layer)).bytes), config };
  }
  if (!image.source) return { layer: undefined, config };
  const source = await image.source();
  return { layer: decode(layer, await source.fetchSmallBlob(layer, { signal })), config };
}

function decode({ digest }: Descriptor, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new ShimError(
      "CMDLINE_INVALID",
      `Cannot use the cmdline layer "${digest}": it is not valid UTF-8`,
      { cause: error },
    );
  }
}
