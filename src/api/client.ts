import { z } from "zod";
import { type PrepareDocument, prepareDocument } from "../agent/prepare_document.ts";
import { ShimError } from "../errors.ts";
import { errorOf, parseAnswer, readText, send, type Sent, type ServicePlace } from "./client_transport.ts";
import {
  collectedDocument,
  collectRequest,
  definitionDocument,
  domainReport,
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
import { readEvents, type ReceivedEvent } from "./receive_events.ts";

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

/**
 * The service, as a provider talks to it. Each method is one route of `GET /openapi.json`, and its types are the schemas
 * that the service itself parses with.
 *
 * Every method throws {ShimError} with the service's own code; IO_ERROR when no service answers.
 */
export class BootshimClient {
  readonly #place: ServicePlace;

  constructor(place: ServicePlace) {
    this.#place = place;
  }

  /**
   * Prepares, and resolves when it is done. With `onProgress`, the operation is followed meanwhile; a connection that
   * breaks is made again, and the operation goes on without it.
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

  /** Follows an operation to its end. @throws what it failed with */
  async follow(id: string, { onProgress, signal }: FollowOptions = {}): Promise<PrepareDocument> {
    const path = `/v1/operations/${encodeURIComponent(id)}`;
    for (;;) {
      const answer = await send(this.#place, { method: "GET", path: `${path}/events`, signal });
      for await (const { data } of readEvents(answer)) {
        const progress = operationProgress.safeParse(data["progress"]);
        if (progress.success) onProgress?.(progress.data);
      }
      // The stream ends with the operation; or it broke off, and is opened again.
      const { state, result, error } = await this.operation(id, { signal });
      if (result) return result;
      if (error) throw errorOf(error);
      if (state === "cancelled") {
        throw new ShimError("CANCELLED", `Cannot finish operation "${id}": cancelled`);
      }
    }
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
    return await readText(await send(this.#place, { method: "GET", path, ...options }));
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

  /** What happens there, until the signal fires or the service ends. */
  async *events(options: CallOptions & { readonly afterId?: number } = {}): AsyncGenerator<ReceivedEvent> {
    const { afterId, signal } = options;
    const headers = afterId === undefined ? {} : { "last-event-id": String(afterId) };
    yield* readEvents(await send(this.#place, { method: "GET", path: "/v1/events", headers, signal }));
  }

  async #prepare(sent: Sent, { onProgress, signal }: FollowOptions): Promise<PrepareDocument> {
    if (!onProgress) return await this.#call({ ...sent, signal }, prepareDocument);
    const { id } = await this.#begin(sent, { signal });
    return await this.follow(id, { onProgress, signal });
  }

  async #begin(sent: Sent, { signal }: CallOptions): Promise<OperationDocument> {
    return await this.#call({ ...sent, headers: { prefer: "respond-async" }, signal }, operationDocument);
  }

  #get<T>(path: string, schema: z.ZodType<T>, options: CallOptions): Promise<T> {
    return this.#call({ method: "GET", path, ...options }, schema);
  }

  async #call<T>(sent: Sent, schema: z.ZodType<T>): Promise<T> {
    return parseAnswer(await readText(await send(this.#place, sent)), schema);
  }
}

function machinePath(id: string): string {
  return `/v1/machines/${encodeURIComponent(id)}`;
}

function imagePath(digest: string): string {
  return `/v1/images/${encodeURIComponent(digest)}`;
}
