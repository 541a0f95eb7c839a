/** Every number that bounds what one registry can cost us. Times are milliseconds. */
export type RegistryLimits = {
  /** From the first SYN to a usable connection, TLS included. */
  readonly connectTimeoutMs: number;
  /** From a request sent to the last byte of the answer's headers. */
  readonly headersTimeoutMs: number;
  /** Without one byte of a body. Not a limit on the whole transfer: a large layer may take hours. */
  readonly stallTimeoutMs: number;
  /** While a body is waited for, so long may pass without `rateWindowBytes` having come. */
  readonly rateWindowMs: number;
  readonly rateWindowBytes: number;
  /** Like `headersTimeoutMs`, after the last byte of an upload: the registry hashes and moves the blob meanwhile. */
  readonly commitTimeoutMs: number;
  /** So many requests in a row that bring no new byte end an operation. At least 1. */
  readonly attemptsWithoutProgress: number;
  /** So many requests end a blob even when each brought something: bounds what a server that cuts early can ask of us. */
  readonly attemptsPerBlob: number;
  /** A larger blob is uploaded in chunks of so many bytes: what a broken connection can cost. */
  readonly chunkBytes: number;
  /** The longest first wait between two attempts; doubled for each further one, and jittered down by up to half. */
  readonly backoffMs: number;
  /** A blob of up to so many bytes is fetched over one connection, and asked for in one piece. */
  readonly plainBlobBytes: number;
  /** What is asked for at once over each of several connections. At most `plainBlobBytes`. */
  readonly segmentBytes: number;
  /** What all blobs together may hold in memory because it came before its turn. */
  readonly readAheadBytes: number;
  readonly connectionsPerBlob: number;
  /** For the blobs of one registry together, unless there are more blobs. */
  readonly connectionsPerHost: number;
  /** All that one pull asks of registries together. At most 24 days. */
  readonly deadlineMs: number;
  /** Blobs that this process fetches at once. At least 1. */
  readonly transfersAtOnce: number;
};

export const DEFAULT_LIMITS: RegistryLimits = {
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 30_000,
  stallTimeoutMs: 30_000,
  rateWindowMs: 30_000,
  rateWindowBytes: 32 * 1024,
  commitTimeoutMs: 300_000,
  attemptsWithoutProgress: 3,
  attemptsPerBlob: 100,
  chunkBytes: 64 * 1024 * 1024,
  backoffMs: 250,
  plainBlobBytes: 16 * 1024 * 1024,
  segmentBytes: 2 * 1024 * 1024,
  readAheadBytes: 20 * 1024 * 1024,
  connectionsPerBlob: 10,
  connectionsPerHost: 16,
  deadlineMs: 6 * 3_600_000,
  transfersAtOnce: 6,
};

/** Of the names and values of an answer's header fields together, without Warning: what Node's own parser takes. */
export const MAX_HEADER_BYTES = 16 * 1024;

/**
 * The same with Warning, of which any amount must change nothing: so much is received of a head, of which little is told
 * and nothing kept.
 */
export const MAX_HEAD_BYTES = 2 * 1024 * 1024;

/** Of a body that nobody asked for: an error's text, what comes with a redirect. */
export const MAX_ERROR_BODY_BYTES = 64 * 1024;

/** 5 hops are enough for every registry and its storage; more is a loop. */
export const MAX_REDIRECTS = 5;
