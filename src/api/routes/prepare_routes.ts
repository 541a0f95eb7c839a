import { createHash } from "node:crypto";
import { prepare, type PrepareWish } from "../../agent/prepare.ts";
import { type PrepareDocument, prepareDocument } from "../../agent/prepare_document.ts";
import { type ErrorCode, toShimError } from "../../errors.ts";
import { formatReference } from "../../image/reference.ts";
import type { EventLog } from "../event_log.ts";
import type { Metrics } from "../metrics.ts";
import { operationDocument } from "../operation.ts";
import type { OperationWork } from "../operations.ts";
import { MAX_PREPARE_BODY_BYTES, prepareRequest, prepareWishOf } from "../prepare_request.ts";
import { type Reply, type Route, route } from "../route.ts";
import type { Service } from "../service.ts";

/** Whatever pulling, judging and making a machine may end with. */
export const PREPARE_ERRORS: readonly ErrorCode[] = [
  ...["REFERENCE_INVALID", "POLICY_DENIED", "REGISTRY_NOT_FOUND", "IMAGE_NOT_FOUND"] as const,
  ...["REGISTRY_UNAUTHORIZED", "REGISTRY_DENIED", "REGISTRY_RATE_LIMITED", "REGISTRY_UNAVAILABLE"] as const,
  ...["REGISTRY_TIMEOUT", "REGISTRY_TLS", "REGISTRY_PROTOCOL", "REDIRECT_REFUSED", "REALM_REFUSED"] as const,
  ...["CREDENTIALS_INVALID", "MANIFEST_INVALID", "MANIFEST_TOO_LARGE", "MEDIA_TYPE_UNSUPPORTED"] as const,
  ...["DIGEST_UNSUPPORTED", "PLATFORM_NOT_FOUND", "LAYER_MISSING", "LAYER_DUPLICATE"] as const,
  ...[
    "BOOT_MODE_IMPOSSIBLE",
    "CMDLINE_INVALID",
    "FORMAT_MISMATCH",
    "FORMAT_UNSAFE",
    "LIMIT_EXCEEDED",
  ] as const,
  ...[
    "CANCELLED",
    "CONTENT_SIZE_MISMATCH",
    "CONTENT_DIGEST_MISMATCH",
    "CONTENT_CORRUPT",
    "NO_SPACE",
  ] as const,
  ...["IO_ERROR", "CACHE_LAYOUT_INVALID", "CONFLICT", "IN_USE", "LOCK_TIMEOUT", "BUSY"] as const,
  ...["HYPERVISOR_UNAVAILABLE", "HYPERVISOR_TIMEOUT", "QEMU_FAILED"] as const,
];

export const PREPARED = [
  { status: 200, description: "prepared", schema: prepareDocument },
  { status: 202, description: "begun, as `Prefer: respond-async` asked", schema: operationDocument },
] as const;

export const PREPARE_ROUTES: readonly Route[] = [
  route({
    method: "post",
    path: "/v1/prepare",
    summary:
      "Resolve, pull what is missing, verify, decide the boot; with `machine` also make its disk and definitions",
    body: prepareRequest,
    maxBodyBytes: MAX_PREPARE_BODY_BYTES,
    isLasting: true,
    success: PREPARED,
    errors: PREPARE_ERRORS,
    handle: async ({ body, headers }, service) => {
      service.checkReference(body.reference);
      return await answerPrepare(prepareWishOf(body, service.context), { headers, service });
    },
  }),
];

/** Begins or joins a prepare, and answers with its result, or at once where the caller prefers that. */
export async function answerPrepare(
  wish: PrepareWish,
  { headers, service }: { readonly headers: Headers; readonly service: Service },
): Promise<Reply> {
  const { context, operations, events, metrics } = service;
  const reference = formatReference(wish.reference);
  const subject = { reference, ...(wish.machine ? { machine: wish.machine.id } : {}) };
  const whereNow = async () => await mayBeCached(context, wish) ? "host" : "source";
  const where = await whereNow();
  const { id, result } = operations.start({
    key: keyOf(wish),
    heldBytes: heldBytesOf(wish),
    subject,
    rows: {
      source: wish.reference.transport === "docker" ? wish.reference.host : reference,
      host: wish.machine?.id ?? reference,
    },
    where,
    whereNow,
    run: async (options) => {
      const told = tellImage(events, subject);
      let isMade = false;
      let receivedBytes = 0;
      try {
        const document = await prepare(context, wish, {
          ...options,
          onMade: () => isMade = true,
          onReceived: (bytes) => {
            receivedBytes += bytes;
            countBytes(metrics, bytes);
          },
          onProgress: (progress) => {
            told.enter(progress.phase);
            options.onProgress?.(progress);
          },
        });
        // The documents among it; of what fails, only the layers are worth counting.
        countBytes(metrics, document.transferredBytes - receivedBytes);
        countImage(metrics, document.cached ? "hit" : "miss");
        told.succeed(document, isMade);
        return document;
      } catch (error) {
        told.fail(toShimError(error).code);
        throw error;
      }
    },
  });
  if (/\brespond-async\b/i.test(headers.get("prefer") ?? "")) {
    return {
      status: 202,
      json: operations.find(id),
      headers: { location: `/v1/operations/${id}`, "preference-applied": "respond-async" },
    };
  }
  return { status: 200, json: await result };
}

/**
 * Whether a wish most likely asks no registry. Only where it waits first depends on it: what is found to be missing has it
 * wait where registries are asked.
 */
async function mayBeCached(
  { content }: Service["context"],
  { reference, pull }: PrepareWish,
): Promise<boolean> {
  if (pull === "never") return true;
  if (pull === "always" && !reference.digest) return false;
  // A cache that cannot be read is told by whoever needs it.
  return await content.findReference(formatReference(reference)).then(
    (found) => found !== undefined,
    () => true,
  );
}

function countBytes(metrics: Metrics, bytes: number): void {
  metrics.add("bootshim_transferred_bytes_total", "Bytes fetched for images", {}, Math.max(0, bytes));
}

function countImage(metrics: Metrics, outcome: "hit" | "miss"): void {
  metrics.add("bootshim_image_lookups_total", "Prepares by whether the cache had the image", { outcome });
}

/** Tells what becomes of an image and then of its machine: a machine's failure is not its image's. */
function tellImage(events: EventLog, subject: OperationWork["subject"]) {
  const { reference, machine } = subject;
  let phase = "";
  return {
    enter: (next: string) => {
      if (next === "pulling" && phase !== next) events.publish("image.pulling", { reference });
      phase = next;
    },
    succeed: ({ digest, cached }: PrepareDocument, isMade: boolean) => {
      if (!cached) events.publish("image.pulled", { reference, digest, cached });
      if (isMade) events.publish("machine.prepared", { machine, reference });
    },
    fail: (code: ErrorCode) => {
      const isOfImage = phase !== "preparing" || machine === undefined;
      events.publish(isOfImage ? "image.failed" : "machine.failed", { ...subject, code });
    },
  };
}

/** Texts are small beside files. */
function heldBytesOf({ machine }: PrepareWish): number {
  return Object.values(machine?.provisioning ?? {}).reduce((sum, file) => sum + (file?.length ?? 0), 0);
}

/** Equal for equal wishes. Bytes stand as their hash: keys are kept longer than wishes, which may be of megabytes. */
function keyOf(wish: PrepareWish): string {
  return JSON.stringify(
    wish,
    (_key, value: unknown) =>
      value instanceof Uint8Array ? createHash("sha256").update(value).digest("hex") : value,
  );
}
