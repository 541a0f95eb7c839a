import { setTimeout as delay } from "node:timers/promises";
import { Worker } from "node:worker_threads";

import { ShimError } from "../errors.ts";
import type { Method, Request, Results } from "./protocol.ts";
import { REPLY, RESULTS } from "./reply.ts";

/** How long a released or closing thread may take to end by itself. */
const END_GRACE_MS = 2_000;
/** How long the release of a hung thread may take; it makes a few system calls that never wait. */
const RELEASE_LIMIT_MS = 5_000;

type Call = {
  readonly request: Request;
  readonly settle: (result: unknown) => void;
  readonly reject: (error: ShimError) => void;
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
  readonly #callTimeoutMs: number;
  readonly #waiting: Call[] = [];
  #current: Call | null = null;
  #timer: NodeJS.Timeout | undefined;
  #threadPath: string | null = null;
  #nextId = 1;
  /** Why no call is taken any more; null while all is well. */
  #refusal: string | null = null;
  #ending: Promise<void> | null = null;

  /** @param callTimeoutMs limit of each call, counted from when it is sent to the thread */
  constructor(entry: URL, callTimeoutMs: number) {
    this.#callTimeoutMs = callTimeoutMs;
    this.#worker = new Worker(entry);
    this.#ended = new Promise((resolve) => this.#worker.once("exit", resolve));
    this.#worker.on("message", (message) => this.#receive(message));
    this.#worker.on("error", (error) => this.#lose("the thread failed", error));
    this.#worker.on("messageerror", (error) => this.#lose("the thread sent what cannot be read", error));
    this.#worker.on("exit", () => this.#lose("the thread ended"));
    this.#worker.unref();
  }

  /**
   * Makes one call in the thread, after those asked for earlier.
   *
   * @throws {ShimError} the failure of the call itself; HYPERVISOR_TIMEOUT when it, or one before it, took too long
   * (`details.wasSent` tells whether libvirt ever saw this one); HYPERVISOR_UNAVAILABLE once the thread is closed or
   * given up; INTERNAL when the thread failed
   */
  async call<Name extends Method>(method: Name, argument: string): Promise<Results[Name]> {
    const result = await this.#ask(method, argument);
    const parsed = RESULTS[method].safeParse(result);
    if (!parsed.success) {
      throw new ShimError("INTERNAL", `Cannot read answer to "${method}": its shape is unknown`, {
        cause: parsed.error,
      });
    }
    return parsed.data;
  }

  /** Lets the calls asked for so far finish, then closes the connection and ends the thread. Never rejects. */
  async close(): Promise<void> {
    if (this.#refusal === null) {
      const closing = this.#ask("close", "");
      this.#refusal = "the connection is closed";
      try {
        await closing;
      } catch {
        // The thread is lost, and the connection with it: nothing is left to close
      }
    }
    await this.#end();
  }

  #ask(method: Method, argument: string): Promise<unknown> {
    if (this.#refusal !== null) return Promise.reject(unavailable(this.#refusal));
    return new Promise((settle, reject) => {
      this.#waiting.push({ request: { id: this.#nextId++, method, argument }, settle, reject });
      if (this.#current === null) this.#sendNext();
    });
  }

  #sendNext(): void {
    const call = this.#waiting.shift() ?? null;
    this.#current = call;
    if (call === null) return this.#worker.unref();
    this.#worker.ref();
    this.#timer = setTimeout(() => this.#giveUp(call), this.#callTimeoutMs);
    this.#worker.postMessage(call.request);
  }

  #receive(message: unknown): void {
    const reply = REPLY.safeParse(message);
    if (!reply.success) return this.#lose("the thread sent what cannot be read", reply.error);
    if (reply.data.kind === "started") {
      this.#threadPath = reply.data.threadPath;
      return;
    }
    const call = this.#current;
    // The late answer of a call that was given up
    if (call === null) return;
    if (reply.data.id !== call.request.id) return this.#lose("the thread answered another call");
    clearTimeout(this.#timer);
    this.#sendNext();
    if (reply.data.kind === "result") return call.settle(reply.data.result);
    const { code, message: text, details } = reply.data;
    call.reject(new ShimError(code, text, { details }));
  }

  /** The call's limit is over: frees the thread from it, so that it can end, then tells everybody who waits. */
  async #giveUp(call: Call): Promise<void> {
    const timeoutMs = this.#callTimeoutMs;
    const unsent = this.#takeWaiting(`it was given up after "${call.request.method}" hung`);
    const path = this.#threadPath;
    const cause = path === null ? undefined : await release(path).catch((failure: unknown) => failure);
    call.reject(
      new ShimError(
        "HYPERVISOR_TIMEOUT",
        `Cannot finish libvirt call "${call.request.method}": no answer within ${timeoutMs} ms`,
        {
          cause,
          details: {
            wasSent: true,
            timeoutMs,
            remedy:
              "see whether libvirtd hangs (systemctl status libvirtd), and the domain's state before trying again",
          },
        },
      ),
    );
    for (const { request, reject } of unsent) {
      reject(
        new ShimError(
          "HYPERVISOR_TIMEOUT",
          `Cannot make libvirt call "${request.method}": "${call.request.method}" before it hung`,
          { details: { wasSent: false, timeoutMs } },
        ),
      );
    }
    await this.#end();
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

/** Makes the C call under way in a thread fail. Gives what kept it from being tried, if anything did. */
async function release(threadPath: string): Promise<unknown> {
  let failure: unknown;
  const worker = new Worker(new URL("./release_worker.ts", import.meta.url), { workerData: threadPath });
  worker.on("error", (error) => failure = error);
  const ended = new Promise((resolve) => worker.once("exit", resolve));
  if (!await endsWithin(ended, RELEASE_LIMIT_MS)) void worker.terminate();
  return failure;
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
