/**
 * An HTTP/1.1 server over raw TCP or TLS that answers every request exactly as a script says: byte for byte, cut, reset,
 * silent or endless. Made to test clients of registries; knows nothing of the client under test.
 *
 * @example
 * await using server = await startFaultServer((request) =>
 *   request.headers.range ? serveRange(request, blob) : cutAfter(respond(200, { body: blob }), 1000, "reset")
 * );
 */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer, type TlsOptions, TLSSocket } from "node:tls";

export type SeenRequest = {
  readonly method: string;
  readonly path: string;
  /** Names in lower case; of a repeated field the values joined by ", ". */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** Which connection it came on, counted from 1. */
  readonly connection: number;
  /** The common name of the certificate that the client showed. */
  readonly clientName?: string;
};

/** One thing the server does on the wire. An answer that only sends leaves the connection open for the next request. */
export type Step =
  | { readonly send: Uint8Array | string }
  /** Sends the same bytes again and again until the client has had enough. */
  | { readonly sendForever: Uint8Array }
  | { readonly waitMs: number }
  /** Says nothing more, and keeps the connection open. */
  | { readonly hang: true }
  /** FIN, in good order. */
  | { readonly close: true }
  /** RST. */
  | { readonly reset: true };

export type Answer = readonly Step[];

/** @param count how many requests came before on this server */
export type Script = (request: SeenRequest, count: number) => Answer | Promise<Answer>;

export type FaultServerOptions = {
  /** Speaks TLS: certificate, key, and whether clients must show who they are. */
  readonly tls?: TlsOptions;
  /** Where to listen: all of 127.0.0.0/8 is this host. Default 127.0.0.1. */
  readonly address?: string;
};

export type FaultServer = {
  /** `ADDRESS:PORT`. */
  readonly host: string;
  readonly port: number;
  /** Every request so far, in order. */
  readonly requests: readonly SeenRequest[];
  /** Bytes handed to the kernel so far, over all connections. */
  readonly sentBytes: number;
  readonly connections: number;
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
};

export type Head = {
  /** A field given as a list is sent once for each value. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: Uint8Array | string;
};

/** Handed to the kernel at once. */
const PIECE_BYTES = 64 * 1024;
const CRLF = "\r\n";
const encoder = new TextEncoder();

/** A plain answer; Content-Length is stated unless `headers` states it or a Transfer-Encoding. */
export function respond(status: number, { headers = {}, body = "" }: Head = {}): Answer {
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  const names = Object.keys(headers).map((name) => name.toLowerCase());
  const isFramed = names.includes("content-length") || names.includes("transfer-encoding");
  const all = isFramed ? headers : { ...headers, "Content-Length": String(bytes.length) };
  return bytes.length === 0 ? [{ send: head(status, all) }] : [{ send: head(status, all) }, { send: bytes }];
}

/** A chunked answer, ended properly unless `isOpen`. */
export function respondChunked(
  status: number,
  { headers = {}, body = "", isOpen = false }: Head & { readonly isOpen?: boolean } = {},
): Answer {
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  return [
    { send: head(status, { ...headers, "Transfer-Encoding": "chunked" }) },
    ...(bytes.length > 0 ? [{ send: chunk(bytes) }] : []),
    ...(isOpen ? [] : [{ send: `0${CRLF}${CRLF}` }]),
  ];
}

export function head(status: number, headers: Readonly<Record<string, string | readonly string[]>>): string {
  const lines = Object.entries(headers).flatMap(([name, values]) =>
    (typeof values === "string" ? [values] : values).map((value) => `${name}: ${value}`)
  );
  return [`HTTP/1.1 ${status} Scripted`, ...lines, "", ""].join(CRLF);
}

/** One chunk of a chunked body. */
export function chunk(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}${CRLF}`), bytes, Buffer.from(CRLF)]);
}

/** The head and the first `bodyBytes` of the body, then `end`. */
export function cutAfter(answer: Answer, bodyBytes: number, end: "close" | "reset" | "hang"): Answer {
  const [first, second] = answer;
  if (first === undefined) throw new Error("There is no answer to cut");
  const last: Step = end === "close" ? { close: true } : end === "reset" ? { reset: true } : { hang: true };
  if (second === undefined || !("send" in second) || bodyBytes === 0) return [first, last];
  const body = typeof second.send === "string" ? encoder.encode(second.send) : second.send;
  // A reset throws away what the kernel still holds; the pause lets the client receive what was sent before.
  return [first, { send: body.subarray(0, bodyBytes) }, { waitMs: 20 }, last];
}

/** What a correct server answers for a blob: all of it, or the range asked for. */
export function serveRange(request: SeenRequest, blob: Uint8Array): Answer {
  const range = /^bytes=([0-9]+)-([0-9]*)$/.exec(request.headers.range ?? "");
  if (range === null) {
    return respond(200, { headers: { "Content-Type": "application/octet-stream" }, body: blob });
  }
  const first = Number(range[1]);
  const last = range[2] === "" ? blob.length - 1 : Math.min(Number(range[2]), blob.length - 1);
  if (first >= blob.length) return respond(416, { headers: { "Content-Range": `bytes */${blob.length}` } });
  return respond(206, {
    headers: { "Content-Range": `bytes ${first}-${last}/${blob.length}` },
    body: blob.subarray(first, last + 1),
  });
}

/** Listens on a free port. A script that throws closes the connection, and `stop` then rejects with its error. */
export async function startFaultServer(
  script: Script,
  { tls, address: listenAddress = "127.0.0.1" }: FaultServerOptions = {},
): Promise<FaultServer> {
  const requests: SeenRequest[] = [];
  const sockets = new Set<Socket>();
  const scriptErrors: unknown[] = [];
  const totals = { sentBytes: 0, connections: 0 };
  const accept = (socket: Socket) => {
    const connection = totals.connections;
    // Clients under test break connections on purpose.
    socket.on("error", () => {});
    converse(socket, async (request) => {
      const clientName = clientNameOf(socket);
      const seen = { ...request, connection, ...(clientName === undefined ? {} : { clientName }) };
      const count = requests.push(seen) - 1;
      for (const step of await script(seen, count)) {
        if (!await take(socket, step, totals)) return false;
      }
      return true;
    }).catch((error: unknown) => {
      // A client that leaves in the middle is the client's business; all else is a mistake in the script.
      if (!socket.destroyed) scriptErrors.push(error);
      socket.destroy();
    });
  };
  const server: Server = tls === undefined ? createServer() : createTlsServer(tls);
  // Also those whose handshake fails.
  server.on("connection", (socket: Socket) => {
    totals.connections += 1;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.on(tls === undefined ? "connection" : "secureConnection", accept);
  server.listen(0, listenAddress);
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("A TCP server has no port");
  const stop = async () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of sockets) socket.destroy();
    await closed;
    if (scriptErrors.length > 0) throw scriptErrors[0];
  };
  return {
    host: `${listenAddress}:${address.port}`,
    port: address.port,
    requests,
    get sentBytes() {
      return totals.sentBytes;
    },
    get connections() {
      return totals.connections;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function clientNameOf(socket: Socket): string | undefined {
  const name = socket instanceof TLSSocket ? socket.getPeerCertificate()?.subject?.CN : undefined;
  return Array.isArray(name) ? name[0] : name;
}

/** Takes one step. @returns false when the connection is over */
async function take(socket: Socket, step: Step, totals: { sentBytes: number }): Promise<boolean> {
  if (socket.destroyed) return false;
  if ("send" in step) return await write(socket, step.send, totals);
  if ("waitMs" in step) await new Promise((resolve) => setTimeout(resolve, step.waitMs));
  if ("sendForever" in step) {
    while (await write(socket, step.sendForever, totals));
    return false;
  }
  if ("hang" in step) await closed(socket);
  if ("close" in step) socket.end();
  if ("reset" in step) socket.resetAndDestroy();
  return "waitMs" in step;
}

async function write(
  socket: Socket,
  content: Uint8Array | string,
  totals: { sentBytes: number },
): Promise<boolean> {
  const bytes = typeof content === "string" ? encoder.encode(content) : content;
  // Piece by piece: what was never taken from us does not count as sent.
  for (let at = 0; at < bytes.length && !socket.destroyed; at += PIECE_BYTES) {
    const piece = bytes.subarray(at, at + PIECE_BYTES);
    const hasRoom = socket.write(piece);
    totals.sentBytes += piece.length;
    if (!hasRoom) await drained(socket);
  }
  return !socket.destroyed;
}

/** Resolves when there is room again, or nobody any more. */
function drained(socket: Socket): Promise<void> {
  if (socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const go = () => {
      socket.off("drain", go).off("close", go);
      resolve();
    };
    socket.on("drain", go).on("close", go);
  });
}

function closed(socket: Socket): Promise<void> {
  if (socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

/** Reads requests one after another and gives each to `answer`, until that says the connection is over. */
async function converse(
  socket: Socket,
  answer: (request: Omit<SeenRequest, "connection">) => Promise<boolean>,
): Promise<void> {
  let buffered = Buffer.alloc(0);
  const chunks: AsyncIterator<Buffer> = socket[Symbol.asyncIterator]();
  const more = async () => {
    const step = await chunks.next();
    if (step.done) return false;
    buffered = Buffer.concat([buffered, step.value]);
    return true;
  };
  for (;;) {
    let headEnd = buffered.indexOf(`${CRLF}${CRLF}`);
    while (headEnd === -1) {
      if (!await more()) return;
      headEnd = buffered.indexOf(`${CRLF}${CRLF}`);
    }
    const { method, path, headers } = parseHead(buffered.subarray(0, headEnd).toString("latin1"));
    const bodyStart = headEnd + 4;
    const isChunked = headers["transfer-encoding"] === "chunked";
    if (isChunked) throw new Error("The fault server does not read chunked requests");
    const bodyEnd = bodyStart + Number(headers["content-length"] ?? 0);
    while (buffered.length < bodyEnd) {
      if (!await more()) return;
    }
    const body = new Uint8Array(buffered.subarray(bodyStart, bodyEnd));
    buffered = buffered.subarray(bodyEnd);
    if (!await answer({ method, path, headers, body })) return;
  }
}

function parseHead(text: string): Pick<SeenRequest, "method" | "path" | "headers"> {
  const [requestLine = "", ...lines] = text.split(CRLF);
  const [method = "", path = ""] = requestLine.split(" ");
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  return { method, path, headers };
}
