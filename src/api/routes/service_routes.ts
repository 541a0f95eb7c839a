import { z } from "zod";
import { ShimError } from "../../errors.ts";
import { findingDocument, versionDocument } from "../documents.ts";
import { type Route, route } from "../route.ts";
import { lastEventId } from "../sse.ts";

const health = z.strictObject({ status: z.literal("ok") });

/** About the service itself. */
export const SERVICE_ROUTES: readonly Route[] = [
  route({
    method: "get",
    path: "/v1/events",
    isLasting: true,
    summary:
      "What happens here, as it happens; `Last-Event-ID` continues, a `resync` event says that some were lost",
    success: [{ status: 200, description: "events", mediaType: "text/event-stream" }],
    errors: [],
    handle: ({ headers }, { events }) => {
      const afterId = lastEventId(headers);
      return Promise.resolve({
        status: 200,
        events: (signal) =>
          events.read({
            afterId,
            // Progress belongs to its operation's own events: here it would drown the rest.
            wants: (event) => event.type !== "operation.progress",
            signal,
          }),
      });
    },
  }),
  route({
    method: "get",
    path: "/v1/host",
    isLasting: true,
    summary: "What a guest on this host needs, checked within the last seconds: each with a remedy",
    success: [{ status: 200, description: "the findings", schema: z.array(findingDocument) }],
    errors: [],
    handle: async (_input, { examineHost }) => ({ status: 200, json: await examineHost() }),
  }),
  route({
    method: "get",
    path: "/v1/version",
    summary: "The version of the service",
    success: [{ status: 200, description: "the version", schema: versionDocument }],
    errors: [],
    handle: (_input, { version }) => Promise.resolve({ status: 200, json: { version } }),
  }),
  route({
    method: "get",
    path: "/healthz",
    summary: "Whether the service lives",
    success: [{ status: 200, description: "it does", schema: health }],
    errors: [],
    handle: () => Promise.resolve({ status: 200, json: { status: "ok" } }),
  }),
  route({
    method: "get",
    path: "/readyz",
    summary: "Whether the service takes new work",
    success: [{ status: 200, description: "it does", schema: health }],
    errors: ["BUSY"],
    handle: (_input, { isReady }) => {
      if (isReady()) return Promise.resolve({ status: 200, json: { status: "ok" } });
      return Promise.reject(new ShimError("BUSY", "Cannot take new work: the service is ending"));
    },
  }),
  route({
    method: "get",
    path: "/metrics",
    summary: "Numbers for Prometheus",
    success: [{ status: 200, description: "text format 0.0.4", mediaType: "text/plain" }],
    errors: [],
    handle: async (_input, { metrics }) => ({
      status: 200,
      text: await metrics.render(),
      mediaType: "text/plain; version=0.0.4; charset=utf-8",
    }),
  }),
];
