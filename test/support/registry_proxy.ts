import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";

/** What becomes of one answer: passed on, one byte flipped in its middle, its second half or all kept back, or a 404. */
export type Tampering = "none" | "flip" | "truncate" | "lose" | "not-found";

export type RegistryProxy = {
  /** `127.0.0.1:PORT`, as references spell it. */
  readonly host: string;
  /** `METHOD path` of every request so far; empty it to count anew. */
  readonly requests: string[];
  /** Decides for each request from now on. */
  tamper(decide: (path: string) => Tampering): void;
  stop(): Promise<void>;
};

/** Stands before a real registry: counts what is asked of it, and spoils answers on demand. */
export async function startRegistryProxy(upstreamHost: string): Promise<RegistryProxy> {
  const requests: string[] = [];
  let decide: (path: string) => Tampering = () => "none";
  const server = createServer((incoming, outgoing) => {
    const path = incoming.url ?? "/";
    requests.push(`${incoming.method} ${path}`);
    forward(incoming, outgoing, { upstreamHost, tampering: decide(path) });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the proxy has no address");
  return {
    host: `127.0.0.1:${address.port}`,
    requests,
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
  { upstreamHost, tampering }: { upstreamHost: string; tampering: Tampering },
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
        answer.pipe(outgoing);
        return;
      }
      const chunks: Uint8Array[] = [];
      answer.on("data", (chunk: Uint8Array) => chunks.push(chunk));
      answer.on("end", () => spoil(outgoing, Buffer.concat(chunks), tampering));
    },
  );
  incoming.pipe(upstream);
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
