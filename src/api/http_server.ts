import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { z } from "zod";
import { peerCredentials } from "../host/peer_credentials.ts";
import { ShimError } from "../errors.ts";
import type { App, RefusedRequest } from "./app.ts";
import { OpenConnections } from "./open_connections.ts";
import type { ProblemAnswer } from "./problem.ts";

export type CallerRules = {
  /** Users who may call; null: whoever the socket's mode lets connect. */
  readonly allowedUserIds: ReadonlySet<number> | null;
};

/** What callers may cost us. */
export type HttpLimits = {
  readonly headersTimeoutMs: number;
  /** To the last byte of the body: 1 MiB at most. */
  readonly requestTimeoutMs: number;
  /** Between two requests of one connection. */
  readonly idleTimeoutMs: number;
  /** At once; for one more, the longest idle is closed. */
  readonly maxConnections: number;
};

const MAX_HEADER_BYTES = 16 * 1024;
/** How often connections are looked at that may be too slow; a short limit is looked at more often. */
const CHECK_EVERY_MS = 1000;

const withDescriptor = z.object({ _handle: z.object({ fd: z.int().min(0) }) });

/**
 * An HTTP server for one listening place. A caller is known before a byte of its request is looked at; one that may not
 * call, or whose credentials the kernel does not tell, is cut off.
 *
 * @param rules null for TCP, which has no credentials: it is on loopback, and only where the user asked for it
 */
export function makeHttpServer(
  app: App,
  { rules, limits }: { readonly rules: CallerRules | null; readonly limits: HttpLimits },
): Server {
  const listener = getRequestListener(app.fetch, {
    overrideGlobalObjects: false,
    // What is no request for the library: a target or a Host that is no URL's.
    errorHandler: () => {
      const { status, headers, body } = app.refuse(refusalOf(400, "its target or its Host is malformed"));
      return new Response(body, { status, headers });
    },
  });
  const server = createServer({
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.idleTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECK_EVERY_MS, limits.headersTimeoutMs, limits.requestTimeoutMs),
    maxHeaderSize: MAX_HEADER_BYTES,
    // Judged by us, so that it is told in our words.
    requireHostHeader: false,
  });
  const callers = new OpenConnections(limits.maxConnections);
  const verdicts = new WeakMap<Socket, Promise<boolean>>();
  server.on("connection", (socket: Socket) => {
    callers.add(socket);
    if (rules === null) return;
    const verdict = mayCall(socket, rules);
    verdicts.set(socket, verdict);
    void verdict.then((isAllowed) => {
      if (isAllowed) return;
      app.refuse(new ShimError("POLICY_DENIED", "Cannot answer: the caller's user may not call"));
      socket.destroy();
    });
  });
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    const end = beginWhenWhole(request);
    void answer(request, response, flawOf(request)).finally(end);
  });
  server.on("checkExpectation", (request: IncomingMessage, response: ServerResponse) => {
    void answer(request, response, refusalOf(417, "nothing but 100-continue can be expected"));
  });
  server.on("connect", ({ method, url }: IncomingMessage, socket: Socket) => {
    refuseRaw(socket, refusalOf(405, "it is no proxy"), { method, path: url });
  });
  server.on("clientError", (error: Error, socket: Socket) => {
    refuseRaw(socket, unreadable("code" in error ? error.code : undefined));
  });
  return server;

  /** Its connection is at work from the last byte of the request until all of the answer is handed over. */
  function beginWhenWhole(request: IncomingMessage): () => void {
    let isAnswered = false;
    let end: (() => void) | undefined;
    const begin = () => {
      if (!isAnswered) end = callers.begin(request.socket);
    };
    const { "content-length": length = "0", "transfer-encoding": encoding } = request.headers;
    if (length === "0" && encoding === undefined) begin();
    else request.once("end", begin);
    return () => {
      isAnswered = true;
      end?.();
    };
  }

  async function answer(
    request: IncomingMessage,
    response: ServerResponse,
    refusal: ShimError | undefined,
  ): Promise<void> {
    if (!await isAllowed(request.socket)) {
      request.socket.destroy();
      return;
    }
    if (!refusal) return await listener(request, response);
    const { method, url } = request;
    const { status, headers, body } = app.refuse(refusal, { method, path: url?.split("?", 1)[0] });
    const sizeBytes = new TextEncoder().encode(body).length;
    response.writeHead(status, { ...headers, "content-length": sizeBytes, connection: "close" });
    response.end(method === "HEAD" ? undefined : body);
  }

  /** Of what never became a request: in the same words, and nothing to whom nothing is to be told. */
  function refuseRaw(socket: Socket, error: ShimError, request?: RefusedRequest): void {
    void isAllowed(socket).then((isAllowed) => {
      if (!isAllowed || !socket.writable) {
        socket.destroy();
        return;
      }
      socket.end(writeAnswer(app.refuse(error, request)));
    });
  }

  async function isAllowed(socket: Socket): Promise<boolean> {
    return rules === null || await (verdicts.get(socket) ?? false);
  }

  function flawOf(request: IncomingMessage): ShimError | undefined {
    const { headers, url = "" } = request;
    if (!url.startsWith("/")) return refusalOf(400, "its target must be a path");
    if (headers.host === undefined) return refusalOf(400, "it has no Host");
    if (headers.upgrade !== undefined) return refusalOf(400, "no other protocol is spoken here");
    if (rules !== null || isForUs(request)) return undefined;
    return new ShimError(
      "POLICY_DENIED",
      "Cannot answer: it comes from a web page, or is meant for another host",
    );
  }
}

function refusalOf(httpStatus: number, why: string): ShimError {
  return new ShimError("REQUEST_INVALID", `Cannot answer: ${why}`, { details: { httpStatus } });
}

function unreadable(code: unknown): ShimError {
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return refusalOf(408, "the request took too long to arrive");
  if (code === "HPE_HEADER_OVERFLOW") return refusalOf(431, `the headers are over ${MAX_HEADER_BYTES} bytes`);
  return refusalOf(400, "it is not HTTP/1.1");
}

function writeAnswer({ status, headers, body }: ProblemAnswer): string {
  const all = { ...headers, connection: "close", "content-length": new TextEncoder().encode(body).length };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\n${lines.join("")}\r\n${body}`;
}

async function mayCall(socket: Socket, { allowedUserIds }: CallerRules): Promise<boolean> {
  const descriptor = withDescriptor.safeParse(socket);
  if (!descriptor.success) return false;
  try {
    const { uid } = await peerCredentials(descriptor.data._handle.fd);
    return allowedUserIds === null || allowedUserIds.has(uid);
  } catch {
    // Unknown is not allowed.
    return false;
  }
}

/**
 * A web page's script can reach loopback by a name of its own: then the Host is that name. And a page can send a form or
 * an empty request anywhere: then browsers say who does. Programs that are no browsers send no Origin.
 */
function isForUs({ headers }: IncomingMessage): boolean {
  const fetchSite = headers["sec-fetch-site"];
  if (headers.origin !== undefined || (fetchSite !== undefined && fetchSite !== "none")) return false;
  const host = headers.host?.replace(/:[0-9]+$/, "");
  return host === "127.0.0.1" || host === "[::1]" || host === "localhost";
}
