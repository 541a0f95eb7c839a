import { type ErrorCode, ShimError } from "../errors.ts";
import { AddressRefused, type SentBy } from "./network/reach.ts";

/** What undici, sockets and TLS say, and what it means to us. */
const MEANING: Readonly<Record<string, ErrorCode>> = {
  ENOTFOUND: "REGISTRY_UNAVAILABLE",
  EAI_AGAIN: "REGISTRY_UNAVAILABLE",
  EAI_FAIL: "REGISTRY_UNAVAILABLE",
  ECONNREFUSED: "REGISTRY_UNAVAILABLE",
  ECONNRESET: "REGISTRY_UNAVAILABLE",
  ECONNABORTED: "REGISTRY_UNAVAILABLE",
  EHOSTUNREACH: "REGISTRY_UNAVAILABLE",
  ENETUNREACH: "REGISTRY_UNAVAILABLE",
  EADDRNOTAVAIL: "REGISTRY_UNAVAILABLE",
  EPIPE: "REGISTRY_UNAVAILABLE",
  UND_ERR_SOCKET: "REGISTRY_UNAVAILABLE",
  UND_ERR_PRX_CONN: "REGISTRY_UNAVAILABLE",
  UND_ERR_PRX_TLS: "REGISTRY_TLS",
  ETIMEDOUT: "REGISTRY_TIMEOUT",
  UND_ERR_CONNECT_TIMEOUT: "REGISTRY_TIMEOUT",
  UND_ERR_HEADERS_TIMEOUT: "REGISTRY_TIMEOUT",
  UND_ERR_BODY_TIMEOUT: "REGISTRY_TIMEOUT",
  UND_ERR_HEADERS_OVERFLOW: "REGISTRY_PROTOCOL",
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: "REGISTRY_PROTOCOL",
  UND_ERR_ABORTED: "CANCELLED",
  UND_ERR_DESTROYED: "CANCELLED",
  UND_ERR_CLOSED: "CANCELLED",
};

/** OpenSSL's verification results and both runtimes' TLS errors; rustls (Deno) uses the same names. */
const TLS_CODE =
  /^(?:ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_MISMATCH|INVALID_CA|EPROTO)/;

const WORDS: Partial<Record<ErrorCode, string>> = {
  REGISTRY_UNAVAILABLE: "the connection failed or broke",
  REGISTRY_TIMEOUT: "the server did not answer in time",
  REGISTRY_TLS: "the server's TLS certificate or handshake is not acceptable",
  REGISTRY_PROTOCOL: "the answer is not valid HTTP",
  CANCELLED: "the operation was cancelled",
};

const REMEDIES: Partial<Record<ErrorCode, string>> = {
  REGISTRY_UNAVAILABLE: "check the registry's name and port, and that it is running",
  REGISTRY_TLS: "give the registry a certificate this host trusts; plain HTTP must be allowed by name",
};

/**
 * Translates what the network said, once. A ShimError passes as it is: it comes from our own request body.
 *
 * @param action completes "Cannot …"
 */
export function translateTransportError(
  error: unknown,
  { action, url, signal, sentBy }: {
    readonly action: string;
    /** Where the request goes; none for what never became one. */
    readonly url?: URL;
    readonly signal?: AbortSignal | undefined;
    readonly sentBy?: SentBy | undefined;
  },
): ShimError {
  if (error instanceof ShimError) return error;
  const proxyStatus = proxyStatusOf(error);
  if (proxyStatus !== undefined) {
    return new ShimError(
      "REGISTRY_UNAVAILABLE",
      `Cannot ${action}: the proxy answered ${proxyStatus} to a request for a connection`,
      {
        cause: error,
        details: { remedy: "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY, and what the proxy allows" },
      },
    );
  }
  if (error instanceof AddressRefused && url) return error.toShimError(action, { host: url.host, sentBy });
  const code = signal?.aborted ? "CANCELLED" : meaningOf(error);
  const remedy = REMEDIES[code];
  const foreignCode = foreignCodeOf(error);
  const words = WORDS[code] ??
    `unexpected failure, ${error instanceof Error ? error.message : String(error)}`;
  return new ShimError(code, `Cannot ${action}: ${words}${foreignCode ? ` (${foreignCode})` : ""}`, {
    cause: error,
    details: remedy === undefined ? {} : { remedy },
  });
}

/** undici tells of a proxy's refusal in words only. */
function proxyStatusOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  return /^Proxy response \(([0-9]{3})\)|^Proxy Authentication Required \((407)\)/.exec(error.message)?.slice(
    1,
  )
    .find((status) => status !== undefined);
}

/** True when the server closed the connection in good order, but before the end it had announced. */
export function isEarlyEnd(error: ShimError): boolean {
  return foreignCodeOf(error.cause) === "UND_ERR_SOCKET";
}

function meaningOf(error: unknown): ErrorCode {
  const code = foreignCodeOf(error);
  if (code !== undefined) {
    if (Object.hasOwn(MEANING, code)) return MEANING[code] ?? "INTERNAL";
    if (TLS_CODE.test(code)) return "REGISTRY_TLS";
  }
  // undici's parser error carries llhttp's code, or none.
  if (error instanceof Error && error.name === "HTTPParserError") return "REGISTRY_PROTOCOL";
  return "INTERNAL";
}

function foreignCodeOf(error: unknown): string | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  // Several addresses were tried: the last failure stands for all when the group has no code of its own.
  return error instanceof AggregateError ? foreignCodeOf(error.errors.at(-1)) : undefined;
}
