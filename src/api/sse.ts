import type { LoggedEvent } from "./event_log.ts";

/** Told when nothing else is, so that a connection that broke is noticed by both ends. */
const KEEPALIVE_MS = 15_000;

/**
 * Events as a stream of the kind that browsers' EventSource reads.
 *
 * @param events ends when the signal it was made with fires
 * @see https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function streamEvents(events: AsyncGenerator<LoggedEvent>, stop: AbortController): Response {
  const encoder = new TextEncoder();
  let timer: ReturnType<typeof setInterval> | undefined;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(encoder.encode(": events follow\n\n"));
      timer = setInterval(() => {
        // A reader that is behind needs no sign of life.
        if ((controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(": alive\n\n"));
      }, KEEPALIVE_MS);
    },
    async pull(controller) {
      const { done, value } = await events.next();
      if (done) {
        clearInterval(timer);
        controller.close();
        return;
      }
      const { id, type, at, data } = value;
      controller.enqueue(
        encoder.encode(`id: ${id}\nevent: ${type}\ndata: ${JSON.stringify({ at, ...data })}\n\n`),
      );
    },
    cancel() {
      clearInterval(timer);
      stop.abort();
    },
  });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}

/** @returns undefined when it is no number of an event */
export function lastEventId(headers: Headers): number | undefined {
  const value = headers.get("last-event-id") ?? "";
  return /^[0-9]{1,15}$/.test(value) ? Number(value) : undefined;
}
