/**
 * A registry in memory that takes uploads, in one piece or in chunks, and breaks them on demand. Knows nothing of the
 * client under test; checks what the specification makes it check.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export type SeenUpload = {
  readonly method: string;
  readonly path: string;
  readonly contentRange: string | undefined;
  /** Bytes of the body that arrived. */
  receivedBytes: number;
};

/** What goes wrong with a request. */
export type UploadFault =
  /** Its connection breaks when so many bytes of its body have arrived; they are kept. */
  | { readonly cutAfterBytes: number }
  /** Of a chunk only so many bytes are kept, and the answer says so. */
  | { readonly keepBytes: number }
  /** It takes effect, and its connection breaks in place of the answer. */
  | { readonly loseAnswer: true }
  /** It is answered so, and has no effect. */
  | { readonly status: number }
  /** The upload it is about is not known any more. */
  | { readonly forget: true };

export type UploadRegistry = {
  readonly host: string;
  readonly requests: SeenUpload[];
  /** Committed blobs of all repositories, as `REPOSITORY DIGEST`. */
  readonly blobs: Map<string, Uint8Array>;
  /** Writes nonsense over what is in the uploads under way. */
  spoilUploads(): void;
  stop(): Promise<void>;
};

export type UploadRegistryOptions = {
  /** Asked for each request. */
  readonly fault?: (request: { method: string; path: string; count: number }) => UploadFault | undefined;
  /** Stated as OCI-Chunk-Min-Length. */
  readonly minChunkBytes?: number;
  /** Says something else of what was received than the truth. */
  readonly rangeOf?: (receivedBytes: number) => string;
};

type Upload = { repository: string; bytes: Uint8Array[]; sizeBytes: number };

export async function startUploadRegistry(options: UploadRegistryOptions = {}): Promise<UploadRegistry> {
  const requests: SeenUpload[] = [];
  const blobs = new Map<string, Uint8Array>();
  const uploads = new Map<string, Upload>();
  const errors: unknown[] = [];
  let sessions = 0;
  const rangeOf = options.rangeOf ?? ((bytes) => `0-${Math.max(0, bytes - 1)}`);

  /** @returns false when the connection broke before the end */
  async function receive(
    incoming: IncomingMessage,
    take: (chunk: Uint8Array) => void,
    cutAfterBytes = Infinity,
  ): Promise<boolean> {
    const seen = requests.at(-1);
    for await (const chunk of incoming) {
      const bytes: Uint8Array = chunk;
      const part = bytes.subarray(0, cutAfterBytes - (seen?.receivedBytes ?? 0));
      take(part);
      if (seen) seen.receivedBytes += part.length;
      if (seen && seen.receivedBytes >= cutAfterBytes) {
        incoming.socket.resetAndDestroy();
        return false;
      }
    }
    return true;
  }

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const { method = "" } = incoming;
    const url = new URL(incoming.url ?? "/", "http://registry");
    const contentRange = incoming.headers["content-range"];
    requests.push({ method, path: url.pathname + url.search, contentRange, receivedBytes: 0 });
    const fault = options.fault?.({ method, path: url.pathname, count: requests.length - 1 });
    const answer = (status: number, headers: Record<string, string> = {}) => {
      if (fault && "loseAnswer" in fault) incoming.socket.resetAndDestroy();
      else outgoing.writeHead(status, { "Content-Length": "0", ...headers }).end();
    };
    if (fault && "status" in fault) {
      incoming.resume();
      return answer(fault.status);
    }
    const [, repository = "", rest = ""] = /^\/v2\/(.+)\/blobs\/(.*)$/.exec(url.pathname) ?? [];
    if (method === "HEAD") return answer(blobs.has(`${repository} ${rest}`) ? 200 : 404);
    if (method === "POST") {
      const [mount, from] = [url.searchParams.get("mount"), url.searchParams.get("from")];
      const mounted = blobs.get(`${from} ${mount}`);
      if (mounted) {
        blobs.set(`${repository} ${mount}`, mounted);
        return answer(201, { Location: `/v2/${repository}/blobs/${mount}` });
      }
      const id = `s${sessions++}`;
      uploads.set(id, { repository, bytes: [], sizeBytes: 0 });
      return answer(202, {
        Location: `/v2/${repository}/blobs/uploads/${id}?step=0`,
        ...(options.minChunkBytes ? { "OCI-Chunk-Min-Length": String(options.minChunkBytes) } : {}),
      });
    }
    const id = rest.slice("uploads/".length);
    if (fault && "forget" in fault) uploads.delete(id);
    const upload = uploads.get(id);
    if (upload === undefined) {
      incoming.resume();
      return answer(404);
    }
    const location = () => ({
      Location: `/v2/${repository}/blobs/uploads/${id}?step=${requests.length}`,
      Range: rangeOf(upload.sizeBytes),
    });
    if (method === "GET") return answer(204, location());
    if (method === "PATCH" && contentRange?.split("-")[0] !== String(upload.sizeBytes)) {
      incoming.resume();
      return answer(416, location());
    }
    let roomBytes = fault && "keepBytes" in fault ? fault.keepBytes : Infinity;
    const take = (chunk: Uint8Array) => {
      const kept = chunk.subarray(0, roomBytes);
      roomBytes -= kept.length;
      upload.bytes.push(new Uint8Array(kept));
      upload.sizeBytes += kept.length;
    };
    if (!await receive(incoming, take, fault && "cutAfterBytes" in fault ? fault.cutAfterBytes : undefined)) {
      return;
    }
    if (method === "PATCH") return answer(202, location());
    const whole = new Uint8Array(Buffer.concat(upload.bytes));
    uploads.delete(id);
    const digest = `sha256:${createHash("sha256").update(whole).digest("hex")}`;
    if (url.searchParams.get("digest") !== digest) return answer(400);
    blobs.set(`${repository} ${digest}`, whole);
    return answer(201, { Location: `/v2/${repository}/blobs/${digest}`, "Docker-Content-Digest": digest });
  }

  const server = createServer((incoming, outgoing) => {
    serve(incoming, outgoing).catch((error: unknown) => {
      // A client that leaves in the middle is the client's business.
      if (!incoming.socket.destroyed) errors.push(error);
      incoming.socket.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the registry has no address");
  return {
    host: `127.0.0.1:${address.port}`,
    requests,
    blobs,
    spoilUploads: () => {
      for (const { bytes } of uploads.values()) for (const part of bytes) part.fill(0xee);
    },
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      if (errors.length > 0) throw errors[0];
    },
  };
}
