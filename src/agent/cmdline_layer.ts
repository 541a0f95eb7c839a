import { ShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { ResolvedImage } from "./resolve_image.ts";

/** The layer that holds the kernel's command line, if there is one. */
export function cmdlineLayer(image: ResolvedImage): Descriptor | undefined {
  return image.layers.find((each) => each.role === "cmdline")?.descriptor;
}

/** @throws {ShimError} CMDLINE_INVALID for what is no UTF-8 */
export function decodeCmdlineLayer({ digest }: Descriptor, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new ShimError(
      "CMDLINE_INVALID",
      `Cannot use the cmdline layer "${digest}": it is not valid UTF-8`,
      {
        cause: error,
      },
    );
  }
}
