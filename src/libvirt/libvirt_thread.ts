import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";

import { ShimError } from "../errors.ts";
import type { Notice } from "./connection_watch.ts";
import type { Method, Request, Results } from "./protocol.ts";
import { releaseThread } from "./release_thread.ts";
import { REPLY, RESULTS } from "./reply.ts";

/** How long a released or closing thread may take to end by itself, or to answer the call it was released from. */
const END_GRACE_MS = 2_000;
/** How long a thread may take from its release to its answer before it is released again. */
const RELEASE_PAUSE_MS = 50;

export type ThreadOptions = {
  /** Limit of each call, counted from when it is sent to the thread. */
  readonly callTimeoutMs: number;
  /** What a watched connection tells; called on the main thread. */
  readonly onNotice?: (notice: Notice) => void;
  /** Whether the thread stays, to be used again after `restore`, when a call was given up. */
  readonly isKept?: boolean;
};

type Call = {
  readonly request: Request;
  readonly timeoutMs: number;
  readonly settle: (result: unknown) => void;
  readonly reject: (error: ShimError) => void;
};

/** A call that was given up and whose answer the thread still owes. */
type Stuck = {
  readonly id: number;
  readonly freed: Promise<void>;
  readonly free: () => void;
};

/**
 * The main thread's side of the thread that owns libvirt: sends one call at a time, so that a call that was still
 * waiting here when the thread hung is known not to have been made.
 *
 * The thread keeps the OS process alive only while a call is under way.
 */
export class LibvirtThread {
  readonly #worker: Worker;
  readonly #ended: Promise<unknown>;
  readonly #options: ThreadOptions;
  readonly #waiting: Call[] = [];
  #current: Call | null = null;
  #stuck: Stuck | null = null;
  #hasEnded = false;
  #timer: NodeJS.Timeout | undefined;
  #threadPath: string | null = null;
  #nextId = 1;
  /** Why no call is taken any more; null while all is well. */
  #refusal: string | null = null;
  #ending: Promise<void> | null = null;

  constructor(entry: URL, options: ThreadOptions) {
    this.#options = options;
    this.#worker = new Worker(entry);
    this.#ended = new Promise((resolve) => this.#worker.once("exit", resolve));
    this.#worker.on("message", (message) => this.#receive(message));
    this.#worker.on("error", (error) => this.#lose("the thread failed", error));
    this.#worker.on("messageerror", (error) => this.#lose("the thread sent what cannot be read", error));
    this.#worker.on("exit", () => {
      this.#hasEnded = true;
      this.#lose("the thread ended");
    });
    this.#worker.unref();
  }

  /**
   * Makes one call in the thread, after those asked for earlier.
   *
   * @throws {ShimError} the failure of the call itself; HYPERVISOR_TIMEOUT when it, or one before it, took too long
   * (`details.wasSent` tells whether libvirt ever saw this one); CANCELLED likewise after `abandon`;
   * HYPERVISOR_UNAVAILABLE once the thread is closed or given up; INTERNAL when the thread failed
   */
  async call<Name extends Method>(
    method: Name,
    argument: string,
    { timeoutMs = this.#options.callTimeoutMs }: { readonly timeoutMs?: number } = {},
  ): Promise<Results[Name]> {
    const result = await this.#ask({ method, argument, timeoutMs });
    const parsed = RESULTS[method].safeParse(result);
    if (!parsed.success) {
      throw new ShimError("INTERNAL", `Cannot read answer to "${method}": its shape is unknown`, {
        cause: parsed.error,
      });
    }
    return parsed.data;
  }

  /** Whether calls are taken: not once one was given up, or the thread lost or closed. */
  get isUsable(): boolean {
    return this.#refusal === null;
  }

  /** Gives the calls up that are under way and waiting: they reject with CANCELLED. Changes nothing without any. */
  abandon(): void {
    const call = this.#current;
    if (call === null) return;
    void this.#giveUp(call, {
      code: "CANCELLED",
      problem: "it was cancelled",
      details: { remedy: "see the domain's state: the call may have been carried out all the same" },
    });
  }

  /**
   * Takes calls again after one was given up, on a thread that is kept.
   *
   * @returns false while the thread does not come back from the call; it may be asked again. False for ever once it
   * ended
   */
  async restore(): Promise<boolean> {
    if (this.#ending !== null || this.#hasEnded) return false;
    const stuck = this.#stuck;
    if (stuck !== null) await this.#release(stuck);
    if (this.#stuck !== null || this.#ending !== null || this.#hasEnded) return false;
    this.#refusal = null;
    return true;
  }

  /**
   * Lets the calls asked for so far finish, then closes the connection and ends the thread. Never rejects.
   *
   * @returns whether the thread ended by itself, as one does that is not inside a C call that nothing can end
   */
  async close(): Promise<boolean> {
    if (this.#refusal === null) {
      const closing = this.#ask({ method: "close", argument: "", timeoutMs: this.#options.callTimeoutMs });
      this.#refusal = "the connection is closed";
      try {
        await closing;
      } catch {
        // The thread is lost, and the connection with it: nothing is left to close
      }
    }
    this.#refusal = "the connection is closed";
    await this.#end();
    return this.#hasEnded;
  }

  #ask({ method, argument, timeoutMs }: {
    readonly method: Method;
    readonly argument: string;
    readonly timeoutMs: number;
  }): Promise<unknown> {
    if (this.#refusal !== null) return Promise.reject(unavailable(this.#refusal));
    return new Promise((settle, reject) => {
      this.#waiting.push({ request: { id: this.#nextId++, method, argument }, timeoutMs, settle, reject });
      if (this.#current === null) this.#sendNext();
    });
  }

  #sendNext(): void {
    const call = this.#waiting.shift() ?? null;
    this.#current = call;
    if (call === null) return this.#worker.unref();
    this.#worker.ref();
    this.#timer = setTimeout(() => {
      void this.#giveUp(call, {
        code: "HYPERVISOR_TIMEOUT",
        problem: `no answer within ${call.timeoutMs} ms`,
        details: {
          timeoutMs: call.timeoutMs,
          remedy:
            "see whether libvirtd hangs (systemctl status libvirtd), and the domain's state before trying again",
        },
      });
    }, call.timeoutMs);
    this.#worker.postMessage(call.request);
  }

  #receive(message: unknown): void {
    const reply = REPLY.safeParse(message);
    if (!reply.success) return this.#lose("the thread sent what cannot be read", reply.error);
    const { data } = reply;
    if (data.kind === "started") {
      this.#threadPath = data.threadPath;
      return;
    }
    if (data.kind === "event" || data.kind === "closed") return this.#options.onNotice?.(data);
    const call = this.#current;
    if (this.#stuck !== null && data.id === this.#stuck.id) {
      // The late answer of a call that was given up
      this.#stuck.free();
      this.#stuck = null;
      return;
    }
    if (call === null) return;
    if (data.id !== call.request.id) return this.#lose("the thread answered another call");
    clearTimeout(this.#timer);
    this.#sendNext();
    if (data.kind === "result") return call.settle(data.result);
    const { code, message: text, details } = data;
    call.reject(new ShimError(code, text, { details }));
  }

  /** Frees the thread from a call, so that it can go on or end, then tells everybody who waits. */
  async #giveUp(call: Call, why: {
    readonly code: "HYPERVISOR_TIMEOUT" | "CANCELLED";
    readonly problem: string;
    readonly details: Readonly<Record<string, unknown>>;
  }): Promise<void> {
    const { method } = call.request;
    const unsent = this.#takeWaiting(`it was given up after "${method}" hung`);
    const { promise: freed, resolve: free } = Promise.withResolvers<void>();
    const stuck = { id: call.request.id, freed, free };
    this.#stuck = stuck;
    const path = this.#threadPath;
    const cause = path === null ? undefined : await releaseThread(path);
    call.reject(
      new ShimError(why.code, `Cannot finish libvirt call "${method}": ${why.problem}`, {
        cause,
        details: { wasSent: true, ...why.details },
      }),
    );
    for (const waiting of unsent) {
      waiting.reject(
        new ShimError(
          why.code,
          `Cannot make libvirt call "${waiting.request.method}": "${method}" before it hung`,
          {
            details: { wasSent: false, timeoutMs: waiting.timeoutMs },
          },
        ),
      );
    }
    if (this.#options.isKept === true) return this.#worker.unref();
    void this.#release(stuck);
    await this.#end();
  }

  /** Goes on freeing a thread: it may have been on its way into the wait, or wait a second time. */
  async #release({ freed }: Stuck): Promise<void> {
    const end = performance.now() + END_GRACE_MS;
    const isFree = Promise.race([freed, this.#ended]);
    while (performance.now() < end && !await endsWithin(isFree, RELEASE_PAUSE_MS)) {
      if (this.#threadPath !== null) await releaseThread(this.#threadPath);
    }
  }

  /** The thread is of no more use. */
  #lose(reason: string, cause?: unknown): void {
    const current = this.#current;
    const waiting = this.#takeWaiting(reason);
    for (const { request, reject } of current === null ? waiting : [current, ...waiting]) {
      const wasSent = request === current?.request;
      reject(
        new ShimError("INTERNAL", `Cannot finish libvirt call "${request.method}": ${reason}`, {
          cause,
          details: { wasSent },
        }),
      );
    }
    void this.#end();
  }

  /** From now on no call is taken or sent. Gives the calls that were never sent. */
  #takeWaiting(refusal: string): Call[] {
    clearTimeout(this.#timer);
    this.#refusal ??= refusal;
    this.#current = null;
    return this.#waiting.splice(0);
  }

  /** Waits for the thread to end by itself, and then no longer. */
  #end(): Promise<void> {
    this.#ending ??= this.#endOnce();
    return this.#ending;
  }

  async #endOnce(): Promise<void> {
    this.#worker.ref();
    // A thread that has closed already never reads it; one that was freed closes its connection
    this.#worker.postMessage({ id: 0, method: "close", argument: "" } satisfies Request);
    if (await endsWithin(this.#ended, END_GRACE_MS)) return;
    // Not awaited: a thread in a C call that could not be freed does not end until the call does
    void this.#worker.terminate();
    this.#worker.unref();
  }
}

function unavailable(reason: string): ShimError {
  return new ShimError("HYPERVISOR_UNAVAILABLE", `Cannot call libvirt: ${reason}`, {
    details: { remedy: "open a new connection" },
  });
}

async function endsWithin(ended: Promise<unknown>, limitMs: number): Promise<boolean> {
  const limit = new AbortController();
  try {
    return await Promise.race([
      ended.then(() => true),
      delay(limitMs, false, { signal: limit.signal }),
    ]);
  } finally {
    limit.abort();
  }
}
