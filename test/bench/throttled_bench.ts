import { join } from "node:path";
import { MIB, type Place } from "./bench_place.ts";
import { pullImage, withBlobServer } from "./blob_server.ts";
import { inTurns, runToEnd } from "./measure.ts";
import { type PartReport, ratios } from "./report.ts";

/** A registry that gives each connection only so much: several bring more. */
export async function throttled({ directory, scale }: Place): Promise<PartReport> {
  const { throttledBytes, paceBytesPerSecond, rounds } = scale;
  return await withBlobServer({ paceBytesPerSecond, sizesBytes: [throttledBytes] }, async (server) => {
    const url = `http://${server.host}/v2/os/demo/blobs/${server.descriptors[0]?.digest}`;
    const values = await inTurns({
      "curl": async () => (await runToEnd({ argv: ["curl", "-sfo", join(directory, "curl"), url] })).seconds,
      "bootshim pull, one connection": async () =>
        (await pullImage(server, { directory, connections: 1 })).seconds,
      "bootshim pull": async () => (await pullImage(server, { directory })).seconds,
    }, Math.min(rounds, 3));
    const ours = values["bootshim pull"];
    return {
      name: `${throttledBytes / MIB} MiB at ${paceBytesPerSecond / 1e6} MB/s for each connection`,
      measures: Object.entries(values).map(([name, values]) => ({ name, unit: "s", values })),
      ratios: [
        {
          name: "one connection / as many as pay",
          values: ratios(values["bootshim pull, one connection"], ours),
          atLeast: 5,
        },
        { name: "curl / bootshim", values: ratios(values["curl"], ours) },
      ],
      notes: [],
    };
  });
}

/** Where there is nothing to gain, being allowed more connections must cost nothing. */
export async function unthrottled({ directory, scale: { blobBytes, rounds } }: Place): Promise<PartReport> {
  return await withBlobServer({ paceBytesPerSecond: 0, sizesBytes: [blobBytes] }, async (server) => {
    const values = await inTurns({
      "one connection": async () => (await pullImage(server, { directory, connections: 1 })).seconds,
      "as many as pay": async () => (await pullImage(server, { directory })).seconds,
    }, rounds);
    return {
      name: `${blobBytes / MIB} MiB over loopback, unthrottled`,
      measures: Object.entries(values).map(([name, values]) => ({ name, unit: "s", values })),
      ratios: [{
        name: "as many as pay / one connection",
        values: ratios(values["as many as pay"], values["one connection"]),
        // Equal, and what two runs of the same differ by.
        atMost: 1.1,
      }],
      notes: [],
    };
  });
}
