import { z } from "zod";
import { type ErrorCode, type ErrorDetails, ShimError } from "../errors.ts";
import { MAX_ERROR_BODY_BYTES } from "./limits.ts";
import { retryAfterMs } from "./pacing/retry_after.ts";
import { printable } from "./printable.ts";
import { readUpTo, type RegistryResponse } from "./transport.ts";

const MAX_TEXT_LENGTH = 300;
const MAX_ERRORS = 5;

/** distribution-spec v1.1.1, "Error Codes". Registries send anything here, so nothing is required. */
const errorBody = z.object({
  errors: z.array(z.object({ code: z.string(), message: z.string().optional() })).min(1),
});

const MEANING: Readonly<Record<number, ErrorCode>> = {
  401: "REGISTRY_UNAUTHORIZED",
  403: "REGISTRY_DENIED",
  404: "REGISTRY_NOT_FOUND",
  429: "REGISTRY_RATE_LIMITED",
};

const REMEDIES: Partial<Record<ErrorCode, string>> = {
  REGISTRY_UNAUTHORIZED:
    "log in with podman, skopeo or docker login as the user who runs bootshim, and check the repository's name",
  REGISTRY_DENIED: "check the login, and ask the registry's owner for access to this repository",
  REGISTRY_NOT_FOUND: "check the repository's name and the tag or digest",
  REGISTRY_RATE_LIMITED: "wait before trying again",
};

/** What storage answers to a signed URL that it takes no more: S3 and its like, and Google's of a URL that expired. */
const REFUSAL_STATUSES: readonly unknown[] = [400, 401, 403];

/** What an answer means that no reader of it can use. */
function codeOf({ status, isDenial }: RegistryResponse): ErrorCode {
  if (isDenial) return "REGISTRY_DENIED";
  return MEANING[status] ?? (status >= 500 && status <= 599 ? "REGISTRY_UNAVAILABLE" : "REGISTRY_PROTOCOL");
}

/**
 * Makes the error of an unexpected answer: its code from the status, its words from the body, of which at most 64 KiB
 * are read. A server's words are shown, never believed.
 *
 * @param action completes "Cannot …"
 * @param who answered, for the message; default: the registry, or where it redirected to
 */
export async function responseError(
  response: RegistryResponse,
  action: string,
  who = response.isRedirected ? `"${response.url.host}", where the registry redirected to,` : "registry",
): Promise<ShimError> {
  const code = codeOf(response);
  const text = await readErrorText(response);
  const errors = parseErrors(text);
  const said = errors.length > 0
    ? errors.map((error) => error.message ? `${error.code}: ${error.message}` : error.code).join("; ")
    : printable(text.trim(), MAX_TEXT_LENGTH);
  const isRefused = response.isRedirected === true && REFUSAL_STATUSES.includes(response.status);
  const remedy = isRefused
    ? "try again later; when it stays so, ask the registry's owner why the storage refuses its redirects"
    : REMEDIES[code];
  const pauseMs = retryAfterMs(response);
  const details: ErrorDetails = {
    status: response.status,
    ...(response.isRedirected ? { redirectedTo: response.url.host } : {}),
    ...(errors.length > 0 ? { errors } : {}),
    ...(pauseMs === undefined ? {} : { retryAfterMs: pauseMs }),
    ...(remedy === undefined ? {} : { remedy }),
  };
  return new ShimError(
    code,
    `Cannot ${action}: ${who} answered ${response.status}${said ? ` (${said})` : ""}`,
    { details },
  );
}

/** Whether a failure is that of a redirect which its target refused: the registry's next one may be taken. */
export function isRefusedRedirect({ details }: ShimError): boolean {
  return details["redirectedTo"] !== undefined && REFUSAL_STATUSES.includes(details["status"]);
}

async function readErrorText(response: RegistryResponse): Promise<string> {
  try {
    // An unexpected success carries content, not an explanation.
    if (response.status < 400) return "";
    return new TextDecoder().decode(await readUpTo(response.body, MAX_ERROR_BODY_BYTES));
  } catch {
    // The status has already said what went wrong; a broken explanation must not replace it.
    return "";
  } finally {
    response.discard();
  }
}

function parseErrors(text: string): readonly { readonly code: string; readonly message: string }[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Error bodies may have any format.
    return [];
  }
  const body = errorBody.safeParse(value);
  if (!body.success) return [];
  return body.data.errors.slice(0, MAX_ERRORS).map(({ code, message }) => ({
    code: printable(code, MAX_TEXT_LENGTH),
    message: printable(message ?? "", MAX_TEXT_LENGTH),
  }));
}
