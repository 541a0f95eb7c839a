import { ShimError } from "../errors.ts";
import type { ResolvedImage } from "./resolve_image.ts";

/** What an image may cost this host. */
export type ImageLimits = {
  /** Of one layer that is used. */
  readonly maxLayerBytes: number;
  /** Of all layers that are used, together. */
  readonly maxImageBytes: number;
  /** In the manifest, used or not. */
  readonly maxLayers: number;
};

/**
 * Goes by what the manifest says; a layer that turns out larger is refused while it comes.
 *
 * @throws {ShimError} LIMIT_EXCEEDED
 */
export function requireWithinLimits(
  limits: ImageLimits,
  { name, manifest, layers }: Pick<ResolvedImage, "name" | "manifest" | "layers">,
): void {
  const refuse = (what: string, limit: string) => {
    throw new ShimError("LIMIT_EXCEEDED", `Cannot pull image "${name}": ${what}`, {
      details: { remedy: `if the image is meant to be so large, raise ${limit} under [limits]` },
    });
  };
  if (manifest.layers.length > limits.maxLayers) {
    refuse(`it has ${manifest.layers.length} layers, at most ${limits.maxLayers} are allowed`, "max_layers");
  }
  const sizes = new Map(layers.map(({ descriptor }) => [descriptor.digest, descriptor.sizeBytes]));
  for (const [digest, sizeBytes] of sizes) {
    if (sizeBytes <= limits.maxLayerBytes) continue;
    refuse(
      `layer "${digest}" has ${sizeBytes} bytes, at most ${limits.maxLayerBytes} are allowed`,
      "max_layer_bytes",
    );
  }
  const totalBytes = [...sizes.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0);
  if (totalBytes > limits.maxImageBytes) {
    refuse(
      `its layers have ${totalBytes} bytes, at most ${limits.maxImageBytes} are allowed`,
      "max_image_bytes",
    );
  }
}
