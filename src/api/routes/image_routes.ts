import { z } from "zod";
import { collectCache } from "../../agent/collect_cache.ts";
import { type CachedImage, listImages } from "../../agent/images.ts";
import { pinImage } from "../../agent/pin_image.ts";
import { removeImage } from "../../agent/remove_image.ts";
import { ShimError } from "../../errors.ts";
import { type Digest, parseDigest } from "../../image/digest.ts";
import { parseReference } from "../../image/reference.ts";
import {
  collectedDocument,
  collectRequest,
  imageDocument,
  pinnedDocument,
  removedDocument,
} from "../documents.ts";
import { type Route, route } from "../route.ts";
import { tellCollected } from "../tell_cache.ts";
import type { Service } from "../service.ts";

const params = z.strictObject({ digest: z.string().max(200) });

const CACHE_ERRORS = ["CACHE_LAYOUT_INVALID", "CONTENT_CORRUPT", "LOCK_TIMEOUT", "BUSY", "IO_ERROR"] as const;

export const IMAGE_ROUTES: readonly Route[] = [
  route({
    method: "get",
    path: "/v1/images",
    summary: "The cached images",
    success: [{ status: 200, description: "the images, by name", schema: z.array(imageDocument) }],
    errors: CACHE_ERRORS,
    handle: async (_input, { context }) => ({ status: 200, json: await listImages(context) }),
  }),
  route({
    method: "get",
    path: "/v1/images/{digest}",
    summary: "One cached image, under all its names",
    params,
    success: [{ status: 200, description: "the image's entries", schema: z.array(imageDocument) }],
    errors: ["REQUEST_INVALID", "IMAGE_NOT_FOUND", ...CACHE_ERRORS],
    handle: async ({ params }, service) => ({ status: 200, json: await imagesOf(service, params.digest) }),
  }),
  route({
    method: "delete",
    path: "/v1/images/{digest}",
    summary: "Remove an image from the cache",
    params,
    isLasting: true,
    success: [{ status: 200, description: "what was removed", schema: removedDocument }],
    errors: ["REQUEST_INVALID", "IMAGE_NOT_FOUND", "IN_USE", "CANCELLED", ...CACHE_ERRORS],
    handle: async ({ params }, { context, errands, events }) => {
      const target = { digest: readDigest(params.digest) };
      const removed = await errands.take(() => removeImage(context, target), { row: "gc" });
      events.publish("image.removed", { digest: removed.digest, references: removed.references });
      return { status: 200, json: removed };
    },
  }),
  pinRoute("put", true),
  pinRoute("delete", false),
  route({
    method: "post",
    path: "/v1/gc",
    summary: "Collect what nobody needs and, where a budget demands it, the least recently used",
    body: collectRequest,
    isBodyOptional: true,
    isLasting: true,
    success: [{ status: 200, description: "what was collected", schema: collectedDocument }],
    errors: ["CANCELLED", ...CACHE_ERRORS],
    handle: async ({ body }, { context, errands, events }) => {
      const wish = {
        isDryRun: body.dryRun,
        ...(body.maxBytes === undefined ? {} : { maxBytes: body.maxBytes }),
        ...(body.keepFreeBytes === undefined ? {} : { keepFreeBytes: body.keepFreeBytes }),
        ...(body.minAgeSeconds === undefined ? {} : { minAgeMs: body.minAgeSeconds * 1000 }),
      };
      const collected = await errands.take(() => collectCache(context, wish), { row: "gc" });
      tellCollected(events, collected);
      return { status: 200, json: collected };
    },
  }),
];

function pinRoute(method: "put" | "delete", pinned: boolean): Route {
  return route({
    method,
    path: "/v1/images/{digest}/pin",
    summary: pinned ? "Keep an image whatever space is wanted" : "Let an image be collected again",
    params,
    success: [{ status: 200, description: "its names", schema: pinnedDocument }],
    errors: ["REQUEST_INVALID", "IMAGE_NOT_FOUND", "NO_SPACE", ...CACHE_ERRORS],
    handle: async ({ params }, service) => {
      const images = await imagesOf(service, params.digest);
      const pins = [];
      for (const { reference } of images) {
        pins.push(await pinImage(service.context, parseReference(reference), pinned));
      }
      return { status: 200, json: pins };
    },
  });
}

/** @throws {ShimError} REQUEST_INVALID, IMAGE_NOT_FOUND */
async function imagesOf({ context }: Service, text: string): Promise<CachedImage[]> {
  const wanted = readDigest(text);
  const images = (await listImages(context)).filter((image) => image.digest === wanted);
  if (images.length > 0) return images;
  throw new ShimError("IMAGE_NOT_FOUND", `Cannot find image "${wanted}" in the cache`);
}

/** What is no digest is a wrong request here, not a wrong manifest. */
function readDigest(text: string): Digest {
  try {
    return parseDigest(text);
  } catch (error) {
    throw new ShimError("REQUEST_INVALID", `Cannot use ${JSON.stringify(text)}: it is no digest`, {
      cause: error,
    });
  }
}
