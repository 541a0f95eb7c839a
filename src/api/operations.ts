import { randomUUID } from "node:crypto";
import type { PrepareDocument } from "../agent/prepare_document.ts";
import type { OperationOptions, Progress } from "../agent/progress.ts";
import { Turns } from "../agent/turns.ts";
import { ShimError, toShimError } from "../errors.ts";
import type { EventLog } from "./event_log.ts";
import type { OperationDocument, OperationProgress } from "./operation.ts";
import { traceOperation } from "./tracing.ts";

export type OperationWork = {
  /** Equal for equal wishes: whoever asks for what is being done already joins it. */
  readonly key: string;
  /** What events and traces name it by. */
  readonly subject: Readonly<Record<string, string>>;
  /** Operations of one row wait for each other; no row waits for another's. */
  readonly row: string;
  readonly run: (options: OperationOptions) => Promise<PrepareDocument>;
};

export type OperationsOptions = {
  /** Operations at work at once. */
  readonly maxRunning: number;
  /** Operations that may wait; one more is refused. */
  readonly maxPending: number;
  readonly events: EventLog;
};

/** Finished ones that can still be asked for, the oldest forgotten first. */
const KEPT_OPERATIONS = 1000;
/** A caller is told to come back when about this many others had their turn. */
const RETRY_AFTER_SECONDS = 2;

class Operation {
  readonly id = randomUUID();
  readonly startedAt = new Date().toISOString();
  readonly stop = new AbortController();
  readonly work: OperationWork;
  state: OperationDocument["state"] = "pending";
  progress: OperationProgress = { phase: "pending", doneBytes: 0, totalBytes: 0, layers: [] };
  result: PrepareDocument | undefined;
  error: ShimError | undefined;
  readonly finished = Promise.withResolvers<PrepareDocument>();

  constructor(work: OperationWork) {
    this.work = work;
    // Nobody may be waiting; the failure is kept and told to whoever asks.
    this.finished.promise.catch(() => {});
  }

  describe(): OperationDocument {
    const { error } = this;
    return {
      id: this.id,
      kind: "prepare",
      state: this.state,
      startedAt: this.startedAt,
      progress: this.progress,
      ...(this.result ? { result: this.result } : {}),
      ...(error ? { error: describeError(error) } : {}),
    };
  }
}

export function describeError(error: ShimError): NonNullable<OperationDocument["error"]> {
  const { code, message, retryable, details } = error;
  return { code, message, retryable, details: { ...details } };
}

/** What is being done, and what was done lately. A caller that goes away stops nothing: others may have joined. */
export class Operations {
  readonly #options: OperationsOptions;
  readonly #turns: Turns;
  readonly #operations = new Map<string, Operation>();
  readonly #unfinished = new Map<string, Operation>();
  #isClosed = false;

  constructor(options: OperationsOptions) {
    this.#options = options;
    this.#turns = new Turns(options.maxRunning);
  }

  /** How many are at work and how many wait. */
  counts(): { readonly running: number; readonly pending: number } {
    const states = [...this.#unfinished.values()].map(({ state }) => state);
    const running = states.filter((state) => state === "running").length;
    return { running, pending: states.length - running };
  }

  /**
   * Begins something, or joins the operation that does just that.
   *
   * @returns its id, and its result
   * @throws {ShimError} BUSY when too many wait, or the service is ending
   */
  start(work: OperationWork): { readonly id: string; readonly result: Promise<PrepareDocument> } {
    const joined = this.#unfinished.get(work.key);
    if (joined && !joined.stop.signal.aborted) return { id: joined.id, result: joined.finished.promise };
    this.#requireRoom();
    const operation = new Operation(work);
    this.#operations.set(operation.id, operation);
    this.#unfinished.set(work.key, operation);
    void this.#run(operation);
    return { id: operation.id, result: operation.finished.promise };
  }

  list(): OperationDocument[] {
    return [...this.#operations.values()].map((operation) => operation.describe());
  }

  /** @throws {ShimError} OPERATION_NOT_FOUND */
  find(id: string): OperationDocument {
    return this.#require(id).describe();
  }

  /** Stops an operation; one that is over stays as it is. @throws {ShimError} OPERATION_NOT_FOUND */
  cancel(id: string): OperationDocument {
    const operation = this.#require(id);
    operation.stop.abort(new ShimError("CANCELLED", `Cannot finish operation "${id}": it was cancelled`));
    return operation.describe();
  }

  /** Takes nothing new, stops what is under way, and resolves when all of it has ended. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const unfinished = [...this.#unfinished.values()];
    for (const { stop } of unfinished) {
      stop.abort(new ShimError("CANCELLED", "Cannot finish the operation: the service is ending"));
    }
    await Promise.allSettled(unfinished.map(({ finished }) => finished.promise));
  }

  async #run(operation: Operation): Promise<void> {
    const { work, stop } = operation;
    const onProgress = (progress: Progress) => {
      operation.progress = { ...progress, layers: [...progress.layers] };
      this.#publish("operation.progress", operation, { progress: operation.progress });
    };
    const { id } = operation;
    try {
      const document = await traceOperation(
        "prepare",
        { "bootshim.operation": id, ...work.subject },
        async (enter) => {
          enter("waiting");
          return await this.#turns.take(async () => {
            stop.signal.throwIfAborted();
            operation.state = "running";
            this.#publish("operation.running", operation);
            return await work.run({
              signal: stop.signal,
              onProgress: (progress) => {
                enter(progress.phase);
                onProgress(progress);
              },
            });
          }, { signal: stop.signal, row: work.row });
        },
      );
      operation.state = "succeeded";
      operation.result = document;
      this.#finish(operation);
      operation.finished.resolve(document);
    } catch (error) {
      const failure = toShimError(error);
      operation.state = failure.code === "CANCELLED" ? "cancelled" : "failed";
      operation.error = failure;
      this.#finish(operation);
      operation.finished.reject(failure);
    }
  }

  #finish(operation: Operation): void {
    const { work, state, error } = operation;
    if (this.#unfinished.get(work.key) === operation) this.#unfinished.delete(work.key);
    this.#publish(`operation.${state}`, operation, error ? { code: error.code } : {});
    for (const [id, { state }] of this.#operations) {
      if (this.#operations.size <= KEPT_OPERATIONS) break;
      if (state !== "pending" && state !== "running") this.#operations.delete(id);
    }
  }

  #publish(type: string, { id, work }: Operation, data: Readonly<Record<string, unknown>> = {}): void {
    this.#options.events.publish(type, { operation: id, ...work.subject, ...data });
  }

  #requireRoom(): void {
    const { maxPending } = this.#options;
    const { pending } = this.counts();
    if (!this.#isClosed && pending < maxPending) return;
    throw new ShimError(
      "BUSY",
      this.#isClosed
        ? "Cannot begin: the service is ending"
        : `Cannot begin: ${pending} operations wait already, limit is ${maxPending}`,
      { details: { retryAfterSeconds: RETRY_AFTER_SECONDS, remedy: "try again in a moment" } },
    );
  }

  #require(id: string): Operation {
    const operation = this.#operations.get(id);
    if (operation) return operation;
    throw new ShimError("OPERATION_NOT_FOUND", `Cannot find operation ${JSON.stringify(id.slice(0, 64))}`, {
      details: { remedy: "operations are forgotten when the service restarts; repeat the request" },
    });
  }
}
