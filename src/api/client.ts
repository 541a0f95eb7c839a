import { z } from "zod";
import { type PrepareDocument, prepareDocument } from "../agent/prepare_document.ts";
import { ShimError } from "../errors.ts";
import { errorOf, parseAnswer, readText, send, type Sent, type ServicePlace } from "./client_transport.ts";
import {
  collectedDocument,
  collectRequest,
  definitionDocument,
  domainReport,
  findingDocument,
  imageDocument,
  listedMachine,
  pinnedDocument,
  releasedMachine,
  removedDocument,
  shownMachine,
  versionDocument,
} from "./documents.ts";
import {
  type OperationDocument,
  operationDocument,
  type OperationProgress,
  operationProgress,
} from "./operation.ts";
import { machinePutRequest, prepareRequest } from "./prepare_request.ts";
import { loosened } from "./loosened.ts";
import { readEvents, type ReceivedEvent } from "./receive_events.ts";
import { ServiceAbsence, ServiceAway } from "./service_absence.ts";

export type { ReceivedEvent } from "./receive_events.ts";
export type { ServicePlace } from "./client_transport.ts";
export type { OperationDocument, OperationProgress } from "./operation.ts";
export type { PrepareDocument } from "../agent/prepare_document.ts";
export { ShimError } from "../errors.ts";
export type PrepareRequest = z.input<typeof prepareRequest>;
export type MachinePutRequest = z.input<typeof machinePutRequest>;
export type DomainVerb = "define" | "start" | "shutdown" | "destroy" | "undefine";

export type CallOptions = { readonly signal?: AbortSignal | undefined };
export type FollowOptions = CallOptions & {
  readonly onProgress?: ((progress: OperationProgress) => void) | undefined;
};

export type ClientOptions = {
  /** How long `prepare`, `putMachine` and `follow` wait for a service that is away. Default: 30 s. */
  readonly patienceMs?: number;
};

const PATIENCE_MS = 30_000;

/**
 * The service, as a provider talks to it. Each method is one route of `GET /openapi.json`, and its types are the schemas
 * that the service itself parses with.
 *
 * Every method throws {ShimError} with the service's own code; IO_ERROR, `retryable`, when no service answers. `prepare`,
 * `putMachine` and `follow` survive a restart of the service. What a newer service tells beside what is known here passes.
 */
export class BootshimClient {
  readonly #place: ServicePlace;

  readonly #patienceMs: number;

  constructor(place: ServicePlace, { patienceMs = PATIENCE_MS }: ClientOptions = {}) {
    this.#place = place;
    this.#patienceMs = patienceMs;
  }

  /**
   * Prepares, and resolves when it is done. With `onProgress`, the operation is followed meanwhile; a connection that
   * breaks is made again, and the operation goes on without it. What a restart of the service ended is asked for again.
   */
  async prepare(wish: PrepareRequest, options: FollowOptions = {}): Promise<PrepareDocument> {
    return await this.#prepare({ method: "POST", path: "/v1/prepare", body: wish }, options);
  }

  /** Prepares a machine: again with the same wishes changes nothing, with others is a CONFLICT. */
  async putMachine(
    id: string,
    wish: MachinePutRequest,
    options: FollowOptions = {},
  ): Promise<PrepareDocument> {
    return await this.#prepare({ method: "PUT", path: machinePath(id), body: wish }, options);
  }

  /** Begins a prepare and resolves at once; equal wishes give the same operation. */
  async beginPrepare(wish: PrepareRequest, options: CallOptions = {}): Promise<OperationDocument> {
    return await this.#begin({ method: "POST", path: "/v1/prepare", body: wish }, options);
  }

  /**
   * Follows an operation to its end; a connection that breaks is made again.
   *
   * @throws what it failed with; OPERATION_NOT_FOUND after a restart: the request it came of may then be repeated
   */
  async follow(id: string, options: FollowOptions = {}): Promise<PrepareDocument> {
    const { signal } = options;
    const absence = new ServiceAbsence({ patienceMs: this.#patienceMs, isRepeated: false, signal });
    return await this.#follow(id, options, absence);
  }

  operations(options: CallOptions = {}) {
    return this.#get("/v1/operations", z.array(operationDocument), options);
  }

  operation(id: string, options: CallOptions = {}): Promise<OperationDocument> {
    return this.#get(`/v1/operations/${encodeURIComponent(id)}`, operationDocument, options);
  }

  cancel(id: string, options: CallOptions = {}): Promise<OperationDocument> {
    const path = `/v1/operations/${encodeURIComponent(id)}`;
    return this.#call({ method: "DELETE", path, ...options }, operationDocument);
  }

  images(options: CallOptions = {}) {
    return this.#get("/v1/images", z.array(imageDocument), options);
  }

  /** One cached image, under each of its names. */
  image(digest: string, options: CallOptions = {}) {
    return this.#get(imagePath(digest), z.array(imageDocument), options);
  }

  removeImage(digest: string, options: CallOptions = {}) {
    return this.#call({ method: "DELETE", path: imagePath(digest), ...options }, removedDocument);
  }

  /** Pins an image, or lets it be collected again, under all its names. */
  pinImage(digest: string, isPinned: boolean, options: CallOptions = {}) {
    const method = isPinned ? "PUT" : "DELETE";
    return this.#call({ method, path: `${imagePath(digest)}/pin`, ...options }, pinnedDocument);
  }

  collect(wish: z.input<typeof collectRequest> = {}, options: CallOptions = {}) {
    return this.#call({ method: "POST", path: "/v1/gc", body: wish, ...options }, collectedDocument);
  }

  machines(options: CallOptions = {}) {
    return this.#get("/v1/machines", z.array(listedMachine), options);
  }

  machine(id: string, options: CallOptions = {}) {
    return this.#get(machinePath(id), shownMachine, options);
  }

  /** Removes its definition, disks and record. */
  release(id: string, options: CallOptions = {}) {
    return this.#call({ method: "DELETE", path: machinePath(id), ...options }, releasedMachine);
  }

  /** Domain XML, its fragments and the QEMU command at once. */
  definition(id: string, options: CallOptions = {}) {
    return this.#get(`${machinePath(id)}/definition`, definitionDocument, options);
  }

  async domainXml(id: string, fragment?: "os" | "disks", options: CallOptions = {}): Promise<string> {
    const query = fragment === undefined ? "" : `?fragment=${fragment}`;
    const path = `${machinePath(id)}/domain.xml${query}`;
    return await this.#text(path, options);
  }

  qemuCommand(id: string, options: CallOptions = {}): Promise<string[]> {
    return this.#get(`${machinePath(id)}/qemu-command`, z.array(z.string()), options);
  }

  /** Has libvirt define, start, shut down, destroy or undefine a machine; the domain's state afterwards. */
  domain(verb: DomainVerb, id: string, options: CallOptions = {}) {
    return this.#call({ method: "POST", path: `${machinePath(id)}/${verb}`, ...options }, domainReport);
  }

  version(options: CallOptions = {}) {
    return this.#get("/v1/version", versionDocument, options);
  }

  /** What a guest on the service's host needs, checked. */
  host(options: CallOptions = {}) {
    return this.#get("/v1/host", z.array(findingDocument), options);
  }

  /** Whether the service takes new work: not while it ends. @throws {ShimError} IO_ERROR when nobody answers */
  async isReady(options: CallOptions = {}): Promise<boolean> {
    try {
      await this.#text("/readyz", options);
      return true;
    } catch (error) {
      if (error instanceof ShimError && error.code === "BUSY") return false;
      throw error;
    }
  }

  /** The service's numbers, in Prometheus' text format. */
  async metrics(options: CallOptions = {}): Promise<string> {
    return await this.#text("/metrics", options);
  }

  /** What happens there, until the signal fires or the service ends. */
  async *events(options: CallOptions & { readonly afterId?: number } = {}): AsyncGenerator<ReceivedEvent> {
    const { afterId, signal } = options;
    const headers = afterId === undefined ? {} : { "last-event-id": String(afterId) };
    yield* readEvents(await send(this.#place, { method: "GET", path: "/v1/events", headers, signal }));
  }

  /** A prepare changes nothing that it has done already, so it is repeated when its service is gone. */
  async #prepare(sent: Sent, options: FollowOptions): Promise<PrepareDocument> {
    const { onProgress, signal } = options;
    const absence = new ServiceAbsence({ patienceMs: this.#patienceMs, isRepeated: true, signal });
    for (;;) {
      try {
        if (!onProgress) return await this.#call({ ...sent, signal }, prepareDocument);
        const { id } = await this.#begin(sent, { signal });
        return await this.#follow(id, options, absence);
      } catch (error) {
        await absence.outlast(error);
      }
    }
  }

  async #follow(
    id: string,
    { onProgress, signal }: FollowOptions,
    absence: ServiceAbsence,
  ): Promise<PrepareDocument> {
    const path = `/v1/operations/${encodeURIComponent(id)}/events`;
    for (;;) {
      try {
        const answer = await send(this.#place, { method: "GET", path, signal });
        for await (const { data } of readEvents(answer)) {
          const progress = loosened(operationProgress).safeParse(data["progress"]);
          if (progress.success) onProgress?.(progress.data);
        }
        // The stream ends with the operation; or it broke off, and is opened again.
        const { state, result, error } = await this.operation(id, { signal });
        if (result) return result;
        if (error) throw errorOf(error);
        if (state === "cancelled") {
          throw new ShimError("CANCELLED", `Cannot finish operation "${id}": cancelled`);
        }
        absence.interrupt();
        throw new ServiceAway("IO_ERROR", `Cannot follow operation "${id}": its events broke off`);
      } catch (error) {
        if (!(error instanceof ServiceAway)) throw error;
        await absence.outlast(error);
      }
    }
  }

  async #text(path: string, { signal }: CallOptions): Promise<string> {
    return await readText(await send(this.#place, { method: "GET", path, signal }), signal);
  }

  async #begin(sent: Sent, { signal }: CallOptions): Promise<OperationDocument> {
    return await this.#call({ ...sent, headers: { prefer: "respond-async" }, signal }, operationDocument);
  }

  #get<T>(path: string, schema: z.ZodType<T>, options: CallOptions): Promise<T> {
    return this.#call({ method: "GET", path, ...options }, schema);
  }

  async #call<T>(sent: Sent, schema: z.ZodType<T>): Promise<T> {
    return parseAnswer(await readText(await send(this.#place, sent), sent.signal), schema);
  }
}

function machinePath(id: string): string {
  return `/v1/machines/${encodeURIComponent(id)}`;
}

function imagePath(digest: string): string {
  return `/v1/images/${encodeURIComponent(digest)}`;
}
