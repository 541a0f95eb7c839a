/**
 * Serves large blobs, ranges too, at most at a given pace on each connection. Arguments: bytes per second (0: as fast as
 * it can), then the size of each blob. Each is also the disk of an image, `os/demo:NUMBER` from 0. Says on one line of
 * JSON where it listens and what it has.
 */
import { createHash } from "node:crypto";
import { createServer, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import process from "node:process";
import { digestOf } from "../../src/image/digest.ts";
import { type LargeBlob, largeBlobChunk, largeBlobDescriptor } from "./large_blobs.ts";

const [pace = 0, ...sizes] = process.argv.slice(2).map(Number);
const blobs = new Map<string, LargeBlob>();
const descriptors = sizes.map((sizeBytes, seed) => {
  const blob = { seed, sizeBytes };
  const descriptor = largeBlobDescriptor(blob);
  blobs.set(descriptor.digest, blob);
  return descriptor;
});

const IRONCORE = "application/vnd.ironcore.image";
const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const CONFIG = "{}";
const sha256 = (text: string) => digestOf("sha256", createHash("sha256").update(text).digest("hex"));
/** By the end of their paths. */
const documents = new Map<string, { readonly type: string; readonly text: string }>();
documents.set(`blobs/${sha256(CONFIG)}`, { type: "application/octet-stream", text: CONFIG });
for (const [number, { digest, sizeBytes }] of descriptors.entries()) {
  const text = JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: `${IRONCORE}.config.v1+json`, digest: sha256(CONFIG), size: CONFIG.length },
    layers: [{ mediaType: `${IRONCORE}.rootfs`, digest, size: sizeBytes }],
  });
  const manifest = { type: MANIFEST_TYPE, text };
  documents.set(`manifests/${number}`, manifest).set(`manifests/${sha256(text)}`, manifest);
}

/** On a busy machine timers come late; what a connection missed meanwhile it may have afterwards. */
const CATCH_UP_MS = 200;
/** Milliseconds on the steady clock from which a connection may send again. */
const freeMs = new WeakMap<Socket, number>();
const totals = { requests: 0, connections: 0, most: 0 };

const server = createServer((request, response) => {
  totals.requests += 1;
  const document = documents.get(request.url?.split("/").slice(-2).join("/").split("?")[0] ?? "");
  if (document) return void response.writeHead(200, { "content-type": document.type }).end(document.text);
  const blob = blobs.get(request.url?.split("/").at(-1)?.split("?")[0] ?? "");
  if (!blob) return void response.writeHead(404).end(JSON.stringify(totals));
  const range = /^bytes=([0-9]+)-([0-9]+)$/.exec(request.headers.range ?? "");
  const first = Number(range?.[1] ?? 0);
  const last = Math.min(Number(range?.[2] ?? Infinity), blob.sizeBytes - 1);
  response.writeHead(range ? 206 : 200, {
    "content-length": last - first + 1,
    ...(range ? { "content-range": `bytes ${first}-${last}/${blob.sizeBytes}` } : {}),
  });
  void send(response, blob, { first, end: last + 1 });
});

async function send(
  response: ServerResponse,
  blob: LargeBlob,
  { first, end }: { first: number; end: number },
): Promise<void> {
  // Not the answer's: that has none while the answer before it is still being finished.
  const { socket } = response.req;
  // What was not used while idle is lost.
  freeMs.set(socket, Math.max(freeMs.get(socket) ?? 0, performance.now()));
  let at = first;
  let ready: Uint8Array = new Uint8Array();
  while (at < end && !response.destroyed) {
    if (ready.length === 0) ready = largeBlobChunk(blob, at).subarray(0, end - at);
    const chunk = pace > 0 ? ready.subarray(0, 256 * 1024) : ready;
    ready = ready.subarray(chunk.length);
    if (!response.write(chunk)) {
      await new Promise<void>((resolve) => {
        const go = () => {
          response.off("drain", go).off("close", go);
          resolve();
        };
        response.once("drain", go).once("close", go);
      });
    }
    at += chunk.length;
    if (pace === 0) continue;
    const now = performance.now();
    const free = Math.max(freeMs.get(socket) ?? 0, now - CATCH_UP_MS) + chunk.length / pace * 1000;
    freeMs.set(socket, free);
    if (free > now) await new Promise((resolve) => setTimeout(resolve, free - now));
  }
  response.end();
}

server.on("connection", (socket) => {
  totals.connections += 1;
  totals.most = Math.max(totals.most, totals.connections);
  socket.once("close", () => totals.connections -= 1);
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  const port = typeof address === "object" ? address?.port : 0;
  console.log(JSON.stringify({ host: `127.0.0.1:${port}`, descriptors }));
});
