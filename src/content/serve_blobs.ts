import type { MessagePort } from "node:worker_threads";
import { constants } from "node:fs";
import { nodeFileSystem, type OpenFile } from "../host/file_system.ts";
import { errnoOf } from "../host/io_error.ts";
import { BlobBlocks } from "./blob_blocks.ts";
import type { BlobReply, BlobRequest, BlobResult } from "./blob_requests.ts";

/** So the disk is busy from the beginning, and the last sync has little left to do. */
const SYNC_BYTES = 64 * 1024 * 1024;

type Served = { readonly file: OpenFile; readonly blocks: BlobBlocks; readonly memory: SharedArrayBuffer[] };

/** Takes blobs in on this thread, for another one. */
export function serveBlobs(port: MessagePort): void {
  const served = new Map<number, Promise<Served>>();

  async function open({ path, inode, algorithm }: BlobRequest & { kind: "open" }): Promise<Served> {
    // Descriptors belong to the thread that opened them, so the file is opened once more.
    const flags = constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const file = await nodeFileSystem.open(path, flags);
    if ((await file.status()).inode === inode) {
      return { file, blocks: new BlobBlocks(file, algorithm, { syncEveryBytes: SYNC_BYTES }), memory: [] };
    }
    await file.close();
    throw Object.assign(new Error(`another file is at "${path}" now`), { code: "ESTALE" });
  }

  async function servedFor(request: BlobRequest): Promise<Served> {
    const opened = served.get(request.file);
    if (opened === undefined) throw new TypeError("Cannot serve request: its file is not open");
    return await opened;
  }

  async function serve(request: BlobRequest): Promise<BlobResult> {
    switch (request.kind) {
      case "open": {
        const opened = open(request);
        served.set(request.file, opened);
        await opened;
        return null;
      }
      case "block":
        (await servedFor(request)).memory.push(request.memory);
        return null;
      case "take": {
        const { blocks, memory } = await servedFor(request);
        const { block, lengthBytes, offsetBytes } = request;
        const bytes = new Uint8Array(memory[block] ?? new SharedArrayBuffer(0), 0, lengthBytes);
        await blocks.take(bytes, offsetBytes);
        return null;
      }
      case "takePresent": {
        const { blocks } = await servedFor(request);
        return await blocks.takePresent(request.offsetBytes, request.lengthBytes);
      }
      case "hexDigest":
        return await (await servedFor(request)).blocks.hexDigest();
      case "close": {
        const opened = await served.get(request.file)?.catch(() => undefined); // told by "open"
        served.delete(request.file);
        try {
          await opened?.blocks.close();
        } finally {
          await opened?.file.close();
        }
        return null;
      }
    }
  }

  port.on("message", (request: BlobRequest) => {
    const answer = (reply: BlobReply) => port.postMessage(reply);
    serve(request).then(
      (result) => answer({ id: request.id, kind: "result", result }),
      (error: unknown) => {
        const message = error instanceof Error ? error.message : String(error);
        answer({ id: request.id, kind: "failure", message, code: errnoOf(error) ?? null });
      },
    );
  });
}
