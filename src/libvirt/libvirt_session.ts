import { setTimeout as delay } from "node:timers/promises";

import { ShimError, toShimError } from "../errors.ts";
import { CALL_TIMEOUT_MS, LIBVIRT_WORKER } from "./connection.ts";
import type { Notice } from "./connection_watch.ts";
import { DomainControl } from "./domain_control.ts";
import type { DomainEvent } from "./domain_event.ts";
import type { DomainStatus } from "./domain_status.ts";
import { isConnectionLost } from "./libvirt_error.ts";
import { LibvirtThread } from "./libvirt_thread.ts";
import type { Method, Results } from "./protocol.ts";

/** A daemon that hangs while we connect is given up after this; one that lives answers in milliseconds. */
const OPEN_TIMEOUT_MS = 2_000;
const FIRST_PAUSE_MS = 100;
/** A daemon that comes back is found within this, and a local socket costs nothing to try. */
const LONGEST_PAUSE_MS = 1_500;

/** What a session tells, in the order in which it happened. */
export type SessionNotice =
  /** Connected, again or at first: the whole state, read anew. What was known before is void. */
  | { readonly kind: "connected"; readonly domains: readonly DomainStatus[] }
  | { readonly kind: "disconnected"; readonly reason: string }
  | { readonly kind: "event"; readonly event: DomainEvent };

export type SessionOptions = {
  readonly callTimeoutMs?: number;
  /** Called on the main thread; must not throw. */
  readonly onNotice?: (notice: SessionNotice) => void;
  /** Another worker to serve the calls: the place where a test puts a misbehaving one. */
  readonly workerEntry?: URL;
};

/** libvirt's event loop belongs to the whole OS process, and one thread may run it. */
let isTaken = false;

/**
 * A connection for as long as a service runs: it connects, is told of every change of a domain, notices within seconds
 * that the daemon went or hangs, and connects again.
 *
 * While there is no connection every call rejects at once with HYPERVISOR_UNAVAILABLE; none is kept for later, and none
 * is made twice. One thread serves all connections of a session, one after the other.
 */
export class LibvirtSession extends DomainControl {
  readonly #uri: string;
  readonly #options: SessionOptions;
  readonly #thread: LibvirtThread;
  readonly #ended: Promise<void>;
  readonly #closing = new AbortController();
  #isConnected = false;
  /** Ends the present connection's life, with the reason. */
  #lose: (reason: string) => void = () => {};
  /** Events that came while the state was being read. */
  #early: DomainEvent[] | null = null;
  #trouble: ShimError | null = null;
  #connected = Promise.withResolvers<void>();

  private constructor(uri: string, options: SessionOptions) {
    super();
    this.#uri = uri;
    this.#options = options;
    this.#thread = new LibvirtThread(options.workerEntry ?? LIBVIRT_WORKER, {
      callTimeoutMs: options.callTimeoutMs ?? CALL_TIMEOUT_MS,
      onNotice: (notice) => this.#take(notice),
      isKept: true,
    });
    this.#ended = this.#run();
  }

  /**
   * Begins to connect, and gives the session at once.
   *
   * @throws {ShimError} INTERNAL while this OS process has another session
   */
  static start(uri: string, options: SessionOptions = {}): LibvirtSession {
    if (isTaken) {
      throw new ShimError("INTERNAL", "Cannot start a libvirt session: this process has one already");
    }
    isTaken = true;
    return new LibvirtSession(uri, options);
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  /**
   * Waits for a connection.
   *
   * @throws {ShimError} HYPERVISOR_UNAVAILABLE, with the last attempt's failure, when there is none by then
   */
  async whenConnected(limitMs: number): Promise<void> {
    const limit = new AbortController();
    try {
      await Promise.race([this.#connected.promise, delay(limitMs, undefined, { signal: limit.signal })]);
    } finally {
      limit.abort();
    }
    if (!this.#isConnected) throw this.#unavailable();
  }

  /** Closes the connection and ends the thread. Never rejects; again changes nothing. */
  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort();
      this.#lose("the session was closed");
      // A thread that never came back still holds the event loop
      if (await this.#thread.close()) isTaken = false;
    }
    await this.#ended;
  }

  protected async call<Name extends Method>(method: Name, argument: string): Promise<Results[Name]> {
    if (!this.#isConnected) throw this.#unavailable();
    try {
      return await this.#thread.call(method, argument);
    } catch (error) {
      const failure = toShimError(error);
      if (!this.#thread.isUsable || isConnectionLost(failure)) this.#lose(failure.message);
      throw failure;
    }
  }

  async #run(): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS;
    while (!this.#closing.signal.aborted) {
      try {
        const { lost } = await this.#connect();
        pauseMs = FIRST_PAUSE_MS;
        const reason = await lost;
        this.#isConnected = false;
        this.#connected = Promise.withResolvers();
        this.#trouble = null;
        this.#tell({ kind: "disconnected", reason });
      } catch (error) {
        this.#trouble = toShimError(error);
      }
      this.#early = null;
      await delay(pauseMs, undefined, { signal: this.#closing.signal, ref: false }).catch(() => {});
      pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    }
  }

  /** Connects and reads the state. Gives when the connection is lost, which may already have happened. */
  async #connect(): Promise<{ readonly lost: Promise<string> }> {
    if (!await this.#thread.restore()) {
      throw new ShimError("HYPERVISOR_UNAVAILABLE", "Cannot call libvirt: its thread does not come back", {
        details: { remedy: "restart bootshim if this lasts" },
      });
    }
    const { promise: lost, resolve } = Promise.withResolvers<string>();
    this.#lose = resolve;
    this.#early = [];
    await this.#thread.call("openWatched", this.#uri, { timeoutMs: OPEN_TIMEOUT_MS });
    const domains = await this.#thread.call("listDomains", "");
    this.#isConnected = true;
    this.#tell({ kind: "connected", domains });
    for (const event of this.#early) this.#tell({ kind: "event", event });
    this.#early = null;
    this.#connected.resolve();
    return { lost };
  }

  #take(notice: Notice): void {
    if (notice.kind === "closed") return this.#lose(notice.reason);
    if (this.#early !== null) this.#early.push(notice.event);
    else if (this.#isConnected) this.#tell(notice);
  }

  #tell(notice: SessionNotice): void {
    this.#options.onNotice?.(notice);
  }

  #unavailable(): ShimError {
    const cause = this.#trouble;
    return new ShimError(
      "HYPERVISOR_UNAVAILABLE",
      `Cannot call libvirt: there is no connection to "${this.#uri}"${
        cause === null ? "" : `, ${cause.message}`
      }`,
      {
        cause,
        details: {
          remedy: cause?.details.remedy ?? "try again in a few seconds: the connection is being made anew",
        },
      },
    );
  }
}
