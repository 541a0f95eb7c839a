import type { CollectedCache } from "../agent/collect_cache.ts";
import type { EventLog } from "./event_log.ts";

/** Tells of a collection: of each image that went, by all its names, and of the whole. */
export function tellCollected(events: EventLog, { images, freedBytes, dryRun }: CollectedCache): void {
  if (dryRun) return;
  for (const [digest, ofDigest] of Map.groupBy(images, (image) => image.digest)) {
    events.publish("image.removed", { digest, references: ofDigest.map(({ reference }) => reference) });
  }
  events.publish("gc.finished", { freedBytes, images: images.length });
}
