import { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import { ShimError } from "../errors.ts";
import type { AuthorizedFor } from "./auth/authorization.ts";
import { MAX_ERROR_BODY_BYTES, MAX_HEADER_BYTES, type RegistryLimits } from "./limits.ts";
import { Connections, type NetworkSettings } from "./network/connections.ts";
import type { SentBy } from "./network/reach.ts";
import { translateTransportError } from "./transport_error.ts";

/** One HTTP request. Redirects, retries and the meaning of the status are other files' work. */
export type RegistryRequest = {
  readonly method: "GET" | "HEAD" | "POST" | "PATCH" | "PUT";
  readonly url: URL;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | AsyncIterable<Uint8Array>;
  /** Completes "Cannot …" in errors. Holds no query string: signed URLs are secrets. */
  readonly action: string;
  /** Replaces `headersTimeoutMs`. */
  readonly headersTimeoutMs?: number;
  /** Whose word led here, unless it was the user's. Bounds the networks it may be connected to. */
  readonly sentBy?: SentBy;
  /** As whom. The transport itself says only what `headers` say. */
  readonly authorizedFor?: AuthorizedFor;
  readonly signal?: AbortSignal | undefined;
};

/** One answer of any status, its body still on the wire: read `body` to its end or call `discard`. */
export type RegistryResponse = {
  readonly status: number;
  /** Where it came from, after redirects. */
  readonly url: URL;
  /** Whether {@link url} is not what was asked: a registry's storage, as a rule, by a redirect that may be signed for a while. */
  readonly isRedirected?: boolean;
  /** @throws {ShimError} REGISTRY_PROTOCOL when the field came twice: which one counts would be a guess */
  header(name: string): string | undefined;
  /** A field that may come several times, each value as it came. */
  values(name: string): readonly string[];
  /** A 401 that no login mends: one was shown, or this is not the registry. */
  readonly isDenial?: boolean;
  /** Once. Arrives only as fast as it is read. Errors are translated. */
  readonly body: AsyncIterable<Uint8Array>;
  /** Gives the connection back, or closes it when much is left unread. Idempotent. */
  discard(): void;
};

/** How long the rest of an unwanted body may take before its connection is closed instead of used again. */
const DISCARD_TIMEOUT_MS = 1_000;

/** Connections to registries and their storage, kept alive between requests. */
export class Transport {
  readonly connections: Connections;

  constructor(limits: RegistryLimits, network?: NetworkSettings) {
    this.connections = new Connections(limits, network);
  }

  /**
   * Resolves with the answer's head, whatever its status.
   *
   * @throws {ShimError} REGISTRY_UNAVAILABLE, REGISTRY_TIMEOUT, REGISTRY_TLS, REGISTRY_PROTOCOL, CANCELLED;
   *   REDIRECT_REFUSED, REALM_REFUSED, POLICY_DENIED when the address that would be dialled is out of reach; CONFIG_INVALID
   */
  async send(request: RegistryRequest): Promise<RegistryResponse> {
    const { method, url, headers, body, headersTimeoutMs, sentBy, signal } = request;
    try {
      const dispatcher = await this.connections.dispatcherFor(url, sentBy);
      const response = await dispatcher.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method,
        // Digests are of the bytes as they are stored, so nobody may compress them on the way.
        headers: { ...headers, "accept-encoding": "identity", "user-agent": "bootshim" },
        body: body === undefined || body instanceof Uint8Array
          ? body ?? null
          : Readable.from(body, { objectMode: false }),
        ...(headersTimeoutMs === undefined ? {} : { headersTimeout: headersTimeoutMs }),
        ...(signal === undefined ? {} : { signal }),
      });
      const answer = toRegistryResponse(response, request);
      requireSmallHead(response, answer, request);
      return answer;
    } catch (error) {
      throw translateTransportError(error, request);
    }
  }

  /** Ends every request still under way with CANCELLED, and closes all connections. */
  async close(): Promise<void> {
    await this.connections.destroy();
  }
}

function toRegistryResponse(response: Dispatcher.ResponseData, request: RegistryRequest): RegistryResponse {
  // A failure reaches whoever reads the body; one that nobody reads must not end the whole program.
  response.body.on("error", () => {});
  return {
    status: response.statusCode,
    url: request.url,
    header(name) {
      const value = response.headers[name];
      if (value === undefined || typeof value === "string") return value;
      throw new ShimError(
        "REGISTRY_PROTOCOL",
        `Cannot ${request.action}: header "${name}" came ${value.length} times`,
      );
    },
    values(name) {
      const value = response.headers[name] ?? [];
      return typeof value === "string" ? [value] : value;
    },
    body: readBody(response.body, request),
    discard() {
      if (response.body.destroyed) return;
      const signal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
      // The bytes are unwanted, so how their transfer ended is of no interest either.
      response.body.dump({ limit: MAX_ERROR_BODY_BYTES, signal }).catch(() => {});
    },
  };
}

/** Warnings are left out: whatever a server warns of, and at whatever length, is no reason to refuse its answer. */
function requireSmallHead(
  { headers }: Dispatcher.ResponseData,
  answer: RegistryResponse,
  { action }: RegistryRequest,
): void {
  let sizeBytes = 0;
  for (const name of Object.keys(headers)) {
    if (name === "warning") continue;
    for (const value of answer.values(name)) sizeBytes += name.length + value.length;
  }
  if (sizeBytes <= MAX_HEADER_BYTES) return;
  answer.discard();
  throw new ShimError(
    "REGISTRY_PROTOCOL",
    `Cannot ${action}: the answer's headers have ${sizeBytes} bytes without its warnings, limit is ${MAX_HEADER_BYTES} bytes`,
    { details: { remedy: "ask the registry's owner what its server or a proxy before it adds to answers" } },
  );
}

async function* readBody(body: Readable, request: RegistryRequest): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of body) {
      const buffer: Buffer = chunk;
      yield new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    }
  } catch (error) {
    throw translateTransportError(error, request);
  }
}

/** At most `maxBytes` from the start of a body; the rest stays unread and its connection is closed. */
export async function readUpTo(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of body) {
    chunks.push(chunk.subarray(0, maxBytes - sizeBytes));
    sizeBytes = Math.min(sizeBytes + chunk.length, maxBytes);
    if (sizeBytes === maxBytes) break;
  }
  const bytes = new Uint8Array(sizeBytes);
  let offsetBytes = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offsetBytes);
    offsetBytes += chunk.length;
  }
  return bytes;
}

/** @throws {ShimError} REGISTRY_PROTOCOL when it is no plain number */
export function contentLength(response: RegistryResponse, action: string): number | undefined {
  const value = response.header("content-length");
  if (value === undefined) return undefined;
  if (/^[0-9]{1,15}$/.test(value)) return Number(value);
  throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: Content-Length is not a number of bytes`);
}

/**
 * Nothing is decoded here: a coding we did not ask for is a server (or a proxy) that changes content.
 *
 * @throws {ShimError} REGISTRY_PROTOCOL
 */
export function requireIdentityCoding(response: RegistryResponse, action: string): void {
  const coding = response.header("content-encoding");
  if (coding === undefined || coding.toLowerCase() === "identity") return;
  throw new ShimError(
    "REGISTRY_PROTOCOL",
    `Cannot ${action}: the body has Content-Encoding ${
      JSON.stringify(coding.slice(0, 100))
    }, asked for "identity"`,
  );
}
