import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";

/**
 * What becomes of one answer: passed on, one byte flipped in its middle, its second half or all kept back, or a 404; or
 * the request is held for ever, and the registry never hears of it.
 */
export type Tampering = "hold" | "none" | "flip" | "truncate" | "lose" | "not-found";

export type RegistryProxy = {
  /** `127.0.0.1:PORT`, as references spell it. */
  readonly host: string;
  /** `METHOD path` of every request so far; empty it to count anew. */
  readonly requests: string[];
  /** Bytes of bodies that were passed on so far, all answers together. */
  readonly sentBytes: number;
  /** Bytes of requests' bodies that reached the registry so far. */
  readonly receivedBytes: number;
  /** From now on each answer comes at this pace at most; undefined: as fast as it can. */
  pace(bytesPerSecond: number | undefined): void;
  /** Decides for each request from now on. */
  tamper(decide: (path: string, method: string) => Tampering): void;
  stop(): Promise<void>;
};

/** Stands before a real registry: counts what is asked of it, and spoils answers on demand. */
export async function startRegistryProxy(upstreamHost: string): Promise<RegistryProxy> {
  const requests: string[] = [];
  let decide: (path: string, method: string) => Tampering = () => "none";
  const flow: Flow = { sentBytes: 0, receivedBytes: 0, bytesPerSecond: undefined };
  const server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? "/";
    requests.push(`${incoming.method} ${path}`);
    const tampering = decide(path, incoming.method ?? "");
    if (tampering !== "hold") forward(incoming, outgoing, { upstreamHost, tampering, flow });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the proxy has no address");
  return {
    host: `127.0.0.1:${address.port}`,
    requests,
    get sentBytes() {
      return flow.sentBytes;
    },
    get receivedBytes() {
      return flow.receivedBytes;
    },
    pace: (bytesPerSecond) => flow.bytesPerSecond = bytesPerSecond,
    tamper: (next) => decide = next,
    stop: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function forward(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  { upstreamHost, tampering, flow }: {
    upstreamHost: string;
    tampering: Exclude<Tampering, "hold">;
    flow: Flow;
  },
): void {
  if (tampering === "not-found") {
    outgoing.writeHead(404).end();
    return;
  }
  const { method, headers, url } = incoming;
  const upstream = request(
    `http://${upstreamHost}${url}`,
    { ...(method ? { method } : {}), headers },
    (answer) => {
      if (tampering === "lose") {
        answer.resume();
        outgoing.destroy();
        return;
      }
      outgoing.writeHead(answer.statusCode ?? 500, answer.headers);
      if (tampering === "none") {
        pass(answer, outgoing, flow).catch(() => outgoing.destroy());
        return;
      }
      const chunks: Uint8Array[] = [];
      answer.on("data", (chunk: Uint8Array) => chunks.push(chunk));
      answer.on("end", () => spoil(outgoing, Buffer.concat(chunks), tampering));
    },
  );
  // A registry that is stopped with a request under way: whoever asked is told in the same manner.
  upstream.on("error", () => outgoing.destroy());
  incoming.on("data", (chunk: Uint8Array) => flow.receivedBytes += chunk.length);
  incoming.pipe(upstream);
}

type Flow = { sentBytes: number; receivedBytes: number; bytesPerSecond: number | undefined };

async function pass(answer: IncomingMessage, outgoing: ServerResponse, flow: Flow): Promise<void> {
  const meter = new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      flow.sentBytes += chunk.length;
      if (!flow.bytesPerSecond) return done(null, chunk);
      setTimeout(() => done(null, chunk), 1000 * chunk.length / flow.bytesPerSecond);
    },
  });
  await pipeline(answer, meter, outgoing);
}

function spoil(outgoing: ServerResponse, body: Uint8Array, tampering: "flip" | "truncate"): void {
  const middle = Math.floor(body.length / 2);
  if (tampering === "truncate") {
    outgoing.write(body.subarray(0, middle), () => outgoing.destroy());
    return;
  }
  body[middle] = (body[middle] ?? 0) ^ 0x01;
  outgoing.end(body);
}
