import {
  type Attributes,
  context,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import { toShimError } from "../errors.ts";

/*
 * Spans by OpenTelemetry's own interface, for whatever the runtime has behind it: Deno exports them when `OTEL_DENO` is
 * set, and without it all of this does nothing.
 */

const TRACER = "bootshim";

/** Runs a request as a span of its caller's trace, which the `traceparent` header names. */
export async function traceRequest<T extends { readonly status: number }>(
  { name, headers, attributes }: {
    readonly name: string;
    readonly headers: Headers;
    readonly attributes: Attributes;
  },
  body: () => Promise<T>,
): Promise<T> {
  const caller = propagation.extract(context.active(), headers, {
    get: (carrier, key) => carrier.get(key) ?? undefined,
    keys: (carrier) => [...carrier.keys()],
  });
  const options = { kind: SpanKind.SERVER, attributes };
  return await trace.getTracer(TRACER).startActiveSpan(
    name,
    options,
    caller,
    (span) =>
      inSpan(span, async () => {
        const answer = await body();
        span.setAttribute("http.response.status_code", answer.status);
        return answer;
      }),
  );
}

/** Runs an operation as a span of the request that began it. `enter` begins a phase, which is a span of its own. */
export async function traceOperation<T>(
  name: string,
  attributes: Attributes,
  body: (enter: (phase: string) => void) => Promise<T>,
): Promise<T> {
  const tracer = trace.getTracer(TRACER);
  return await tracer.startActiveSpan(name, { attributes }, (span) =>
    inSpan(span, async () => {
      // Progress is told from wherever bytes come in, so the place of a phase is kept.
      const here = context.active();
      let current: { readonly name: string; readonly span: Span } | undefined;
      const enter = (phase: string) => {
        if (phase === current?.name) return;
        current?.span.end();
        current = { name: phase, span: tracer.startSpan(phase, {}, here) };
      };
      try {
        return await body(enter);
      } finally {
        current?.span.end();
      }
    }));
}

async function inSpan<T>(span: Span, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    const { code, httpStatus } = toShimError(error);
    span.setStatus({ code: SpanStatusCode.ERROR, message: code });
    span.setAttributes({ "error.type": code, "http.response.status_code": httpStatus });
    throw error;
  } finally {
    span.end();
  }
}
