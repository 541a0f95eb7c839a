import { ShimError } from "../errors.ts";
import { MAX_REDIRECTS } from "./limits.ts";
import type { RegistryRequest, RegistryResponse, Transport } from "./transport.ts";

const REDIRECT_STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** What we ask for. All else may say who we are, and so belongs to one origin only. */
const HEADERS_FOR_ALL: ReadonlySet<string> = new Set(["accept", "range", "if-range"]);

/**
 * Sends a GET or HEAD and follows where it is sent on to, as registries do to their blob storage.
 *
 * @throws {ShimError} REDIRECT_REFUSED after 5 hops, or towards something that is not as safe as where we are;
 *   REGISTRY_PROTOCOL without a usable Location; and what {@link Transport.send} throws
 */
export async function sendFollowing(
  transport: Pick<Transport, "send">,
  request: RegistryRequest,
): Promise<RegistryResponse> {
  let current = request;
  for (let hops = 0; hops <= MAX_REDIRECTS; hops += 1) {
    const response = await transport.send(current);
    if (!REDIRECT_STATUSES.has(response.status)) {
      return hops === 0 ? response : { ...response, isRedirected: true };
    }
    try {
      const url = redirectTarget(response, request.action);
      current = { ...request, url, headers: headersFor(url, current), ...sentBy(url, request) };
    } finally {
      response.discard();
    }
  }
  throw new ShimError("REDIRECT_REFUSED", `Cannot ${request.action}: more than ${MAX_REDIRECTS} redirects`);
}

/** At its own origin a registry is what the user named; elsewhere we go on its word. */
export function sentBy(
  target: URL,
  { url, sentBy }: Pick<RegistryRequest, "url" | "sentBy">,
): Pick<RegistryRequest, "sentBy"> {
  if (sentBy !== undefined) return { sentBy };
  return target.origin === url.origin ? {} : { sentBy: { registry: url, as: "redirect" } };
}

/** Credentials stay with the origin they were made for: distribution-spec v1.1.1, "API", MUST NOT. */
function headersFor(target: URL, { url, headers }: RegistryRequest): Readonly<Record<string, string>> {
  if (target.origin === url.origin) return headers;
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => HEADERS_FOR_ALL.has(name.toLowerCase())),
  );
}

/**
 * Where an answer's Location points to, relative to where the answer came from, without user and password.
 *
 * @throws {ShimError} REGISTRY_PROTOCOL when it is missing or no URL; REDIRECT_REFUSED when it is neither http nor
 *   https, or leads from https to http
 */
export function redirectTarget(response: Pick<RegistryResponse, "url" | "header">, action: string): URL {
  const location = response.header("location");
  const target = location && URL.canParse(location, response.url)
    ? new URL(location, response.url)
    : undefined;
  if (target === undefined) {
    throw new ShimError(
      "REGISTRY_PROTOCOL",
      `Cannot ${action}: the answer's Location is ${location ? "not a URL" : "missing"}`,
    );
  }
  if (target.protocol !== "https:" && target.protocol !== "http:") {
    throw new ShimError(
      "REDIRECT_REFUSED",
      `Cannot ${action}: redirected to "${target.protocol}", only http and https are followed`,
    );
  }
  if (response.url.protocol === "https:" && target.protocol !== "https:") {
    throw new ShimError(
      "REDIRECT_REFUSED",
      `Cannot ${action}: redirected from https to plain http at "${target.host}"`,
    );
  }
  target.username = "";
  target.password = "";
  target.hash = "";
  return target;
}
