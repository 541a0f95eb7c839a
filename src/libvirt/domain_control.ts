import type { DomainStatus, LibvirtVersion } from "./domain_status.ts";
import type { Method, Results } from "./protocol.ts";

/**
 * What can be asked of a libvirt, however the connection is kept. Calls are made one after the other, in the order in
 * which they are asked for.
 *
 * Every method also rejects with a ShimError of HYPERVISOR_UNAVAILABLE when there is no connection; of
 * HYPERVISOR_TIMEOUT when the call, or one before it, exceeds its limit: `details.wasSent` then tells whether libvirt
 * may have carried the call out all the same.
 */
export abstract class DomainControl {
  protected abstract call<Name extends Method>(method: Name, argument: string): Promise<Results[Name]>;

  /** The versions of the library in this OS process and of the hypervisor behind the connection. */
  version(): Promise<LibvirtVersion> {
    return this.call("version", "");
  }

  /** What the host can run, as libvirt's capabilities XML. */
  capabilitiesXml(): Promise<string> {
    return this.call("capabilitiesXml", "");
  }

  /**
   * What domains of one kind the host can run, as libvirt's domain capabilities XML.
   *
   * @param architecture libvirt's word: `x86_64`, `aarch64`
   * @param virtualizationType libvirt's word: `kvm`, `qemu`
   * @throws {ShimError} DOMAIN_INVALID, DOMAIN_FAILED when it runs none of that kind
   */
  domainCapabilitiesXml(architecture: string, virtualizationType: string): Promise<string> {
    return this.call("domainCapabilitiesXml", `${architecture} ${virtualizationType}`);
  }

  /**
   * Makes or replaces the persistent definition of a domain, checked against libvirt's own schema. Defining the same
   * name and UUID again replaces it; a running guest goes on as it was started.
   *
   * @throws {ShimError} DOMAIN_INVALID when libvirt does not accept the XML
   * @throws {ShimError} CONFLICT when the name belongs to another UUID, or the UUID to another name
   */
  defineDomain(xml: string): Promise<DomainStatus> {
    return this.call("defineDomain", xml);
  }

  /** The domain of that name, or null. */
  findDomain(name: string): Promise<DomainStatus | null> {
    return this.call("findDomain", name);
  }

  /** Every domain, running or not, of whoever defined it. */
  listDomains(): Promise<DomainStatus[]> {
    return this.call("listDomains", "");
  }

  /**
   * Boots a defined domain; done when the guest's CPUs run.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND · DOMAIN_INVALID when this host cannot run the definition · CONFLICT
   * when it runs already · DOMAIN_FAILED when the hypervisor fails
   */
  startDomain(name: string): Promise<void> {
    return this.call("startDomain", name);
  }

  /**
   * Asks the guest to power off; done when it was asked, which says nothing of whether it will.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND · CONFLICT when it does not run
   */
  shutdownDomain(name: string): Promise<void> {
    return this.call("shutdownDomain", name);
  }

  /**
   * Cuts the guest's power; done when it is off. The definition stays.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND · CONFLICT when it does not run
   */
  destroyDomain(name: string): Promise<void> {
    return this.call("destroyDomain", name);
  }

  /**
   * Removes the definition with its saved state, snapshot and checkpoint records; no file of the machine's folder is
   * touched, NVRAM included. A running guest goes on and is forgotten when it stops.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND
   */
  undefineDomain(name: string): Promise<void> {
    return this.call("undefineDomain", name);
  }

  /**
   * The domain's XML as libvirt completed it; of a running one, as it runs.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND
   */
  domainXml(name: string): Promise<string> {
    return this.call("domainXml", name);
  }

  /**
   * The domain's definition as libvirt keeps it, whether it runs or not, fit to be defined again.
   *
   * @throws {ShimError} MACHINE_NOT_FOUND
   */
  keptDomainXml(name: string): Promise<string> {
    return this.call("keptDomainXml", name);
  }
}
