import type { RegistryResponse } from "../transport.ts";

/** However long a server wants us to stay away: whoever needs longer is told so by the failure. */
const LONGEST_MS = 60_000;

/**
 * How long a server asks us to wait before we try again, in milliseconds from now.
 *
 * @returns from 0 to 60,000; undefined when it does not say, or says it in a way that means nothing
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
 */
export function retryAfterMs(response: Pick<RegistryResponse, "values">): number | undefined {
  const [value, ...others] = response.values("retry-after");
  if (value === undefined || others.length > 0) return undefined;
  const wantedMs = /^[0-9]+$/.test(value) ? Number(value) * 1000 : millisecondsUntil(value, response);
  return Number.isNaN(wantedMs) ? undefined : Math.min(Math.max(wantedMs, 0), LONGEST_MS);
}

/** By the server's own clock where it tells the time: then ours may be wrong. */
function millisecondsUntil(value: string, response: Pick<RegistryResponse, "values">): number {
  const now = parseHttpDate(response.values("date")[0] ?? "");
  return parseHttpDate(value) - (Number.isNaN(now) ? Date.now() : now);
}

/** The one form that may be sent; the two obsolete ones are no longer seen. @returns NaN for anything else */
function parseHttpDate(value: string): number {
  return /^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$/.test(value)
    ? Date.parse(value)
    : NaN;
}
