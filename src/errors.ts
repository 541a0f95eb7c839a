/**
 * @module errors: the one error class and the closed list of its codes. Imports nothing.
 *
 * Callers match `code`, never the message. A foreign error (undici, errno, libvirt) is translated once, at the edge
 * that saw it, and kept as `cause`.
 */

/** What a code means to the three kinds of caller: a shell, an HTTP client, and whoever decides whether to try again. */
type CodeMeaning = { readonly exit: number; readonly http: number; readonly retryable: boolean };

const permanent = (exit: number, http: number): CodeMeaning => ({ exit, http, retryable: false });
const passing = (exit: number, http: number): CodeMeaning => ({ exit, http, retryable: true });

/** Exit codes follow sysexits.h where it has a word for the case. */
export const CODES = {
  REFERENCE_INVALID: permanent(64, 400),
  REQUEST_INVALID: permanent(64, 400),
  POLICY_DENIED: permanent(77, 403),
  REGISTRY_NOT_FOUND: permanent(66, 404),
  IMAGE_NOT_FOUND: permanent(66, 404),
  MACHINE_NOT_FOUND: permanent(66, 404),
  OPERATION_NOT_FOUND: permanent(66, 404),
  REGISTRY_UNAUTHORIZED: permanent(77, 502),
  REGISTRY_DENIED: permanent(77, 502),
  REGISTRY_RATE_LIMITED: passing(75, 503),
  REGISTRY_UNAVAILABLE: passing(75, 503),
  REGISTRY_TIMEOUT: passing(75, 504),
  REGISTRY_TLS: permanent(76, 502),
  REGISTRY_PROTOCOL: permanent(76, 502),
  REDIRECT_REFUSED: permanent(76, 502),
  REALM_REFUSED: permanent(76, 502),
  CREDENTIALS_INVALID: permanent(78, 500),
  MANIFEST_INVALID: permanent(65, 422),
  MANIFEST_TOO_LARGE: permanent(65, 422),
  MEDIA_TYPE_UNSUPPORTED: permanent(65, 422),
  DIGEST_UNSUPPORTED: permanent(65, 422),
  PLATFORM_NOT_FOUND: permanent(65, 422),
  LAYER_MISSING: permanent(65, 422),
  LAYER_DUPLICATE: permanent(65, 422),
  BOOT_MODE_IMPOSSIBLE: permanent(65, 422),
  CMDLINE_INVALID: permanent(65, 422),
  FORMAT_MISMATCH: permanent(65, 422),
  FORMAT_UNSAFE: permanent(65, 422),
  LIMIT_EXCEEDED: permanent(65, 422),
  CANCELLED: permanent(130, 499),
  CONTENT_SIZE_MISMATCH: permanent(65, 502),
  CONTENT_DIGEST_MISMATCH: permanent(65, 502),
  CONTENT_CORRUPT: permanent(74, 500),
  NO_SPACE: permanent(74, 507),
  IO_ERROR: permanent(74, 500),
  CACHE_LAYOUT_INVALID: permanent(74, 500),
  CONFLICT: permanent(73, 409),
  IN_USE: permanent(73, 409),
  LOCK_TIMEOUT: passing(75, 503),
  BUSY: passing(75, 503),
  CONFIG_INVALID: permanent(78, 500),
  HYPERVISOR_UNAVAILABLE: passing(69, 503),
  HYPERVISOR_LIBRARY_MISSING: permanent(69, 503),
  HYPERVISOR_TIMEOUT: passing(75, 504),
  DOMAIN_INVALID: permanent(70, 422),
  DOMAIN_FAILED: permanent(70, 502),
  QEMU_FAILED: permanent(70, 502),
  INTERNAL: permanent(70, 500),
} as const satisfies Record<string, CodeMeaning>;

/** One of the codes users and scripts may rely on. */
export type ErrorCode = keyof typeof CODES;

/** JSON-safe facts about one failure; never a secret. `remedy` is what the user can do about it. */
export type ErrorDetails = { readonly remedy?: string; readonly [fact: string]: unknown };

/**
 * A failure with a stable code.
 *
 * @example
 * throw new ShimError("CONTENT_SIZE_MISMATCH", `Cannot ingest blob "${digest}": received 1024 bytes, descriptor says 2048`);
 */
export class ShimError extends Error {
  override readonly name = "ShimError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  /**
   * @param message "Cannot <action>: <what is>, <what was expected>"; no final period, no secret
   * @param options.cause the foreign error, kept for `--log-level debug`
   */
  constructor(code: ErrorCode, message: string, options: { cause?: unknown; details?: ErrorDetails } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.details = options.details ?? {};
  }

  get retryable(): boolean {
    return CODES[this.code].retryable;
  }

  get exitCode(): number {
    return CODES[this.code].exit;
  }

  get httpStatus(): number {
    return CODES[this.code].http;
  }
}

/** Gives `error` itself when it already has a code, else an INTERNAL one that keeps it as cause. */
export function toShimError(error: unknown): ShimError {
  if (error instanceof ShimError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new ShimError("INTERNAL", `Cannot go on: unexpected failure, ${text}`, { cause: error });
}
