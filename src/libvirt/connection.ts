import type { DomainStatus, LibvirtVersion } from "./domain_status.ts";
import { LibvirtThread } from "./libvirt_thread.ts";

/**
 * @module libvirt: one connection to libvirt, whose calls never block the main thread and whose errors are never
 * another call's.
 *
 * May import `errors.ts` only, and koffi in its worker threads. Invariants:
 * - one worker thread owns the connection and makes every C call, one after the other; libvirt keeps its last error
 *   per thread, so reading it anywhere else would give nothing or a stranger's;
 * - the main thread makes no C call and libvirt calls no JavaScript;
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

const CALL_TIMEOUT_MS = 30_000;

export type OpenOptions = {
  /** Limit of each call from when it reaches the worker; calls before it in the queue have their own. */
  readonly callTimeoutMs?: number;
  /** Another worker to serve the calls: the place where a test puts a misbehaving one. */
  readonly workerEntry?: URL;
};

/**
 * An open connection. Calls are made in the order in which they are asked for.
 *
 * Every method also rejects with a ShimError of HYPERVISOR_UNAVAILABLE when the daemon is gone or the connection was
 * closed or given up; of HYPERVISOR_TIMEOUT when the call, or one before it, exceeds its limit: the connection is then
 * given up, and `details.wasSent` tells whether libvirt may have carried the call out all the same.
 */
export class LibvirtConnection {
  readonly #thread: LibvirtThread;

  private constructor(thread: LibvirtThread) {
    this.#thread = thread;
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
    const { callTimeoutMs = CALL_TIMEOUT_MS, workerEntry = new URL("./worker.ts", import.meta.url) } =
      options;
    const thread = new LibvirtThread(workerEntry, callTimeoutMs);
    try {
      await thread.call("open", uri);
    } catch (error) {
      await thread.close();
      throw error;
    }
    return new LibvirtConnection(thread);
  }

  /** The versions of the library in this OS process and of the hypervisor behind the connection. */
  version(): Promise<LibvirtVersion> {
    return this.#thread.call("version", "");
  }

  /** What the host can run, as libvirt's capabilities XML. */
  capabilitiesXml(): Promise<string> {
    return this.#thread.call("capabilitiesXml", "");
  }

  /**
   * Makes or replaces the persistent definition of a domain, checked against libvirt's own schema. Defining the same
   * name and UUID again replaces it; a running guest goes on as it was started.
   *
   * @throws {ShimError} DOMAIN_INVALID when libvirt does not accept the XML
   * @throws {ShimError} CONFLICT when the name belongs to another UUID, or the UUID to another name
   */
  defineDomain(xml: string): Promise<DomainStatus> {
    return this.#thread.call("defineDomain", xml);
  }

  /** The domain of that name, or null. */
  findDomain(name: string): Promise<DomainStatus | null> {
    return this.#thread.call("findDomain", name);
  }

  /** Every domain, running or not, of whoever defined it. */
  listDomains(): Promise<DomainStatus[]> {
    return this.#thread.call("listDomains", "");
  }

  /**
   * Boots a defined domain; done when the guest's CPUs run.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND · DOMAIN_INVALID when this host cannot run the definition · DOMAIN_FAILED
   * when it runs already or the hypervisor fails
   */
  startDomain(name: string): Promise<void> {
    return this.#thread.call("startDomain", name);
  }

  /**
   * Asks the guest to power off; done when it was asked, which says nothing of whether it will.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND · DOMAIN_FAILED when it does not run
   */
  shutdownDomain(name: string): Promise<void> {
    return this.#thread.call("shutdownDomain", name);
  }

  /**
   * Cuts the guest's power; done when it is off. The definition stays.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND · DOMAIN_FAILED when it does not run
   */
  destroyDomain(name: string): Promise<void> {
    return this.#thread.call("destroyDomain", name);
  }

  /**
   * Removes the definition with its saved state, snapshot and checkpoint records; no file of the machine's folder is
   * touched, NVRAM included. A running guest goes on and is forgotten when it stops.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND
   */
  undefineDomain(name: string): Promise<void> {
    return this.#thread.call("undefineDomain", name);
  }

  /**
   * The domain's XML as libvirt completed it; of a running one, as it runs.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND
   */
  domainXml(name: string): Promise<string> {
    return this.#thread.call("domainXml", name);
  }

  /** Lets the calls asked for so far finish, then closes. Never rejects; again changes nothing. */
  close(): Promise<void> {
    return this.#thread.close();
  }
}
