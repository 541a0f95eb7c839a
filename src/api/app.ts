import { randomUUID } from "node:crypto";
import { type Context, Hono } from "hono";
import { z } from "zod";
import { Turns } from "../agent/turns.ts";
import { ShimError, toShimError } from "../errors.ts";
import { mainLoop, MILLISECOND_OF_STEPS } from "../host/main_loop.ts";
import { describeIssues, readJson } from "../image/json_document.ts";
import { LastingRequests } from "./lasting_requests.ts";
import { openApiDocument } from "./openapi.ts";
import { answerOf, type ProblemAnswer } from "./problem.ts";
import type { Reply, Route } from "./route.ts";
import { ALL_ROUTES } from "./routes/all_routes.ts";
import type { Service } from "./service.ts";
import { streamEvents, type StreamOptions } from "./sse.ts";
import { traceRequest } from "./tracing.ts";

/** Of a route that does not say otherwise. */
export const MAX_BODY_BYTES = 1024 * 1024;
/** Longer bodies that are read at once: parsing one takes several times as much memory. */
const MAX_LARGE_BODIES = 2;
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

/** What never came as far as a route. */
export type RefusedRequest = {
  /** Unknown when nothing could be read, or was to be. */
  readonly method?: string | undefined;
  readonly path?: string | undefined;
};

export type App = {
  readonly fetch: (request: Request) => Response | Promise<Response>;
  /** The answer to what is refused before it is looked at, counted and told like any other. */
  readonly refuse: (error: ShimError, request?: RefusedRequest) => ProblemAnswer;
};

export type AppOptions = {
  /** Requests of lasting routes that are answered at once; one more is refused. */
  readonly maxLasting: number;
  readonly onAccess?: (record: AccessRecord) => void;
};

type Variables = { Variables: { requestId: string; cause: unknown } };

/** The API over a service. Every answer is what the OpenAPI document says, or a problem document. */
export function makeApp(service: Service, { maxLasting, onAccess }: AppOptions): App {
  const app = new Hono<Variables>();
  const document = openApiDocument(ALL_ROUTES, service.version);
  const lasting = new LastingRequests(maxLasting);
  const largeBodies = new Turns(MAX_LARGE_BODIES);
  app.use(async (c, next) => {
    const startedMs = performance.now();
    const requestId = randomUUID();
    c.set("requestId", requestId);
    // The router would have a GET answered and drop its body, a stream's too, which then nobody ends.
    if (c.req.method === "HEAD") c.res = refusal(c, noSuchRoute(c.req));
    else await next();
    c.header("x-request-id", requestId);
    const durationMs = performance.now() - startedMs;
    const cause = c.get("cause");
    const { method, path } = c.req;
    tell({
      requestId,
      method,
      path,
      status: c.res.status,
      durationMs,
      ...(cause === undefined ? {} : { cause }),
    });
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
        return await traceRequest(
          { name: `${method} ${each.path}`, headers: c.req.raw.headers, attributes },
          () => answer(c.req.raw, c.req.param(), { route: each, service, lasting, largeBodies }),
        );
      },
    );
  }
  app.get("/openapi.json", (c) => c.json(document));
  // Not thrown: that would pass by the counting and the log.
  app.notFound((c: Context<Variables>) => refusal(c, noSuchRoute(c.req)));
  app.onError((thrown, c) => refusal(c, toShimError(thrown)));
  return {
    fetch: (request) => app.fetch(request),
    refuse: (error, { method = "-", path = "-" } = {}) => {
      const requestId = randomUUID();
      const written = problem(error, requestId);
      tell({ requestId, method, path, status: written.status, durationMs: 0 });
      return written;
    },
  };

  function refusal(c: Context<Variables>, error: ShimError): Response {
    if (error.code === "INTERNAL") c.set("cause", error.cause ?? error);
    const { status, headers, body } = problem(error, c.get("requestId"));
    return new Response(body, { status, headers });
  }

  function problem(error: ShimError, requestId: string): ProblemAnswer {
    service.metrics.add("bootshim_errors_total", "Requests answered with an error", { code: error.code });
    return answerOf(error, requestId);
  }

  function tell(record: AccessRecord): void {
    service.metrics.add("bootshim_requests_total", "Requests answered", { status: String(record.status) });
    onAccess?.(record);
  }
}

/** A path that no route has, or a method that no route of this path has. */
function noSuchRoute({ path }: { readonly path: string }): ShimError {
  const allowed = METHODS.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method);
  if (allowed.length === 0) {
    return new ShimError("REQUEST_INVALID", "Cannot answer: there is no such route", {
      details: { remedy: "see: GET /openapi.json", httpStatus: 404 },
    });
  }
  return new ShimError("REQUEST_INVALID", "Cannot answer: the route has no such method", {
    details: { remedy: "see: GET /openapi.json", httpStatus: 405, allow: allowed.join(", ") },
  });
}

const METHODS = [{ method: "get", path: "/openapi.json" }, ...ALL_ROUTES].map(({ method, path }) => ({
  method: method.toUpperCase(),
  pattern: new RegExp(`^${path.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`),
}));

type Answering = {
  readonly route: Route;
  readonly service: Service;
  readonly lasting: LastingRequests;
  readonly largeBodies: Turns;
};

async function answer(
  request: Request,
  params: Readonly<Record<string, string>>,
  { route, service, lasting, largeBodies }: Answering,
): Promise<Response> {
  const { url, headers, signal } = request;
  if (url.length > MAX_URL_LENGTH) {
    throw new ShimError("REQUEST_INVALID", `Cannot answer: the URL is over ${MAX_URL_LENGTH} characters`);
  }
  // Hundreds that come at once keep nobody waiting who asks for something small.
  if (route.isLasting) await mainLoop.share(MILLISECOND_OF_STEPS);
  const query = Object.fromEntries(queryOf(new URL(url)));
  const input = {
    params: parse(route.params ?? z.strictObject({}), params, "path"),
    query: parse(route.query ?? z.looseObject({}), query, "query"),
    body: route.body ? parse(route.body, await readBody(request, route, largeBodies), "body") : {},
    headers,
    signal,
  };
  if (!route.isLasting) return toResponse(await route.handle(input, service), { signal, onEnd: () => {} });
  const end = lasting.begin();
  try {
    const reply = await untilGone(route.handle(input, service), signal);
    return toResponse(reply, { signal, onEnd: end });
  } catch (error) {
    end();
    throw error;
  }
}

/** What was begun goes on without its caller; only nobody waits for it any more. */
async function untilGone<T>(answered: Promise<T>, signal: AbortSignal): Promise<T> {
  const gone = Promise.withResolvers<never>();
  const leave = () => gone.reject(new ShimError("CANCELLED", "Cannot answer: the caller has gone"));
  signal.addEventListener("abort", leave);
  if (signal.aborted) leave();
  try {
    return await Promise.race([answered, gone.promise]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
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

/** A body that is large waits for its turn unread. */
async function readBody(request: Request, route: Route, largeBodies: Turns): Promise<unknown> {
  const { maxBodyBytes = MAX_BODY_BYTES } = route;
  const given = request.headers.get("content-length");
  const sizeBytes = given === null ? maxBodyBytes : Number(given);
  if (sizeBytes <= MAX_BODY_BYTES) return await readWholeBody(request, route);
  return await largeBodies.take(() => readWholeBody(request, route), { signal: request.signal, row: "" });
}

async function readWholeBody(
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

function toResponse(reply: Reply, stream: StreamOptions): Response {
  if ("events" in reply) return streamEvents(reply.events, stream);
  stream.onEnd();
  if ("json" in reply) {
    return new Response(JSON.stringify(reply.json), {
      status: reply.status,
      headers: { "content-type": "application/json", ...reply.headers },
    });
  }
  if ("text" in reply) {
    return new Response(reply.text, { status: reply.status, headers: { "content-type": reply.mediaType } });
  }
  return new Response(null, { status: 204 });
}
