import type { z } from "zod";
import type { ErrorCode } from "../errors.ts";
import type { LoggedEvent } from "./event_log.ts";
import type { Service } from "./service.ts";

/** What one route answers when all is well. */
export type Success = {
  readonly status: 200 | 202 | 204;
  readonly description: string;
  readonly mediaType?: "application/json" | "text/event-stream" | "text/plain" | "application/xml";
  /** Of the JSON; none for an answer without a body, or of another type. */
  readonly schema?: z.ZodType;
};

export type RouteInput<P, Q, B> = {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  readonly headers: Headers;
  /** Fires when the caller has gone. */
  readonly signal: AbortSignal;
};

/** A status with a JSON value, a text, or events as they come until the signal fires. */
export type Reply =
  | { readonly status: number; readonly json: unknown; readonly headers?: Readonly<Record<string, string>> }
  | { readonly status: number; readonly text: string; readonly mediaType: string }
  | { readonly status: number; readonly events: (ended: AbortSignal) => AsyncGenerator<LoggedEvent> }
  | { readonly status: 204 };

/** One row of the API: the router, the checks and the OpenAPI document are made of it, so they cannot differ. */
export type Route<P = unknown, Q = unknown, B = unknown> = {
  readonly method: "get" | "post" | "put" | "delete";
  /** As in OpenAPI: `/v1/machines/{id}`. */
  readonly path: string;
  readonly summary: string;
  readonly params?: z.ZodObject<z.ZodRawShape>;
  readonly query?: z.ZodObject<z.ZodRawShape>;
  readonly body?: z.ZodType;
  /** A body may be left out: then it is `{}`. */
  readonly isBodyOptional?: boolean;
  /** A longer body is refused with 413. Default: 1 MiB. */
  readonly maxBodyBytes?: number;
  /** It may take as long as something outside of us does: only so many are answered at once. */
  readonly isLasting?: boolean;
  readonly success: readonly Success[];
  readonly errors: readonly ErrorCode[];
  readonly handle: (input: RouteInput<P, Q, B>, service: Service) => Promise<Reply>;
};

type Parsed<S> = S extends z.ZodType ? z.output<S> : Record<string, never>;

/** Ties a route's handler to its own schemas, then forgets them: the table holds routes of all kinds. */
export function route<
  const P extends z.ZodObject<z.ZodRawShape> | undefined = undefined,
  const Q extends z.ZodObject<z.ZodRawShape> | undefined = undefined,
  const B extends z.ZodType | undefined = undefined,
>(
  definition: Omit<Route, "params" | "query" | "body" | "handle"> & {
    readonly params?: P;
    readonly query?: Q;
    readonly body?: B;
    readonly handle: (input: RouteInput<Parsed<P>, Parsed<Q>, Parsed<B>>, service: Service) => Promise<Reply>;
  },
): Route {
  // The router parses with these very schemas before it calls, which the table's type cannot say.
  return definition as unknown as Route;
}
