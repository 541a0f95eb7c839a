import type { LoggedEvent } from "./event_log.ts";

/** Told when nothing else is, so that a connection that broke is noticed by both ends. */
const KEEPALIVE_MS = 15_000;

export type StreamOptions = {
  /** Fires when the caller has gone. */
  readonly signal: AbortSignal;
  /** Told once, when nothing of the stream is left. */
  readonly onEnd: () => void;
};

/**
 * Events as a stream of the kind that browsers' EventSource reads.
 *
 * @param read gives events until its signal fires
 * @see https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export function streamEvents(
  read: (ended: AbortSignal) => AsyncGenerator<LoggedEvent>,
  { signal, onEnd }: StreamOptions,
): Response {
  const encoder = new TextEncoder();
  const stop = new AbortController();
  const events = read(stop.signal);
  let timer: ReturnType<typeof setInterval> | undefined;
  const end = () => {
    if (stop.signal.aborted) return;
    clearInterval(timer);
    signal.removeEventListener("abort", end);
    stop.abort();
    onEnd();
    // It may stand at an event that nobody took, where no signal reaches it.
    void events.return(undefined);
  };
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(encoder.encode(": events follow\n\n"));
      timer = setInterval(() => {
        // A reader that is behind needs no sign of life.
        if ((controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(": alive\n\n"));
      }, KEEPALIVE_MS);
      signal.addEventListener("abort", end);
      if (signal.aborted) end();
    },
    async pull(controller) {
      const { done, value } = await events.next();
      if (done) {
        end();
        controller.close();
        return;
      }
      const { id, type, at, data } = value;
      controller.enqueue(
        encoder.encode(`id: ${id}\nevent: ${type}\ndata: ${JSON.stringify({ at, ...data })}\n\n`),
      );
    },
    cancel: end,
  });
  return new Response(body, {
    headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
  });
}

/** @returns undefined when it is no number of an event */
export function lastEventId(headers: Headers): number | undefined {
  const value = headers.get("last-event-id") ?? "";
  const id = Number(value);
  return /^[0-9]{1,16}$/.test(value) && Number.isSafeInteger(id) ? id : undefined;
}
