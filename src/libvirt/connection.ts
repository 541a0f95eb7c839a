import { ShimError } from "../errors.ts";
import { DomainControl } from "./domain_control.ts";
import { LibvirtThread } from "./libvirt_thread.ts";
import type { Method, Results } from "./protocol.ts";

/**
 * @module libvirt: one connection to libvirt, whose calls never block the main thread and whose errors are never
 * another call's.
 *
 * May import `errors.ts` only, and koffi in its worker threads. Invariants:
 * - one worker thread owns the connection and makes every C call, one after the other; libvirt keeps its last error
 *   per thread, so reading it anywhere else would give nothing or a stranger's;
 * - the main thread makes no C call; libvirt calls JavaScript on the thread that owns the connection only;
 * - every call has a time limit, and a hung one ends by having its socket shut down: no thread is left behind;
 * - domain pointers never leave the worker: a domain is known by its name.
 *
 * @example
 * const connection = await LibvirtConnection.open("qemu:///system");
 * try {
 *   const status = await connection.defineDomain(xml);
 *   await connection.startDomain(status.name);
 * } finally {
 *   await connection.close();
 * }
 */

/** Limit of a call, unless another is given: QEMU starts within a second or two. */
export const CALL_TIMEOUT_MS = 30_000;
/** Entry of the thread that serves the calls. */
export const LIBVIRT_WORKER: URL = new URL("./worker.ts", import.meta.url);

export type OpenOptions = {
  /** Limit of each call from when it reaches the worker; calls before it in the queue have their own. */
  readonly callTimeoutMs?: number;
  /** Ends the call under way and every later one with CANCELLED, at once, even when libvirt hangs. */
  readonly signal?: AbortSignal | undefined;
  /** Another worker to serve the calls: the place where a test puts a misbehaving one. */
  readonly workerEntry?: URL;
};

/**
 * A connection for a few calls, opened and closed by its user. It is given up when its daemon goes or a call exceeds
 * its limit: every later call is HYPERVISOR_UNAVAILABLE.
 */
export class LibvirtConnection extends DomainControl {
  readonly #thread: LibvirtThread;
  readonly #signal: AbortSignal | undefined;
  readonly #abandon: () => void;

  private constructor(thread: LibvirtThread, signal: AbortSignal | undefined) {
    super();
    this.#thread = thread;
    this.#signal = signal;
    this.#abandon = () => thread.abandon();
    signal?.addEventListener("abort", this.#abandon);
  }

  /**
   * Connects to `qemu:///system`, `qemu:///session` or `test:///default`.
   *
   * The caller closes the connection; one that is left open does not keep the OS process from ending.
   *
   * @throws {ShimError} HYPERVISOR_LIBRARY_MISSING when libvirt's library or one of its symbols is not there
   * @throws {ShimError} HYPERVISOR_UNAVAILABLE when no daemon answers or it refuses us
   * @throws {ShimError} CONFIG_INVALID when the URI is malformed
   */
  static async open(uri: string, options: OpenOptions = {}): Promise<LibvirtConnection> {
    const { callTimeoutMs = CALL_TIMEOUT_MS, workerEntry = LIBVIRT_WORKER, signal } = options;
    requireWanted(signal);
    const connection = new LibvirtConnection(new LibvirtThread(workerEntry, { callTimeoutMs }), signal);
    try {
      await connection.call("open", uri);
      return connection;
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  protected async call<Name extends Method>(method: Name, argument: string): Promise<Results[Name]> {
    requireWanted(this.#signal);
    return await this.#thread.call(method, argument);
  }

  /** Lets the calls asked for so far finish, then closes. Never rejects; again changes nothing. */
  async close(): Promise<void> {
    await this.#thread.close();
    this.#signal?.removeEventListener("abort", this.#abandon);
  }
}

function requireWanted(signal: AbortSignal | undefined): void {
  if (signal?.aborted !== true) return;
  throw new ShimError("CANCELLED", "Cannot call libvirt: it was cancelled", { cause: signal.reason });
}
