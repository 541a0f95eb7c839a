import { ShimError, toShimError } from "../errors.ts";
import type { Descriptor } from "../image/descriptor.ts";
import type { Digest } from "../image/digest.ts";
import type { BlobTransfer, OpenContent, PushBlobOptions } from "../image/image_source.ts";
import { uploadsUrl } from "./endpoint.ts";
import { hasBlob, requireSameDigest, sendExpecting } from "./push.ts";
import { redirectTarget } from "./redirect.ts";
import { keepSession, recallSession, type Session } from "./remembered_session.ts";
import type { Repository } from "./repository.ts";
import { responseError } from "./response_error.ts";
import { Attempts, isPassing } from "./resume.ts";
import type { RegistryResponse } from "./transport.ts";

/**
 * Brings a blob into a repository. When this resolves the registry has the blob and has checked its digest; a failed
 * transfer leaves nothing visible.
 *
 * A blob of up to one chunk goes in one piece, and again from its start when that breaks. A larger one goes chunk by
 * chunk; after a break the registry is asked what it has, and only the rest is sent. A registry that does not take
 * chunks gets the blob in one piece. With a memory, a later run goes on where an earlier one had come to.
 *
 * @throws {ShimError} CONTENT_SIZE_MISMATCH when `openContent` gives more or fewer bytes than the descriptor says
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
 */
export async function pushBlob(
  repository: Repository,
  descriptor: Descriptor,
  options: PushBlobOptions & { readonly openContent: OpenContent },
): Promise<BlobTransfer> {
  return await new Upload(repository, descriptor, options).run();
}

/** What a registry answers to a chunk that it cannot use: the session is gone, is elsewhere, or chunks are not known. */
const CHUNK_REFUSALS: ReadonlySet<unknown> = new Set([400, 404, 405, 411, 413, 415, 416, 501]);
/** The same at the end, where a 400 is about the blob itself. */
const END_REFUSALS: ReadonlySet<unknown> = new Set([404, 416]);

class Upload {
  readonly #repository: Repository;
  readonly #descriptor: Descriptor;
  readonly #options: PushBlobOptions & { readonly openContent: OpenContent };
  readonly #action: string;
  #session: Session | undefined;
  /** The most that any session ever had: a registry that loses sessions brings no progress. */
  #furthestBytes = 0;
  #chunkRefusals = 0;
  /** Statuses after which the session is worth a second look. */
  #refusals: ReadonlySet<unknown> = new Set();
  #hasTriedMount = false;
  #hasRecalled = false;
  /** The session is an earlier run's: what is wrong with it is no word about the blob. */
  #isRecalled = false;

  constructor(
    repository: Repository,
    descriptor: Descriptor,
    options: PushBlobOptions & { readonly openContent: OpenContent },
  ) {
    this.#repository = repository;
    this.#descriptor = descriptor;
    this.#options = options;
    this.#action = `push blob "${descriptor.digest}" to "${repository.endpoint.name}"`;
  }

  async run(): Promise<BlobTransfer> {
    const attempts = new Attempts(this.#repository.limits, this.#options);
    for (;;) {
      const furthestBefore = this.#furthestBytes;
      try {
        const transfer = await this.#attempt();
        await this.#options.memory?.forget();
        return transfer;
      } catch (error) {
        const failure = toShimError(error);
        if (this.#isRecalled && !isPassing(failure) && failure.code !== "CANCELLED") {
          this.#isRecalled = false;
          this.#session = undefined;
          continue;
        }
        if (!this.#isChunkRefusal(failure) && !isPassing(failure)) throw failure;
        await attempts.next(failure, this.#furthestBytes > furthestBefore);
      }
    }
  }

  async #attempt(): Promise<BlobTransfer> {
    if (await (this.#hasRecalled ? this.#resume() : this.#takeUp())) return "uploaded";
    this.#session ??= await this.#begin();
    if (this.#session === undefined) return "mounted";
    const { chunkBytes, offsetBytes } = this.#session;
    const isOneChunk = this.#descriptor.sizeBytes <= chunkBytes && offsetBytes === 0;
    const isWhole = isOneChunk || this.#chunkRefusals > 1;
    await (isWhole ? this.#sendWhole(this.#session) : this.#sendChunks(this.#session));
    return "uploaded";
  }

  /** Goes on with what an earlier run began. It has one chance: whatever comes of asking, the upload begins anew. */
  async #takeUp(): Promise<boolean> {
    this.#hasRecalled = true;
    this.#session = await recallSession(this.#options.memory, this.#repository);
    if (this.#session === undefined) return false;
    try {
      const isThere = await this.#resume();
      this.#isRecalled = this.#session !== undefined;
      return isThere;
    } catch (error) {
      if (!(error instanceof ShimError) || error.code === "CANCELLED") throw error;
      this.#session = undefined;
      return false;
    }
  }

  /** @returns undefined when the registry took the blob over from another repository */
  async #begin(): Promise<Session | undefined> {
    const { limits, endpoint } = this.#repository;
    const { mountFrom } = this.#options;
    this.#isRecalled = false;
    let started: RegistryResponse | undefined;
    if (mountFrom !== undefined && !this.#hasTriedMount) {
      this.#hasTriedMount = true;
      started = await this.#mount(mountFrom);
      if (started?.status === 201) return undefined;
    }
    started ??= await this.#send(202, { method: "POST", url: uploadsUrl(endpoint), headers: NO_BODY });
    const minimum = Number(/^[0-9]{1,15}$/.exec(started.header("oci-chunk-min-length") ?? "")?.[0] ?? 0);
    return {
      url: redirectTarget(started, this.#action),
      offsetBytes: 0,
      chunkBytes: Math.max(limits.chunkBytes, minimum),
    };
  }

  /**
   * Asks for the blob of another repository.
   *
   * @returns undefined when the registry wants to hear nothing of it
   * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#mounting-a-blob-from-another-repository
   */
  async #mount(from: string): Promise<RegistryResponse | undefined> {
    const { endpoint, send } = this.#repository;
    const url = uploadsUrl(endpoint);
    url.search = `?mount=${encodeURIComponent(this.#descriptor.digest)}&from=${encodeURIComponent(from)}`;
    const { signal } = this.#options;
    const action = this.#action;
    const response = await send({
      method: "POST",
      url,
      headers: NO_BODY,
      alsoPulls: from,
      action,
      signal,
    });
    const { status } = response;
    if (status !== 201 && status !== 202 && (status < 400 || status === 429 || status >= 500)) {
      throw await responseError(response, action);
    }
    response.discard();
    if (status === 201) requireSameDigest(response, this.#descriptor, action);
    return status === 201 || status === 202 ? response : undefined;
  }

  /** @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#post-then-put */
  async #sendWhole({ url }: Session): Promise<void> {
    // What broke is begun anew: in one piece there is nothing to go on from.
    this.#session = undefined;
    await this.#withContent({ startByte: 0, endByte: this.#descriptor.sizeBytes }, async (body, headers) => {
      await this.#finish(url, { body, headers });
    });
  }

  /** @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-a-blob-in-chunks */
  async #sendChunks(begun: Session): Promise<void> {
    const { sizeBytes } = this.#descriptor;
    let session = begun;
    this.#refusals = CHUNK_REFUSALS;
    const { memory } = this.#options;
    await keepSession(memory, session, this.#repository.endpoint);
    while (session.offsetBytes < sizeBytes) {
      const startByte = session.offsetBytes;
      const endByte = Math.min(startByte + session.chunkBytes, sizeBytes);
      const { url } = session;
      const answer = await this.#withContent({ startByte, endByte }, (body, headers) =>
        this.#send(202, {
          method: "PATCH",
          url,
          headers: { ...headers, "content-range": `${startByte}-${endByte - 1}` },
          body,
        }));
      session = this.#sessionAfter(answer, { ...session, offsetBytes: endByte });
      if (session.offsetBytes <= startByte) {
        throw new ShimError(
          "REGISTRY_UNAVAILABLE",
          `Cannot ${this.#action}: the registry took nothing of the bytes from ${startByte} to ${endByte}`,
        );
      }
      await keepSession(memory, session, this.#repository.endpoint);
    }
    this.#refusals = END_REFUSALS;
    await this.#finish(session.url, { headers: NO_BODY });
  }

  /** What an answer to a chunk, or to the question how far it got, says of the upload. */
  #sessionAfter(answer: RegistryResponse, expected: Session): Session {
    const offsetBytes = offsetAfter(answer.header("range")) ?? expected.offsetBytes;
    if (offsetBytes > expected.offsetBytes) {
      throw new ShimError(
        "REGISTRY_PROTOCOL",
        `Cannot ${this.#action}: the registry says it has ${offsetBytes} bytes, at most ${expected.offsetBytes} were sent`,
      );
    }
    const url = answer.header("location") === undefined ? expected.url : redirectTarget(answer, this.#action);
    this.#session = { ...expected, url, offsetBytes };
    this.#furthestBytes = Math.max(this.#furthestBytes, offsetBytes);
    return this.#session;
  }

  /**
   * After a break: asks how far the upload got, and gives it up when it cannot go on.
   *
   * @returns whether the registry has the whole blob, and only its answer was lost
   */
  async #resume(): Promise<boolean> {
    const session = this.#session;
    if (session === undefined) return false;
    const { send } = this.#repository;
    const { signal } = this.#options;
    const answer = await send({
      method: "GET",
      url: session.url,
      headers: {},
      action: this.#action,
      signal,
    });
    const isGone = answer.status >= 400 && answer.status < 500 && answer.status !== 429;
    if (answer.status > 299 && !isGone) throw await responseError(answer, this.#action);
    answer.discard();
    this.#session = undefined;
    if (isGone) return await hasBlob(this.#repository, this.#descriptor, { signal });
    // Without a range, or when chunks were refused again and again, the blob is sent from its start.
    if (answer.header("range") === undefined || this.#chunkRefusals > 1) return false;
    this.#sessionAfter(answer, { ...session, offsetBytes: this.#descriptor.sizeBytes });
    return false;
  }

  async #finish(
    url: URL,
    { headers, body }: { headers: Readonly<Record<string, string>>; body?: AsyncIterable<Uint8Array> },
  ): Promise<void> {
    const request = { method: "PUT", url: withDigest(url, this.#descriptor.digest), headers } as const;
    const finished = await this.#send(201, body === undefined ? request : { ...request, body });
    requireSameDigest(finished, this.#descriptor, this.#action);
  }

  async #send(
    status: number,
    request: {
      readonly method: "POST" | "PATCH" | "PUT";
      readonly url: URL;
      readonly headers: Readonly<Record<string, string>>;
      readonly body?: AsyncIterable<Uint8Array>;
    },
  ): Promise<RegistryResponse> {
    const { limits, send } = this.#repository;
    return await sendExpecting(status, send, {
      ...request,
      ...(request.method === "POST" ? {} : { headersTimeoutMs: limits.commitTimeoutMs }),
      action: this.#action,
      signal: this.#options.signal,
    });
  }

  /** Runs `body` with the bytes of a part, and lets go of their source whatever happens. */
  async #withContent<T>(
    part: { readonly startByte: number; readonly endByte: number },
    body: (bytes: AsyncIterable<Uint8Array>, headers: Readonly<Record<string, string>>) => Promise<T>,
  ): Promise<T> {
    const reader = (await this.#options.openContent(part.startByte)).getReader();
    try {
      return await body(this.#exactly(reader, part), {
        "content-type": "application/octet-stream",
        "content-length": String(part.endByte - part.startByte),
      });
    } finally {
      // Also ends a read that is still under way. A source that failed has ended the upload with its error already.
      await reader.cancel().catch(() => {});
    }
  }

  /** Ends the upload when the source is not what the descriptor says, before the registry has all of a wrong blob. */
  async *#exactly(
    content: ReadableStreamDefaultReader<Uint8Array>,
    { startByte, endByte }: { readonly startByte: number; readonly endByte: number },
  ): AsyncGenerator<Uint8Array> {
    const { digest, sizeBytes } = this.#descriptor;
    const isLast = endByte === sizeBytes;
    let position = startByte;
    // After the last byte, the source is asked once more: it must have no other.
    while (position < endByte || isLast) {
      const { done, value } = await content.read();
      if (done) break;
      const bytes = isLast ? value : value.subarray(0, endByte - position);
      position += bytes.length;
      if (position > endByte) break;
      yield bytes;
      this.#options.onProgress?.(position);
    }
    if (position === endByte) return;
    const relation = position > endByte ? "over" : `only ${position} of`;
    throw new ShimError(
      "CONTENT_SIZE_MISMATCH",
      `Cannot ${this.#action}: "${digest}" has ${relation} the ${sizeBytes} bytes its descriptor says`,
    );
  }

  #isChunkRefusal(failure: ShimError): boolean {
    // Only chunks leave a session behind.
    if (this.#session === undefined || !this.#refusals.has(failure.details["status"])) return false;
    this.#chunkRefusals += 1;
    return true;
  }
}

const NO_BODY = { "content-length": "0" };

/**
 * What of an upload a registry has: `Range: 0-99` are 100 bytes. `0-0` is what registries say of none.
 *
 * @returns undefined when the header says nothing
 */
function offsetAfter(range: string | undefined): number | undefined {
  const last = /^(?:bytes=)?[0-9]{1,15}-([0-9]{1,15})$/.exec(range ?? "")?.[1];
  if (last === undefined) return undefined;
  return Number(last) === 0 ? 0 : Number(last) + 1;
}

/** By hand: `searchParams` would write the registry's own parameters anew, and they are not ours to touch. */
function withDigest(url: URL, digest: Digest): URL {
  const target = new URL(url);
  target.search = `${url.search === "" ? "?" : `${url.search}&`}digest=${encodeURIComponent(digest)}`;
  return target;
}
