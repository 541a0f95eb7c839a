/**
 * Brings blobs from a registry into a store, all at once, and says on one line of JSON how it went. Arguments: host,
 * root directory, descriptors as JSON.
 */
import { readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import process from "node:process";
import { ContentStore } from "../../src/content/content_store.ts";
import type { Descriptor } from "../../src/image/descriptor.ts";
import { Registries } from "../../src/registry/registries.ts";
import { RegistryClient } from "../../src/registry/registry_client.ts";

const [host = "", rootDirectory = "", descriptorsJson = "[]"] = process.argv.slice(2);
const descriptors: Descriptor[] = JSON.parse(descriptorsJson);
const content = await ContentStore.open({ rootDirectory, groupId: null });
await using registries = new Registries({});
const client = new RegistryClient({ host, repository: "os/demo", registries });
const delay = monitorEventLoopDelay({ resolution: 10 });
delay.enable();
const startedMs = performance.now();
await Promise.all(
  descriptors.map((descriptor) =>
    content.ingest(descriptor, (startByte) => client.openBlob(descriptor, { startByte }))
  ),
);
const seconds = (performance.now() - startedMs) / 1000;
delay.disable();
const peakKib = /^VmHWM:\s+([0-9]+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
console.log(JSON.stringify({
  seconds,
  peakMib: Number(peakKib) / 1024,
  // Deno gives the histogram in nanoseconds, as Node does.
  loopDelayP99Ms: delay.percentile(99) / 1e6,
  loopDelayMaxMs: delay.max / 1e6,
}));
