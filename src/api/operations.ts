import { randomUUID } from "node:crypto";
import type { PrepareDocument } from "../agent/prepare_document.ts";
import type { OperationOptions, Progress } from "../agent/progress.ts";
import { type ErrorCode, ShimError, toShimError } from "../errors.ts";
import { mainLoop, MILLISECOND_OF_STEPS } from "../host/main_loop.ts";
import { ByteBudget } from "./byte_budget.ts";
import type { EventLog } from "./event_log.ts";
import type { OperationDocument, OperationProgress } from "./operation.ts";
import {
  type OperationTurn,
  OperationTurns,
  type OperationTurnsOptions,
  type Rows,
  type Where,
} from "./operation_turns.ts";
import { Paced } from "./paced.ts";
import { traceOperation } from "./tracing.ts";

export type RunOptions = OperationOptions & {
  /** Waits until the work may go on at a registry, or on this host; it begins where it was said to. */
  readonly awaitTurn: (where: Where) => Promise<void>;
};

export type OperationWork = {
  /** Equal for equal wishes: whoever asks for what is being done already joins it. */
  readonly key: string;
  /** What it is about: answers, events and traces name it by that. */
  readonly subject: OperationDocument["subject"];
  /** Operations of one row wait for each other; no row waits for another's. */
  readonly rows: Rows;
  /** What its wish takes in memory until it has ended: files, mostly. */
  readonly heldBytes: number;
  /** Where it most likely begins. */
  readonly where: Where;
  /** The same, asked again when its turn at a registry has come: another may have brought all of it by then. */
  readonly whereNow: () => Promise<Where>;
  readonly run: (options: RunOptions) => Promise<PrepareDocument>;
};

/** How an operation ended. */
export type OperationEnd = {
  readonly state: OperationDocument["state"];
  readonly code: ErrorCode | undefined;
  /** From its first turn on; undefined when it had none. */
  readonly workedSeconds: number | undefined;
};

export type OperationsOptions = OperationTurnsOptions & {
  readonly events: EventLog;
  /** Told once of each operation. */
  readonly onEnd?: (end: OperationEnd) => void;
};

/** Finished ones that can still be asked for, the oldest forgotten first. */
const KEPT_OPERATIONS = 1000;
/** Of wishes that wait or are at work: each may bring files of megabytes. */
const MAX_HELD_BYTES = 128 * 1024 * 1024;
/** How often an operation's readers are told of its bytes. */
const PROGRESS_EVERY_MS = 200;

/** By which clients know that the same request may be sent to whoever serves next. */
const ENDING = { details: { isServiceEnding: true, remedy: "repeat the request" } };

class Operation {
  readonly id = randomUUID();
  readonly startedAt = new Date().toISOString();
  readonly stop = new AbortController();
  readonly key: string;
  readonly subject: OperationWork["subject"];
  readonly turn: OperationTurn;
  finishedAt: string | undefined;
  state: OperationDocument["state"] = "pending";
  progress: OperationProgress = { phase: "pending", doneBytes: 0, totalBytes: 0, layers: [] };
  result: PrepareDocument | undefined;
  error: ShimError | undefined;
  readonly finished = Promise.withResolvers<PrepareDocument>();

  constructor({ key, subject }: OperationWork, turn: OperationTurn) {
    this.key = key;
    this.subject = subject;
    this.turn = turn;
    // Nobody may be waiting; the failure is kept and told to whoever asks.
    this.finished.promise.catch(() => {});
  }

  describe(): OperationDocument {
    const { error, finishedAt } = this;
    return {
      id: this.id,
      kind: "prepare",
      subject: this.subject,
      state: this.state,
      startedAt: this.startedAt,
      ...(finishedAt === undefined ? {} : { finishedAt }),
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
  readonly #turns: OperationTurns;
  readonly #operations = new Map<string, Operation>();
  /** All that have not ended, those that nobody can join any more among them. */
  readonly #unfinished = new Set<Operation>();
  /** By key, those that can be joined. */
  readonly #joinable = new Map<string, Operation>();
  readonly #wishes = new ByteBudget(MAX_HELD_BYTES, "wishes");
  #isClosed = false;

  constructor(options: OperationsOptions) {
    this.#options = options;
    this.#turns = new OperationTurns(options);
  }

  /** How many are at work and how many wait. */
  counts(): { readonly running: number; readonly pending: number } {
    const pending = [...this.#unfinished].filter(({ turn }) => turn.isWaiting).length;
    return { running: this.#unfinished.size - pending, pending };
  }

  /**
   * Begins something, or joins the operation that does just that.
   *
   * @returns its id, and its result
   * @throws {ShimError} BUSY when too many wait, or the service is ending
   */
  start(work: OperationWork): { readonly id: string; readonly result: Promise<PrepareDocument> } {
    const joined = this.#joinable.get(work.key);
    if (joined && !joined.stop.signal.aborted) return { id: joined.id, result: joined.finished.promise };
    if (this.#isClosed) throw new ShimError("BUSY", "Cannot begin: the service is ending", ENDING);
    const turn = this.#turns.admit(work.where, work.rows);
    const operation = new Operation(work, turn);
    try {
      const release = this.#wishes.take(work.heldBytes);
      operation.finished.promise.then(release, release);
    } catch (error) {
      turn.end();
      throw error;
    }
    this.#operations.set(operation.id, operation);
    this.#unfinished.add(operation);
    this.#joinable.set(work.key, operation);
    void this.#run(operation, work);
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

  /**
   * Takes nothing new, stops what is under way, and resolves when all of it has ended, or the time is over: what does not
   * obey ends with the process.
   */
  async close(withinMs: number): Promise<void> {
    this.#isClosed = true;
    const unfinished = [...this.#unfinished];
    for (const { stop } of unfinished) {
      stop.abort(new ShimError("CANCELLED", "Cannot finish the operation: the service is ending", ENDING));
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, withinMs));
    await Promise.race([Promise.allSettled(unfinished.map(({ finished }) => finished.promise)), late]);
    clearTimeout(timer);
  }

  async #run(operation: Operation, { run, where, whereNow }: OperationWork): Promise<void> {
    const { id, stop: { signal }, subject, turn } = operation;
    const told = new Paced<OperationProgress>(
      PROGRESS_EVERY_MS,
      (progress) => this.#tell(operation, progress),
    );
    const onProgress = (progress: Progress) => {
      const isNext = progress.phase !== operation.progress.phase;
      // The end of a phase is told, too.
      if (isNext) told.flush();
      operation.progress = { ...progress, layers: [...progress.layers] };
      told.offer(operation.progress);
      if (isNext) told.flush();
    };
    let startedMs: number | undefined;
    try {
      const document = await traceOperation(
        "prepare",
        { "bootshim.operation": id, ...subject },
        async (enter) => {
          enter("waiting");
          await turn.wait(where, signal);
          if (where === "source" && await whereNow() === "host") await turn.wait("host", signal);
          await mainLoop.share(MILLISECOND_OF_STEPS);
          signal.throwIfAborted();
          startedMs = performance.now();
          operation.state = "running";
          this.#publish("operation.running", operation);
          return await run({
            signal,
            awaitTurn: async (next) => {
              await turn.wait(next, signal);
              await mainLoop.share(MILLISECOND_OF_STEPS);
              signal.throwIfAborted();
            },
            onProgress: (progress) => {
              enter(progress.phase);
              onProgress(progress);
            },
          });
        },
      );
      operation.state = "succeeded";
      operation.result = document;
    } catch (error) {
      const failed = toShimError(error);
      // Who stopped it and why is told, not where it happened to be.
      const failure = failed.code === "CANCELLED" && signal.aborted ? toShimError(signal.reason) : failed;
      operation.state = failure.code === "CANCELLED" ? "cancelled" : "failed";
      operation.error = failure;
    }
    told.flush();
    turn.end();
    this.#finish(operation, startedMs);
  }

  #finish(operation: Operation, startedMs: number | undefined): void {
    const { id, key, state, error, result, finished } = operation;
    operation.finishedAt = new Date().toISOString();
    this.#unfinished.delete(operation);
    if (this.#joinable.get(key) === operation) this.#joinable.delete(key);
    this.#publish(`operation.${state}`, operation, error ? { code: error.code } : {});
    this.#options.onEnd?.({
      state,
      code: error?.code,
      workedSeconds: startedMs === undefined ? undefined : (performance.now() - startedMs) / 1000,
    });
    for (const [old, { state }] of this.#operations) {
      if (this.#operations.size <= KEPT_OPERATIONS) break;
      if (old !== id && state !== "pending" && state !== "running") this.#operations.delete(old);
    }
    if (result) finished.resolve(result);
    else finished.reject(error);
  }

  #publish(type: string, { id, subject }: Operation, data: Readonly<Record<string, unknown>> = {}): void {
    this.#options.events.publish(type, { operation: id, ...subject, ...data });
  }

  #tell({ id, subject }: Operation, progress: OperationProgress): void {
    // Of a phase only the newest counts, but each has its end.
    const name = `${id} ${progress.phase}`;
    this.#options.events.pass("operation.progress", name, { operation: id, ...subject, progress });
  }

  #require(id: string): Operation {
    const operation = this.#operations.get(id);
    if (operation) return operation;
    throw new ShimError("OPERATION_NOT_FOUND", `Cannot find operation ${JSON.stringify(id.slice(0, 64))}`, {
      details: { remedy: "operations are forgotten when the service restarts; repeat the request" },
    });
  }
}
