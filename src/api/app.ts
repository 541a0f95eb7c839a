import { randomUUID } from "node:crypto";
import { type Context, Hono } from "hono";
import { z } from "zod";
import { ShimError, toShimError } from "../errors.ts";
import { describeIssues, readJson } from "../image/json_document.ts";
import { openApiDocument } from "./openapi.ts";
import { PROBLEM_TYPE, problemOf } from "./problem.ts";
import type { Reply, Route } from "./route.ts";
import { ALL_ROUTES } from "./routes/all_routes.ts";
import type { Service } from "./service.ts";
import { traceRequest } from "./tracing.ts";

/** Of a route that does not say otherwise. */
export const MAX_BODY_BYTES = 1024 * 1024;
const MAX_URL_LENGTH = 4096;

/** Told once for each request, when it is answered. */
export type AccessRecord = {
  readonly requestId: string;
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly durationMs: number;
  /** Of a failure that nobody foresaw. */
  readonly cause?: unknown;
};

export type App = { readonly fetch: (request: Request) => Response | Promise<Response> };

/** The API over a service. Every answer is what the OpenAPI document says, or a problem document. */
export function makeApp(
  service: Service,
  { onAccess }: { onAccess?: (record: AccessRecord) => void } = {},
): App {
  const app = new Hono<{ Variables: { requestId: string; cause: unknown } }>();
  const document = openApiDocument(ALL_ROUTES, service.version);
  app.use(async (c, next) => {
    const startedMs = performance.now();
    const requestId = randomUUID();
    c.set("requestId", requestId);
    await next();
    c.header("x-request-id", requestId);
    const durationMs = performance.now() - startedMs;
    const status = c.res.status;
    service.metrics.add("bootshim_requests_total", "Requests answered", { status: String(status) });
    const cause = c.get("cause");
    const { method, path } = c.req;
    onAccess?.({ requestId, method, path, status, durationMs, ...(cause === undefined ? {} : { cause }) });
  });
  for (const each of ALL_ROUTES) {
    // Hono's own spelling of a parameter.
    const path = each.path.replaceAll(/\{(\w+)\}/g, ":$1");
    app.on(
      each.method.toUpperCase(),
      path,
      async (c) => {
        const method = each.method.toUpperCase();
        const attributes = {
          "http.request.method": method,
          "http.route": each.path,
          "bootshim.request": c.get("requestId"),
        };
        const reply = await traceRequest(
          { name: `${method} ${each.path}`, headers: c.req.raw.headers, attributes },
          () => answer(c.req.raw, c.req.param(), each, service),
        );
        return toResponse(c, reply);
      },
    );
  }
  app.get("/openapi.json", (c) => c.json(document));
  app.notFound(() => {
    throw new ShimError("REQUEST_INVALID", "Cannot answer: there is no such route", {
      details: { remedy: "see: GET /openapi.json", httpStatus: 404 },
    });
  });
  app.onError((thrown, c) => {
    const error = toShimError(thrown);
    if (error.code === "INTERNAL") c.set("cause", error.cause ?? error);
    service.metrics.add("bootshim_errors_total", "Requests answered with an error", { code: error.code });
    const problem = problemOf(error, c.get("requestId"));
    const retryAfter = error.details["retryAfterSeconds"] ?? (error.httpStatus === 503 ? 1 : undefined);
    return new Response(JSON.stringify({ ...problem, status: statusOf(error) }), {
      status: statusOf(error),
      headers: {
        "content-type": PROBLEM_TYPE,
        ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
      },
    });
  });
  return { fetch: (request) => app.fetch(request) };
}

/** The code's status, save where HTTP has a word of its own for one way of being wrong. */
function statusOf(error: ShimError): number {
  const special = error.details["httpStatus"];
  return typeof special === "number" ? special : error.httpStatus;
}

async function answer(
  request: Request,
  params: Readonly<Record<string, string>>,
  route: Route,
  service: Service,
): Promise<Reply> {
  const { url, headers, signal } = request;
  if (url.length > MAX_URL_LENGTH) {
    throw new ShimError("REQUEST_INVALID", `Cannot answer: the URL is over ${MAX_URL_LENGTH} characters`);
  }
  const query = Object.fromEntries(queryOf(new URL(url)));
  const input = {
    params: parse(route.params ?? z.strictObject({}), params, "path"),
    query: parse(route.query ?? z.looseObject({}), query, "query"),
    body: route.body ? parse(route.body, await readBody(request, route), "body") : {},
    headers,
    signal,
  };
  return await route.handle(input, service);
}

/** @throws {ShimError} REQUEST_INVALID for a name twice: readers differ over which one counts */
function queryOf({ searchParams }: URL): [string, string][] {
  const pairs = [...searchParams];
  if (new Set(pairs.map(([name]) => name)).size === pairs.length) return pairs;
  throw new ShimError("REQUEST_INVALID", "Cannot answer: a query parameter is given twice");
}

function parse<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new ShimError("REQUEST_INVALID", `Cannot use the ${what}: ${describeIssues(result.error)}`, {
    details: {
      issues: result.error.issues.slice(0, 10).map(({ path, message }) => ({
        path: path.map(String),
        message,
      })),
    },
  });
}

async function readBody(
  request: Request,
  { isBodyOptional = false, maxBodyBytes = MAX_BODY_BYTES }: Route,
): Promise<unknown> {
  const bytes = await readUpTo(request.body, maxBodyBytes + 1);
  if (bytes.length > maxBodyBytes) {
    throw new ShimError("LIMIT_EXCEEDED", `Cannot use the body: it is over ${maxBodyBytes} bytes`, {
      details: { httpStatus: 413 },
    });
  }
  if (bytes.length === 0 && isBodyOptional) return {};
  const type = request.headers.get("content-type")?.split(";", 1)[0]?.trim().toLowerCase();
  // Also what keeps a web page from sending one: browsers ask before they send this type elsewhere.
  if (type !== "application/json") {
    throw new ShimError("REQUEST_INVALID", "Cannot use the body: Content-Type must be application/json");
  }
  try {
    return readJson(bytes, "the body");
  } catch (error) {
    throw new ShimError("REQUEST_INVALID", toShimError(error).message, { cause: error });
  }
}

async function readUpTo(body: ReadableStream<Uint8Array> | null, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  if (body) {
    for await (const chunk of body) {
      chunks.push(chunk);
      sizeBytes += chunk.length;
      if (sizeBytes >= maxBytes) break;
    }
  }
  return new Uint8Array(Buffer.concat(chunks));
}

function toResponse(c: Context, reply: Reply): Response {
  if (reply instanceof Response) return reply;
  if ("json" in reply) {
    return new Response(JSON.stringify(reply.json), {
      status: reply.status,
      headers: { "content-type": "application/json", ...reply.headers },
    });
  }
  if ("text" in reply) {
    return new Response(reply.text, { status: reply.status, headers: { "content-type": reply.mediaType } });
  }
  return c.body(null, 204);
}
