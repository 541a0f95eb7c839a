import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { z } from "zod";
import { peerCredentials } from "../host/peer_credentials.ts";
import { ShimError } from "../errors.ts";
import type { App } from "./app.ts";
import { OpenConnections } from "./open_connections.ts";
import { PROBLEM_TYPE, problemOf } from "./problem.ts";

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
  const listener = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  const server = createServer({
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.idleTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECK_EVERY_MS, limits.headersTimeoutMs, limits.requestTimeoutMs),
    maxHeaderSize: MAX_HEADER_BYTES,
  });
  const callers = new OpenConnections(limits.maxConnections);
  const verdicts = new WeakMap<Socket, Promise<boolean>>();
  server.on("connection", (socket: Socket) => {
    callers.add(socket);
    if (rules === null) return;
    const verdict = mayCall(socket, rules);
    verdicts.set(socket, verdict);
    void verdict.then((isAllowed) => {
      if (!isAllowed) socket.destroy();
    });
  });
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    callers.begin(request.socket);
    response.once("close", () => callers.end(request.socket));
    void answer(request, response);
  });
  server.on("clientError", (error: Error, socket: Socket) => {
    if (socket.writable) socket.end(refusalOf("code" in error ? error.code : undefined));
    else socket.destroy();
  });
  return server;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const isAllowed = rules === null ? isForUs(request) : await (verdicts.get(request.socket) ?? false);
    if (isAllowed) return await listener(request, response);
    if (rules === null) {
      response.writeHead(403, { connection: "close" }).end();
      return;
    }
    request.socket.destroy();
  }
}

/** What never became a request of the API's is refused in the same words. */
function refusalOf(code: unknown): string {
  const [status, reason, why] = code === "ERR_HTTP_REQUEST_TIMEOUT"
    ? [408, "Request Timeout", "the request took too long to arrive"]
    : code === "HPE_HEADER_OVERFLOW"
    ? [431, "Request Header Fields Too Large", `the headers are over ${MAX_HEADER_BYTES} bytes`]
    : [400, "Bad Request", "it is not HTTP/1.1"];
  const error = new ShimError("REQUEST_INVALID", `Cannot answer: ${why}`);
  const body = JSON.stringify({ ...problemOf(error, randomUUID()), status });
  return `HTTP/1.1 ${status} ${reason}\r\nContent-Type: ${PROBLEM_TYPE}\r\nConnection: close\r\n` +
    `Content-Length: ${new TextEncoder().encode(body).length}\r\n\r\n${body}`;
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
