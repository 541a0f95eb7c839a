import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { z } from "zod";
import { peerCredentials } from "../host/peer_credentials.ts";
import type { App } from "./app.ts";

export type CallerRules = {
  /** Users who may call; null: whoever the socket's mode lets connect. */
  readonly allowedUserIds: ReadonlySet<number> | null;
};

/** What one caller may cost us. Times are milliseconds. */
const LIMITS = {
  headersTimeoutMs: 10_000,
  /** To the last byte of the body: 1 MiB at most. */
  requestTimeoutMs: 30_000,
  keepAliveTimeoutMs: 60_000,
  maxConnections: 1024,
  maxHeaderBytes: 16 * 1024,
} as const;

const withDescriptor = z.object({ _handle: z.object({ fd: z.int().min(0) }) });

/**
 * An HTTP server for one listening place. A caller is known before a byte of its request is looked at; one that may not
 * call, or whose credentials the kernel does not tell, is cut off.
 *
 * @param rules null for TCP, which has no credentials: it is on loopback, and only where the user asked for it
 */
export function makeHttpServer(app: App, rules: CallerRules | null): Server {
  const listener = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  const server = createServer({
    headersTimeout: LIMITS.headersTimeoutMs,
    requestTimeout: LIMITS.requestTimeoutMs,
    keepAliveTimeout: LIMITS.keepAliveTimeoutMs,
    connectionsCheckingInterval: 1000,
    maxHeaderSize: LIMITS.maxHeaderBytes,
  });
  server.maxConnections = LIMITS.maxConnections;
  const verdicts = new WeakMap<Socket, Promise<boolean>>();
  server.on("connection", (socket: Socket) => {
    if (rules === null) return;
    const verdict = mayCall(socket, rules);
    verdicts.set(socket, verdict);
    void verdict.then((isAllowed) => {
      if (!isAllowed) socket.destroy();
    });
  });
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    void answer(request, response);
  });
  server.on("clientError", (_error: Error, socket: Socket) => {
    if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
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

/** A web page's script can reach loopback by a name of its own: then the Host is that name. */
function isForUs({ headers }: IncomingMessage): boolean {
  const host = headers.host?.replace(/:[0-9]+$/, "");
  return host === "127.0.0.1" || host === "[::1]" || host === "localhost";
}
