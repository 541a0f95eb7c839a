import { z } from "zod";
import { RESYNC } from "../event_log.ts";
import { operationDocument } from "../operation.ts";
import { type Route, route } from "../route.ts";
import { lastEventId } from "../sse.ts";

const params = z.strictObject({ id: z.string().max(64) });

export const OPERATION_ROUTES: readonly Route[] = [
  route({
    method: "get",
    path: "/v1/operations",
    summary: "What is being done, and what was done lately",
    success: [{
      status: 200,
      description: "the operations, oldest first",
      schema: z.array(operationDocument),
    }],
    errors: [],
    handle: (_input, { operations }) => Promise.resolve({ status: 200, json: operations.list() }),
  }),
  route({
    method: "get",
    path: "/v1/operations/{id}",
    summary: "One operation",
    params,
    success: [{ status: 200, description: "the operation", schema: operationDocument }],
    errors: ["OPERATION_NOT_FOUND"],
    handle: ({ params }, { operations }) =>
      Promise.resolve({ status: 200, json: operations.find(params.id) }),
  }),
  route({
    method: "delete",
    path: "/v1/operations/{id}",
    summary: "Cancel an operation, for all who joined it; one that is over stays as it is",
    params,
    success: [{ status: 200, description: "the operation, as it was", schema: operationDocument }],
    errors: ["OPERATION_NOT_FOUND"],
    handle: ({ params }, { operations }) =>
      Promise.resolve({ status: 200, json: operations.cancel(params.id) }),
  }),
  route({
    method: "get",
    path: "/v1/operations/{id}/events",
    isLasting: true,
    summary: "An operation's events as they come, until it is over",
    params,
    success: [{ status: 200, description: "events", mediaType: "text/event-stream" }],
    errors: ["OPERATION_NOT_FOUND"],
    handle: ({ params: { id }, headers }, { operations, events }) => {
      const before = operations.find(id);
      // From this moment on, not from when the reader first asks: it may be over by then.
      const afterId = lastEventId(headers) ?? events.lastId;
      return Promise.resolve({ status: 200, events: untilOver });

      async function* untilOver(signal: AbortSignal) {
        // The state now: what was before is in no event any more, or the reader has it.
        yield {
          id: 0,
          type: `operation.${before.state}`,
          at: before.startedAt,
          data: { operation: id, progress: before.progress },
        };
        if (isOver(before.state)) return;
        for await (
          const event of events.read({ afterId, wants: ({ data }) => data["operation"] === id, signal })
        ) {
          yield event;
          // Its end may be among what was lost.
          if (event.type === RESYNC && isOver(operations.find(id).state)) return;
          if (isOver(event.type.slice("operation.".length))) return;
        }
      }
    },
  }),
];

function isOver(state: string): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}
