import { z } from "zod";
import { CODES, type ErrorCode } from "../errors.ts";
import { PROBLEM_TYPE, problemDocument } from "./problem.ts";
import type { Route, Success } from "./route.ts";

type Json = Readonly<Record<string, unknown>>;

/** What any route may answer, whatever it does: to requests that it never saw, and when something breaks. */
const ALWAYS: readonly {
  readonly status: number;
  readonly codes: readonly ErrorCode[];
  readonly why: string;
}[] = [
  { status: 400, codes: ["REQUEST_INVALID"], why: "the request is not what this document says" },
  { status: 403, codes: ["POLICY_DENIED"], why: "the caller may not" },
  { status: 405, codes: ["REQUEST_INVALID"], why: "the route has no such method" },
  { status: 408, codes: ["REQUEST_INVALID"], why: "the request took too long to arrive" },
  { status: 413, codes: ["LIMIT_EXCEEDED"], why: "the body is too large" },
  { status: 417, codes: ["REQUEST_INVALID"], why: "nothing but 100-continue can be expected" },
  { status: 431, codes: ["REQUEST_INVALID"], why: "the headers are too large" },
  { status: 500, codes: ["INTERNAL"], why: "a failure of ours" },
];

/** @see https://spec.openapis.org/oas/v3.1.1.html */
export function openApiDocument(routes: readonly Route[], version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const each of routes) (paths[each.path] ??= {})[each.method] = describeRoute(each);
  return {
    openapi: "3.1.1",
    info: {
      title: "bootshim",
      version,
      description: "Prepares operating-system images from OCI registries for hypervisors, on this host.",
    },
    servers: [{ url: "/", description: "the unix socket, or the loopback address, the service listens on" }],
    paths,
    components: { schemas: { Problem: schemaOf(problemDocument, "output") } },
  };
}

function describeRoute(
  { method, path, summary, params, query, body, isBodyOptional, success, errors }: Route,
): Json {
  const parameters = [
    ...describeParameters("path", params),
    ...describeParameters("query", query),
  ];
  return {
    operationId: operationIdOf(method, path),
    summary,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body
      ? {
        requestBody: {
          required: !isBodyOptional,
          content: { "application/json": { schema: schemaOf(body, "input") } },
        },
      }
      : {}),
    responses: { ...describeErrors(errors), ...describeSuccess(success) },
  };
}

function describeParameters(place: "path" | "query", schema: Route["params"]): Json[] {
  return Object.entries(schema?.shape ?? {}).map(([name, field]) => {
    const type = z.toJSONSchema(field as z.ZodType, { io: "input" });
    delete type.$schema;
    return { name, in: place, required: place === "path", schema: type };
  });
}

function describeSuccess(success: readonly Success[]): Json {
  return Object.fromEntries(success.map(({ status, description, schema, mediaType = "application/json" }) => [
    String(status),
    {
      description,
      ...(status === 204
        ? {}
        : { content: { [mediaType]: { schema: schema ? schemaOf(schema, "output") : { type: "string" } } } }),
    },
  ]));
}

function describeErrors(codes: readonly ErrorCode[]): Json {
  const byStatus = new Map<number, Set<string>>();
  const add = (status: number, code: string) =>
    byStatus.set(status, (byStatus.get(status) ?? new Set()).add(code));
  for (const code of codes) add(CODES[code].http, code);
  for (const { status, codes } of ALWAYS) for (const code of codes) add(status, code);
  return Object.fromEntries(
    [...byStatus].sort(([a], [b]) => a - b).map(([status, codes]) => [
      String(status),
      {
        description: [...codes].sort().join(", "),
        content: { [PROBLEM_TYPE]: { schema: { $ref: "#/components/schemas/Problem" } } },
      },
    ]),
  );
}

function schemaOf(schema: z.ZodType, io: "input" | "output"): Json {
  const json = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  delete json.$schema;
  return json;
}

function operationIdOf(method: string, path: string): string {
  const words = path.replace(/^\/(v1\/)?/, "").replaceAll(/[{}]/g, "").split(/[/.-]/);
  return [method, ...words.map((word) => word.charAt(0).toUpperCase() + word.slice(1))].join("");
}
