import { ShimError, toShimError } from "../errors.ts";
import type { DomainControl } from "../libvirt/domain_control.ts";
import type { DomainStatus } from "../libvirt/domain_status.ts";

/** What came of it: the domain, and whether libvirt did not know it before. */
export type Defined = { readonly status: DomainStatus; readonly isNew: boolean };

/**
 * Makes libvirt's definition the machine's. A definition that somebody changed is neither overwritten nor used.
 *
 * libvirt completes what it is given, so texts cannot be compared before it was: ours is defined, and the earlier one
 * put back when the two differ. Defining touches no running guest.
 *
 * A definition without MAC address, as machines were given earlier, leaves the address to libvirt, which draws another at
 * each define. Whichever it has is then the machine's, and stays, because its guest knows it by now.
 *
 * @param options.before the domain of that name and UUID, as it is now
 * @throws {ShimError} CONFLICT when the definition is another than the machine's; DOMAIN_INVALID
 */
export async function ensureDefined(
  libvirt: DomainControl,
  { xml, before }: { readonly xml: string; readonly before: DomainStatus | null },
): Promise<Defined> {
  if (before === null || !before.isPersistent) {
    return { status: await libvirt.defineDomain(xml), isNew: true };
  }
  const { name } = before;
  const kept = await libvirt.keptDomainXml(name);
  const status = await libvirt.defineDomain(xml);
  const now = await libvirt.keptDomainXml(name);
  if (sortDevices(now) === sortDevices(kept)) return { status, isNew: false };
  if (!statesAddress(xml) && sortDevices(withoutAddresses(now)) === sortDevices(withoutAddresses(kept))) {
    return { status: await libvirt.defineDomain(kept), isNew: false };
  }
  throw await putBack(libvirt, { name, kept });
}

/** Text and attributes have no bare `<`, so this is the element and nothing else. */
function statesAddress(xml: string): boolean {
  return xml.includes("<mac ");
}

/** @param xml as libvirt prints it */
function withoutAddresses(xml: string): string {
  return xml.replaceAll(/^ *<mac address='[^']*'\/>\n/gm, "");
}

async function putBack(
  libvirt: DomainControl,
  { name, kept }: { readonly name: string; readonly kept: string },
): Promise<ShimError> {
  const conflict = (problem: string, cause?: unknown) =>
    new ShimError("CONFLICT", `Cannot define domain "${name}": ${problem}`, {
      cause,
      details: {
        id: name,
        remedy: `run: bootshim undefine ${name}; then define it again, to have it as it was prepared`,
      },
    });
  try {
    await libvirt.defineDomain(kept);
    return conflict("libvirt has another definition of it, which somebody changed; it was left as it is");
  } catch (error) {
    const cause = toShimError(error);
    return conflict(
      `libvirt had another definition of it, and did not take it back: ${cause.message}`,
      cause,
    );
  }
}

/**
 * A definition with its devices in an order of their own: libvirt changes theirs when it reads its own file again.
 *
 * @param xml as libvirt prints it, one element a line, indented by two spaces a level
 */
export function sortDevices(xml: string): string {
  const [before, devices, after] = xml.split(/(?<=^ {2}<devices>\n)|(?=^ {2}<\/devices>$)/m);
  if (before === undefined || devices === undefined || after === undefined) return xml;
  // A device begins where a line is indented by two levels and closes nothing
  return before + devices.split(/(?=^ {4}<[^/])/m).sort().join("") + after;
}
